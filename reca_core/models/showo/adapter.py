"""Show-o as a UnifiedModel: RecA on a discrete-diffusion model that reads and writes in one Phi language model.

    picture -> CLIP -> projector -> [turn with the picture and an instruction] -> Phi -> masked MAGVITv2 codes of it

In the VQ variant the picture is given as its own codes instead, at a lower resolution or blurred: the same codes at the
same resolution would be copied, which training refuses (pictures.py, training/guards.py).
Sources: Show-o, arXiv 2408.12528; RecA's sequences: reference "reca_recipe", sections 1.4 and 4.2 A.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from reca_core.contracts.errors import BadInput
from reca_core.contracts.requests import SamplingSettings, TrainingPlan
from reca_core.draws import KeyedDraws, picture_stream
from reca_core.models import directory as common
from reca_core.models.frozen import batched, described
from reca_core.models.grouping import filled_rows, in_order_by_length
from reca_core.models.pictures import to_pictures
from reca_core.models.showo import answering, sampler, smallest
from reca_core.models.showo import directory as layout
from reca_core.models.showo.chat import QUESTION, VQ_QUESTION, Wording
from reca_core.models.showo.configuration import ShownPicture, ShowoConfiguration
from reca_core.models.showo.magvit import autoencoder_terms
from reca_core.models.showo.network import CLIP_LAYER, ShowoNetwork
from reca_core.models.showo.pictures import ClipTransform, CodesTransform, PictureTransform
from reca_core.models.showo.sequence import (
    ClipLayout,
    DrawingLayout,
    PictureLayout,
    RedrawingLayout,
    VqLayout,
    image_part,
)
from reca_core.models.stages import stage_names
from reca_core.models.unified import Condition, Dialogue, DrawRequest, FrozenParts, Images, RedrawRequest, Target
from reca_core.models.variants import refuse_others, rounds_of
from reca_core.models.word_tokenizer import word_tokenizer
from reca_core.objectives import masked_token, next_token
from reca_core.objectives.loss_sum import LossSum

STAGES: dict[str, tuple[str, ...]] = {"base": ("tokenizer.",), "post": ("tokenizer.", "clip.")}
"""Training stage -> prefixes of the parameters it leaves alone (reference, 1.3). In "base" CLIP learns too, for tiny
models whose CLIP has random weights."""
TOKENIZER = "tokenizer."
ALONE = {"tokenizer": (TOKENIZER,), "decoder": ("tokenizer.decoder.",)}
"""Training stage -> prefixes of the only parameters it changes."""
MIN_PICTURES = 2
"""Convolutions: equal bits from 2 pictures on."""


@dataclass(frozen=True)
class _Row:
    """One picture to make or to describe: its text's ids, its seed's key and, where it is looked at, the picture."""

    text: list[int]
    key: tuple[str, int]
    picture: Image.Image | None = None


def unread_layers(configuration: ShowoConfiguration) -> tuple[str, ...]:
    """Prefixes of CLIP's layers after the one whose states are taken, which published files carry along."""
    clip = configuration.sizes.clip
    if clip is None:
        return ()
    layers = int(clip.num_hidden_layers)
    late = tuple(f"clip.encoder.layers.{index}." for index in range(layers + 1 + CLIP_LAYER, layers))
    return (*late, "clip.post_layernorm.")


class Showo(nn.Module):
    """The adapter. Construct with ``load`` or ``from_configuration``.

    Args:
        configuration: sizes, variant and published settings.
        network: all parameters.
        tokenizer: the checkpoint's own.
        templates: instructions for RecA in words that this checkpoint knows.
        companions: the files that ``save`` writes beside config and weights, by name.
    """

    family = "showo"
    image_tokenizer = "tokenizer"
    target_space = "MAGVITv2 codes"
    parity = (
        "CLIP looked at pictures without its own normalisation, reconstruction gave no gradient to the projector and "
        "the word embeddings, and questions were asked about centre squares (Show-o's published RecA training)"
    )
    parity_average = 0.0
    undecayed: tuple[str, ...] = ()

    def __init__(
        self,
        configuration: ShowoConfiguration,
        network: ShowoNetwork,
        tokenizer: PreTrainedTokenizerFast,
        templates: Sequence[str],
        companions: Mapping[str, bytes],
    ) -> None:
        super().__init__()
        self.configuration = configuration
        self.network = network
        self.templates = tuple(templates)
        self.tokenizer = tokenizer
        self._companions = companions
        clip, vocabulary = configuration.sizes.clip, configuration.sizes.language.vocab_size
        question = QUESTION if clip else VQ_QUESTION
        self.wording = Wording(tokenizer, configuration.text_vocabulary, vocabulary, question)
        self.special = self.wording.special
        self.drawing = DrawingLayout(self.special, configuration.max_text)
        self.picture_layout = self._picture_layout()
        self.transform = self._transform()

    def _picture_layout(self) -> PictureLayout:
        chosen = self.configuration
        if chosen.sizes.clip is None:
            rows, asked = chosen.codes_of(chosen.shown_side), chosen.tokens
            return VqLayout(self.special, chosen.max_text, rows, asked)
        system = tuple(self.wording.ids(chosen.system_prompt))
        return ClipLayout(self.special, chosen.max_text, chosen.sizes.clip_patches, system)

    def _transform(self) -> PictureTransform:
        chosen = self.configuration
        if chosen.sizes.clip is None:
            return CodesTransform(chosen.side, chosen.shown.downscale, chosen.shown.blurred)
        return ClipTransform(chosen.side, chosen.sizes.clip_side, chosen.upstream_parity)

    @property
    def understanding_space(self) -> str:
        """What ``understand`` returns, for the bottleneck check: the codes of a blurred picture are not the target."""
        if self.configuration.sizes.clip:
            return "CLIP features"
        blurred = f" of a picture blurred {self.configuration.shown.downscale} times"
        return self.target_space + (blurred if self.configuration.shown.blurred else "")

    @classmethod
    def from_configuration(
        cls, configuration: ShowoConfiguration, tokenizer: PreTrainedTokenizerFast, templates: Sequence[str] = ()
    ) -> Showo:
        """A model with random weights (torch's global generator), for tiny models and tests."""
        chosen, network = tuple(templates) or common.GENERAL_TEMPLATES, ShowoNetwork(configuration.sizes)
        return cls(configuration, network, tokenizer, chosen, common.new_companions(tokenizer, chosen)).eval()

    @classmethod
    def smallest(cls, seed: int = 0, *, clip: bool = True) -> Showo:
        """The smallest model that has every part, with random weights of this seed; without ``clip`` the VQ variant."""
        tokenizer = word_tokenizer(smallest.WORDS, smallest.STRUCTURAL, smallest.ROLES)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            configuration = smallest.smallest_configuration(len(tokenizer), clip=clip)
            return cls.from_configuration(configuration, tokenizer, smallest.TEMPLATES)

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Showo:
        """Read a checkpoint directory, ours or the published files, in float32.

        Raises CheckpointRefused naming the keys that do not fit.
        """
        found = layout.read(directory)
        adapter = cls(found.configuration, found.network, found.tokenizer, found.templates, found.companions)
        return adapter.to(device).eval()

    def save(self, directory: Path) -> None:
        """Write our layout: what ``load`` reads."""
        layout.write(directory, self.configuration, self.network, self._companions)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.network.device

    def trainable_names(self, stage: str) -> frozenset[str]:
        """Names of ``network``'s parameters that the stage may change. Raises BadInput for an unknown stage."""
        unread = unread_layers(self.configuration)
        left_alone = {name: (*prefixes, *unread) for name, prefixes in STAGES.items()}
        return stage_names(self.family, self.network, stage, ALONE, left_alone)

    def following(self, plan: TrainingPlan) -> Showo:
        """The same weights: CLIP's variant with or without upstream's slips, the VQ variant with another picture."""
        chosen = self.configuration
        varied = chosen.sizes.clip is None
        known = ("understanding_downscale", "understanding_picture") if varied else ("upstream_parity",)
        refuse_others(self.family, plan, known)
        blurred = {"small": False, "blurred": True}.get(plan.understanding_picture, chosen.shown.blurred)
        shown = ShownPicture(plan.understanding_downscale or chosen.shown.downscale, blurred)
        chosen = replace(chosen, upstream_parity=plan.upstream_parity, shown=shown)
        chosen.check("training.understanding_downscale")
        return Showo(chosen, self.network, self.tokenizer, self.templates, self._companions).eval()

    # ---- what goes in ------------------------------------------------------------------------------------------

    def prepare(self, pictures: Sequence[Image.Image], whole: bool = False) -> Images:
        """Squashed to squares; ``whole`` as questions are asked about them. On the CPU."""
        return self.transform(pictures, whole)

    def understand(self, images: Images) -> Float[Tensor, "batch und_tokens width"]:
        """Projected CLIP patches, or embeddings of the shown picture's codes."""
        return self._embedded(self._looked_at(images))

    def _looked_at(self, images: Images) -> Tensor:
        return self.network.look(self._filled(images.understanding))[: len(images.understanding)]

    def _filled(self, pixels: Tensor) -> Tensor:
        return filled_rows(pixels.to(self.device), MIN_PICTURES)

    def _embedded(self, looked_at: Tensor) -> Float[Tensor, "batch und_tokens width"]:
        if self.network.projector is None:
            return self.network.embed(looked_at + self.special.image)
        seen: Tensor = self.network.projector(looked_at)
        return seen

    def frozen_parts(self) -> FrozenParts:
        """CLIP's patches before the projector, or the shown picture's codes; the target's codes."""
        sizes, prefix = self.configuration.sizes, (TOKENIZER,) if self.network.clip is None else ("clip.",)
        words = described(sizes.clip, CLIP_LAYER, sizes.tokenizer, self.transform)
        target = batched((TOKENIZER,), words, lambda images: _codes(self.encode_target(images)), Target)
        return FrozenParts(batched(prefix, words, self._looked_at, self._embedded), target)

    def condition(
        self,
        understanding: Float[Tensor, "batch und_tokens width"],
        templates: Sequence[str],
        drop_text: Bool[Tensor, " batch"],
    ) -> Condition:
        """Picture and instruction. Dropped rows keep the picture and have no text."""
        instructions = self.wording.instructions(templates)
        texts = [[] if drop else ids for ids, drop in zip(instructions, drop_text.tolist(), strict=True)]
        return self._opening(self.picture_layout, texts, understanding)

    def encode_target(self, images: Images) -> Target:
        """MAGVITv2 codes, row-major; float32, no gradient."""
        return Target(ids=self.network.codes(self._filled(images.target))[: len(images.target)])

    def _opening(self, kind: RedrawingLayout, texts: Sequence[Sequence[int]], seen: Tensor | None = None) -> Condition:
        ids = kind.openings(texts)
        return Condition(self.network.embed(ids.to(self.device), seen), (ids != self.special.pad).long())

    # ---- losses ------------------------------------------------------------------------------------------------

    def reconstruction_loss(self, condition: Condition, target: Target, draws: KeyedDraws) -> LossSum:
        """Cross-entropy of the masked codes (arXiv 2509.07295, equation 1), one count per masked code."""
        ids = _codes(target) + self.special.image
        masked = _masked(draws, ids)
        without_gradient = self.configuration.upstream_parity and self.configuration.sizes.clip is not None
        states = self._image_states(self.picture_layout, condition, ids.masked_fill(masked, self.special.mask),
                                    frozen_inputs=without_gradient)  # fmt: skip
        return next_token.cross_entropy(self.network.logits(states[:, 1:-1][masked]), ids[masked])

    def text_to_image_loss(
        self, captions: Sequence[str], target: Target, drop_text: Bool[Tensor, " batch"], draws: KeyedDraws
    ) -> LossSum:
        """The same after a caption, and over soi and eoi too, as Show-o is trained; dropped rows have no text."""
        captioned = self.wording.captions(captions)
        texts = [[] if drop else ids for ids, drop in zip(captioned, drop_text.tolist(), strict=True)]
        ids = _codes(target) + self.special.image
        masked = _masked(draws, ids)
        opening, shown = self._opening(self.drawing, texts), ids.masked_fill(masked, self.special.mask)
        states = self._image_states(self.drawing, opening, shown)
        ends = masked.new_ones(len(masked), 1)
        counted = torch.cat([ends, masked, ends], dim=1)
        return next_token.cross_entropy(self.network.logits(states[counted]), image_part(ids, self.special)[counted])

    def _image_states(
        self, kind: RedrawingLayout, opening: Condition, shown: Int[Tensor, "batch tokens"], frozen_inputs: bool = False
    ) -> Float[Tensor, "batch tokens2 width"]:
        """States at soi, image tokens and eoi."""
        inputs = torch.cat([opening.embeddings, self.network.embed(image_part(shown, self.special))], dim=1)
        allowed = kind.mask(opening.attention.cpu(), shown.shape[1]).to(self.device)
        states = self.network.states(inputs.detach() if frozen_inputs else inputs, allowed)
        return states[:, opening.embeddings.shape[1] :]

    def image_to_text_loss(self, images: Images, dialogues: Sequence[Dialogue]) -> LossSum:
        """Cross-entropy of the answers' tokens, end of text included."""
        shown = [dialogue for dialogue in dialogues if dialogue.picture is not None]
        told = [dialogue for dialogue in dialogues if dialogue.picture is None]
        losses = [answering.text_loss(self.network, self.wording, told)] if told or not shown else []
        if shown:
            rows = torch.tensor([dialogue.picture for dialogue in shown], device=self.device)
            seen = self.understand(images)[rows]
            losses.append(answering.picture_loss(self.network, self.wording, self.picture_layout, shown, seen))
        return sum(losses[1:], losses[0])

    def text_loss(self, dialogues: Sequence[Dialogue]) -> LossSum:
        """The same about captions that stand in the question. Raises BadInput if a dialogue shows a picture."""
        if any(dialogue.picture is not None for dialogue in dialogues):
            raise BadInput("a text dialogue refers to a picture", field="dialogues", remedy="use image_to_text_loss")
        return answering.text_loss(self.network, self.wording, dialogues)

    def tokenizer_loss(self, images: Images) -> dict[str, LossSum]:
        """The image tokenizer's own objective on the targets."""
        return autoencoder_terms(self.network.tokenizer, images.target.to(self.device))

    # ---- what comes out ----------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[DrawRequest], settings: SamplingSettings) -> Iterator[Image.Image]:
        """Text to image, in order. A picture depends on its own text and seed only, not on its batch."""
        texts = self.wording.captions([request.text for request in requests])
        rows = [_Row(text, (request.text, request.seed)) for text, request in zip(texts, requests, strict=True)]
        yield from self._draw(rows, settings)

    def reconstruct(self, requests: Sequence[RedrawRequest], settings: SamplingSettings) -> Iterator[Image.Image]:
        """Image to image through the understanding path, in order."""
        texts = self.wording.instructions([request.template for request in requests])
        rows = [
            _Row(text, (request.template, request.seed), request.picture)
            for text, request in zip(texts, requests, strict=True)
        ]
        yield from self._draw(rows, settings)

    def _draw(self, rows: Sequence[_Row], settings: SamplingSettings) -> Iterator[Image.Image]:
        """Openings have one length, so any rows may share a batch."""
        refuse_others(self.family, settings, ("steps",))
        for start in range(0, len(rows), settings.images_per_batch):
            yield from self._draw_batch(rows[start : start + settings.images_per_batch], settings)

    @torch.no_grad()
    def _draw_batch(self, rows: Sequence[_Row], settings: SamplingSettings) -> list[Image.Image]:
        """In one pass, beside drawings of no text, which guidance compares with."""
        pictures, texts = [row.picture for row in rows if row.picture is not None], [row.text for row in rows]
        seen = self.understand(self.prepare(pictures)) if pictures else None
        plan = self.configuration.drawing
        codes = sampler.draw_tokens(
            self.network,
            self._start(self.picture_layout if pictures else self.drawing, texts, seen),
            self._start(self.drawing, [[]] * len(rows)),
            self.special,
            tokens=self.configuration.tokens,
            rounds=rounds_of(settings, plan.rounds, self.configuration.tokens),
            guidance_scale=settings.guidance_scale or plan.guidance,
            temperature=settings.temperature,
            chance=sampler.KeyedChance(picture_stream([row.key for row in rows], "image tokens")),
        )
        return self._decode(codes)

    def _start(
        self, kind: RedrawingLayout, texts: Sequence[Sequence[int]], seen: Tensor | None = None
    ) -> sampler.Opening:
        opening = self._opening(kind, texts, seen)
        allowed = kind.mask(opening.attention, self.configuration.tokens)
        return sampler.Opening(opening.embeddings, allowed.to(self.device))

    def _decode(self, codes: Int[Tensor, "batch tokens"]) -> list[Image.Image]:
        return to_pictures(self.network.pixels(filled_rows(codes, MIN_PICTURES))[: len(codes)])

    @torch.no_grad()
    def describe(
        self, pictures: Sequence[Image.Image], questions: Sequence[str], settings: SamplingSettings
    ) -> list[str]:
        """Greedy answers, one per picture and question."""
        prompts = self.picture_layout.questions(self.wording.questions(questions))
        rows = [_Row(prompt, ("", 0), picture) for prompt, picture in zip(prompts, pictures, strict=True)]
        return list(
            in_order_by_length(
                rows,
                length=lambda row: len(row.text),
                batch=settings.images_per_batch,
                make=lambda batch: self._answer_batch(batch, settings.max_reply_tokens),
            )
        )

    def _answer_batch(self, rows: Sequence[_Row], max_tokens: int) -> list[str]:
        seen = self.understand(self.prepare([row.picture for row in rows if row.picture is not None], whole=True))
        ids = torch.tensor([row.text for row in rows], device=self.device)
        allowed = self.picture_layout.question_mask(*ids.shape).to(self.device)
        prefix = self.network.embed(ids, seen)
        replies = sampler.greedy_text(self.network, prefix, allowed, end=self.special.eos, max_tokens=max_tokens)
        return [self.wording.reply(reply) for reply in replies]

    @torch.no_grad()
    def tokenizer_ceiling(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """Encoded and decoded by the image tokenizer alone: the best any reconstruction could be."""
        return self._decode(_codes(self.encode_target(self.prepare(pictures))))

    def understanding_view(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """The pixels that the understanding side saw."""
        return self.transform.view(self.prepare(pictures))


def _codes(target: Target) -> Int[Tensor, "batch tokens"]:
    if target.ids is None:
        raise BadInput("Show-o predicts image codes, the target has none", field="target", remedy="use encode_target")
    return target.ids


def _masked(draws: KeyedDraws, ids: Int[Tensor, "batch tokens"]) -> Bool[Tensor, "batch tokens"]:
    """Which codes are to be predicted, drawn per picture."""
    share = masked_token.cosine_share(draws.uniform("mask time"))
    return masked_token.choose_masked(draws.uniform("mask order", ids.shape[1]), share).to(ids.device)

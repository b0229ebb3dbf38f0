"""Janus as a UnifiedModel: RecA on an autoregressive model whose two image paths are decoupled.

    picture -> SigLIP -> aligner -> [chat turn with the picture and an instruction] -> Llama -> VQ codes of the picture

The network is transformers' ``JanusForConditionalGeneration``, unchanged; sequences (sequence.py), drawing (sampler.py)
and the image tokenizer (vq.py) are ours for the reasons given there. Sources: arXiv 2410.13848, 2501.17811; the RecA
sequence follows reference "reca_recipe", section 4.2 B; no upstream training code exists for this family.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor, nn
from transformers import JanusConfig, JanusForConditionalGeneration, PreTrainedTokenizerFast

from reca_core.contracts.errors import BadInput
from reca_core.contracts.requests import SamplingSettings
from reca_core.contracts.stages import AUTOENCODER_STAGES
from reca_core.draws import DrawStream, KeyedDraws, picture_stream
from reca_core.models import directory as common
from reca_core.models.frozen import batched, described
from reca_core.models.grouping import filled_rows, in_order_by_length
from reca_core.models.janus import checkpoint, sampler, smallest, vq
from reca_core.models.janus import directory as layout
from reca_core.models.janus.chat import ChatFormat
from reca_core.models.janus.pictures import PictureTransform
from reca_core.models.janus.sequence import (
    answer_logits,
    as_flags,
    embed_rows,
    image_logits,
    null_prompts,
    without_text,
)
from reca_core.models.janus.word_tokenizer import word_tokenizer
from reca_core.models.pictures import to_pictures
from reca_core.models.unified import Condition, Dialogue, DrawRequest, FrozenParts, Images, RedrawRequest, Target
from reca_core.models.variants import refuse_others
from reca_core.objectives import next_token
from reca_core.objectives.loss_sum import LossSum

STAGES: dict[str, tuple[str, ...]] = {
    "tokenizer": (),
    "decoder": (),
    "base": ("model.vqmodel.",),
    "post": ("model.vqmodel.", "model.vision_model."),
}
"""Training stage -> prefixes of the parameters it leaves alone. Tokenizer and decoder are exceptions: both train only
DECODER. In "post" the aligner learns with the language model it speaks to; both encoders are frozen."""
DECODER = ("model.vqmodel.decoder.", "model.vqmodel.post_quant_conv.")
"""What draws pictures from codes. The encoder and the codebook of a tiny model are set, not trained (tiny_start.py)."""

PUBLISHED_GUIDANCE = 5.0
"""DeepSeek's generation code, for all published sizes."""


@dataclass(frozen=True)
class _Row:
    """One picture to make: its prompt, its seed's key and, for a reconstruction, the picture it starts from."""

    prompt: list[int]
    key: tuple[str, int]
    picture: Image.Image | None = None


class Janus(nn.Module):
    """The adapter. Construct with ``load`` or ``from_configuration``.

    Args:
        network: the native model, all parameters.
        tokenizer: the checkpoint's own.
        transform: pictures to tensors.
        templates: instructions for RecA in words that this checkpoint knows.
        companions: the files that ``save`` writes beside config and weights, by name.
        system_prompt: said before questions, "" for none.
    """

    family = "janus"
    image_tokenizer = "model.vqmodel"
    understanding_space = "SigLIP features"
    target_space = "VQ codes"

    def __init__(
        self,
        network: JanusForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        transform: PictureTransform,
        templates: Sequence[str],
        companions: Mapping[str, bytes],
        system_prompt: str = "",
    ) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.transform = transform
        self.templates = tuple(templates)
        self._companions = companions
        sizes = checkpoint.Sizes.of(network.config)
        self.chat = ChatFormat(tokenizer, sizes.understanding_tokens, system_prompt)
        self.image_tokens = sizes.image_tokens
        layout.record_token_ids(network, self.chat.ids)

    @classmethod
    def from_configuration(
        cls, config: JanusConfig, tokenizer: PreTrainedTokenizerFast, templates: Sequence[str] = ()
    ) -> Janus:
        """A model with random weights (torch's global generator), for tiny models and tests."""
        network = JanusForConditionalGeneration(config)
        sizes = checkpoint.Sizes.of(config)
        transform = PictureTransform(sizes.understanding_side, sizes.target_side, min_side=1)
        chosen = tuple(templates) or common.GENERAL_TEMPLATES
        return cls(network, tokenizer, transform, chosen, layout.new_companions(tokenizer, transform, chosen))

    @classmethod
    def smallest(cls, seed: int = 0) -> Janus:
        """The smallest model that has every part, with random weights of this seed."""
        tokenizer = word_tokenizer(smallest.WORDS)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            configuration = smallest.smallest_configuration(len(tokenizer))
            return cls.from_configuration(configuration, tokenizer, smallest.TEMPLATES)

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Janus:
        """Read a checkpoint directory, transformers' or DeepSeek's layout, in float32.

        Raises CheckpointRefused naming the keys that do not fit.
        """
        found = layout.read(directory)
        adapter = cls(
            found.network, found.tokenizer, found.transform, found.templates, found.companions, found.system_prompt
        )
        return adapter.to(device).eval()

    def save(self, directory: Path) -> None:
        """Write transformers' layout: what ``load`` and transformers' own classes read."""
        layout.write(directory, self.network, self._companions)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        device: torch.device = self.network.device
        return device

    def trainable_names(self, stage: str) -> frozenset[str]:
        """Names of ``network``'s parameters that the stage may change. Raises BadInput for an unknown stage."""
        if stage not in STAGES:
            raise BadInput(f"no stage is called {stage!r}", field="training.stage", choices=tuple(STAGES))
        names = [name for name, _ in self.network.named_parameters()]
        if stage in AUTOENCODER_STAGES:
            return frozenset(name for name in names if name.startswith(DECODER))
        return frozenset(name for name in names if not name.startswith(STAGES[stage]))

    # ---- what goes in ------------------------------------------------------------------------------------------

    def prepare(self, pictures: Sequence[Image.Image], whole: bool = False) -> Images:
        """Centre squares for reconstruction; ``whole`` pictures on grey for questions. On the CPU."""
        return self.transform.whole(pictures) if whole else self.transform.squares(pictures)

    def understand(self, images: Images) -> Float[Tensor, "batch und_tokens width"]:
        """SigLIP patches through the aligner."""
        return self._aligned(self._patches(images))

    def _patches(self, images: Images) -> Float[Tensor, "batch und_tokens vision_width"]:
        states: Tensor = self.network.model.vision_model(images.understanding.to(self.device)).last_hidden_state
        return states

    def _aligned(self, patches: Float[Tensor, "batch und_tokens vision_width"]) -> Tensor:
        tokens: Tensor = self.network.model.aligner(patches)
        return tokens

    def frozen_parts(self) -> FrozenParts:
        """SigLIP's patches before the aligner, which learns; the target's codes."""
        config = self.network.config
        settings = described(config.vision_config, self.transform), described(config.vq_config, self.transform)
        codes = batched(("model.vqmodel.",), settings[1], lambda images: _codes(self.encode_target(images)), Target)
        return FrozenParts(batched(("model.vision_model.",), settings[0], self._patches, self._aligned), codes)

    def condition(
        self,
        understanding: Float[Tensor, "batch und_tokens width"],
        templates: Sequence[str],
        drop_text: Bool[Tensor, " batch"],
    ) -> Condition:
        """Chat turn with picture and instruction, then begin-of-image. Dropped rows keep the picture, not the text."""
        rows = without_text(self.chat.redrawing_prompts(templates), as_flags(drop_text), self.chat.ids)
        return embed_rows(self.network, rows, self.chat.ids, understanding)

    def encode_target(self, images: Images) -> Target:
        """VQ codes, row-major; float32, no gradient."""
        return Target(ids=vq.encode_pixels(self.network.model.vqmodel, images.target.to(self.device)))

    def own_tokens(self, target: Target) -> Float[Tensor, "batch und_tokens width"]:
        """The picture's VQ codes as the generator reads them; both grids of this network have equal sides."""
        tokens: Tensor = self.network.prepare_embeddings_for_image_generation(_codes(target))
        return tokens

    # ---- losses ------------------------------------------------------------------------------------------------

    def reconstruction_loss(self, condition: Condition, target: Target, draws: KeyedDraws) -> LossSum:
        """Cross-entropy of the picture's own codes, teacher-forced (arXiv 2509.07295, equation 1). Draws nothing."""
        codes = _codes(target)
        return next_token.cross_entropy(image_logits(self.network, condition, codes), codes)

    def text_to_image_loss(
        self, captions: Sequence[str], target: Target, drop_text: Bool[Tensor, " batch"], draws: KeyedDraws
    ) -> LossSum:
        """The same cross-entropy after a caption; dropped rows get pad in all but the first and last position."""
        rows = without_text(self.chat.drawing_prompts(captions), as_flags(drop_text), self.chat.ids)
        return self.reconstruction_loss(embed_rows(self.network, rows, self.chat.ids), target, draws)

    def image_to_text_loss(self, images: Images, dialogues: Sequence[Dialogue]) -> LossSum:
        """Cross-entropy of the answers' tokens, end of sentence included."""
        shown = torch.tensor([dialogue.picture for dialogue in dialogues if dialogue.picture is not None])
        understanding = self.understand(images)[shown.to(self.device)] if len(shown) else None
        return self._answer_loss(dialogues, understanding)

    def text_loss(self, dialogues: Sequence[Dialogue]) -> LossSum:
        """The same about captions that stand in the question. Raises BadInput if a dialogue shows a picture."""
        if any(dialogue.picture is not None for dialogue in dialogues):
            raise BadInput("a text dialogue refers to a picture", field="dialogues", remedy="use image_to_text_loss")
        return self._answer_loss(dialogues, None)

    def _answer_loss(self, dialogues: Sequence[Dialogue], understanding: Tensor | None) -> LossSum:
        prompts = self.chat.question_prompts(
            [dialogue.question for dialogue in dialogues], [dialogue.picture is not None for dialogue in dialogues]
        )
        answers = self.chat.answers([dialogue.answer for dialogue in dialogues])
        rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        sequence = embed_rows(self.network, rows, self.chat.ids, understanding)
        logits = answer_logits(self.network, sequence, [len(answer) for answer in answers])
        labels = torch.tensor([token for answer in answers for token in answer], device=self.device)
        return next_token.cross_entropy(logits, labels)

    def tokenizer_loss(self, images: Images) -> dict[str, LossSum]:
        """The image decoder's error on codes of the picture."""
        return vq.decoder_terms(self.network.model.vqmodel, images.target.to(self.device))

    # ---- what comes out ----------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[DrawRequest], settings: SamplingSettings) -> Iterator[Image.Image]:
        """Text to image, in order. A picture depends on its own text and seed only, not on its batch."""
        prompts = self.chat.drawing_prompts([request.text for request in requests])
        rows = [_Row(prompt, (request.text, request.seed)) for prompt, request in zip(prompts, requests, strict=True)]
        yield from self._draw(rows, settings)

    def reconstruct(self, requests: Sequence[RedrawRequest], settings: SamplingSettings) -> Iterator[Image.Image]:
        """Image to image through the understanding encoder, in order."""
        prompts = self.chat.redrawing_prompts([request.template for request in requests])
        rows = [
            _Row(prompt, (request.template, request.seed), request.picture)
            for prompt, request in zip(prompts, requests, strict=True)
        ]
        yield from self._draw(rows, settings)

    @property
    def guidance(self) -> float:
        """What the checkpoint's generation config says, else what the published checkpoints are drawn with."""
        return float(getattr(self.network.generation_config, layout.GUIDANCE, None) or PUBLISHED_GUIDANCE)

    def _draw(self, rows: Sequence[_Row], settings: SamplingSettings) -> Iterator[Image.Image]:
        refuse_others(self.family, settings, ())
        yield from in_order_by_length(
            rows,
            length=lambda row: len(row.prompt),
            batch=settings.images_per_batch,
            make=lambda batch: self._draw_batch(batch, settings),
        )

    @torch.no_grad()
    def _draw_batch(self, rows: Sequence[_Row], settings: SamplingSettings) -> list[Image.Image]:
        """Rows of one prompt length, in one pass."""
        prompts = [row.prompt for row in rows]
        pictures = [row.picture for row in rows if row.picture is not None]
        understanding = self.understand(self.prepare(pictures)) if pictures else None
        stream: DrawStream = picture_stream([row.key for row in rows], "image tokens")
        codes = sampler.draw_tokens(
            self.network,
            embed_rows(self.network, prompts, self.chat.ids, understanding).embeddings,
            embed_rows(self.network, null_prompts(prompts, self.chat.ids), self.chat.ids).embeddings,
            tokens=self.image_tokens,
            guidance_scale=settings.guidance_scale or self.guidance,
            temperature=settings.temperature,
            noise=stream.exponential,
        )
        return self._decode(codes)

    def _decode(self, codes: Tensor) -> list[Image.Image]:
        filled = filled_rows(codes, sampler.MIN_PICTURES)
        return to_pictures(vq.decode_codes(self.network.model.vqmodel, filled)[: len(codes)])

    @torch.no_grad()
    def describe(
        self, pictures: Sequence[Image.Image], questions: Sequence[str], settings: SamplingSettings
    ) -> list[str]:
        """Greedy answers, one per picture and question."""
        prompts = self.chat.question_prompts(questions, [True] * len(questions))
        rows = [_Row(prompt, ("", 0), picture) for prompt, picture in zip(prompts, pictures, strict=True)]
        return list(
            in_order_by_length(
                rows,
                length=lambda row: len(row.prompt),
                batch=settings.images_per_batch,
                make=lambda batch: self._answer_batch(batch, settings.max_reply_tokens),
            )
        )

    def _answer_batch(self, rows: Sequence[_Row], max_tokens: int) -> list[str]:
        pictures = [row.picture for row in rows if row.picture is not None]
        prefix = embed_rows(
            self.network,
            [row.prompt for row in rows],
            self.chat.ids,
            self.understand(self.prepare(pictures, whole=True)),
        )
        replies = sampler.greedy_text(self.network, prefix.embeddings, end=self.chat.ids.eos, max_tokens=max_tokens)
        return [self.chat.reply(reply) for reply in replies]

    def tokenizer_ceiling(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """Encoded and decoded by the image tokenizer alone: the best any reconstruction could be."""
        return self._decode(_codes(self.encode_target(self.prepare(pictures))))

    def understanding_view(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """The pixels that the understanding encoder saw."""
        return self.transform.view(self.prepare(pictures))


def _codes(target: Target) -> Int[Tensor, "batch tokens"]:
    if target.ids is None:
        raise BadInput("Janus predicts VQ codes, the target has none", field="target", remedy="use encode_target")
    return target.ids

"""OpenUni as a UnifiedModel: RecA on a frozen vision-language model that tells a diffusion transformer what to draw.

    picture -> InternViT -> [chat turn with the picture and an instruction] + learned queries -> InternVL's Qwen2
            -> connector -> projector -> SANA -> velocity of the picture's noised DC-AE latents

Written from the published description (OpenUni, arXiv 2505.23661) and recorded numbers only; RecA: reference
"reca_recipe", sections 1.3, 1.4 and 4.2 D.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from reca_core.contracts.errors import BadInput
from reca_core.contracts.requests import SamplingSettings
from reca_core.draws import KeyedDraws, picture_stream
from reca_core.models import directory as common
from reca_core.models.frozen import batched, described
from reca_core.models.grouping import filled_rows, in_order_by_length
from reca_core.models.openuni import answering, sampler, smallest
from reca_core.models.openuni import directory as layout
from reca_core.models.openuni.answering import embed_rows
from reca_core.models.openuni.chat import IMAGE, Turns
from reca_core.models.openuni.configuration import OpenUniConfiguration
from reca_core.models.openuni.network import OpenUniNetwork
from reca_core.models.openuni.pictures import CropTransform
from reca_core.models.pictures import pixel_error, to_pictures
from reca_core.models.stages import stage_names
from reca_core.models.unified import Condition, Dialogue, DrawRequest, FrozenParts, Images, RedrawRequest, Target
from reca_core.models.variants import refuse_others
from reca_core.models.word_tokenizer import word_tokenizer
from reca_core.objectives.loss_sum import LossSum

AUTOENCODER, LANGUAGE = "vae.", "lmm."
LOOKING = ("lmm.model.vision_tower.", "lmm.model.multi_modal_projector.")
STAGES: dict[str, tuple[str, ...]] = {"base": (AUTOENCODER,), "post": (AUTOENCODER, LANGUAGE)}
"""Training stage -> prefixes of the parameters it leaves alone (reference, 1.3: queries, connector, projector and SANA
learn). "base" is for tiny models, whose vision-language model has random weights."""
ALONE = {"tokenizer": (AUTOENCODER,), "decoder": ("vae.decoder.",)}
"""Training stage -> prefixes of the only parameters it changes."""
MIN_PICTURES = 8
"""Pictures drawn together at least: with guidance 16 rows, below which some products round differently."""
NO_TEMPERATURE = 1.0


@dataclass(frozen=True)
class _Row:
    """One picture to make or to describe: its prompt, its seed's key and, where it is looked at, the picture."""

    prompt: list[int]
    key: tuple[str, int]
    picture: Image.Image | None = None


class OpenUni(nn.Module):
    """The adapter. Construct with ``load`` or ``from_configuration``.

    Args:
        configuration: sizes and published settings.
        network: all parameters.
        tokenizer: the checkpoint's own.
        templates: instructions for RecA in words that this checkpoint knows.
        companions: the files that ``save`` writes beside config and weights, by name.
    """

    family = "openuni"
    image_tokenizer = "vae"
    understanding_space = "InternViT features"
    target_space = "DC-AE latents"

    def __init__(
        self,
        configuration: OpenUniConfiguration,
        network: OpenUniNetwork,
        tokenizer: PreTrainedTokenizerFast,
        templates: Sequence[str],
        companions: Mapping[str, bytes],
    ) -> None:
        super().__init__()
        self.configuration = configuration
        self.network = network
        self.templates = tuple(templates)
        self._companions = companions
        self.transform = CropTransform(configuration.side, configuration.sizes.understanding_size)
        self.turns = Turns(tokenizer, configuration.sizes.picture_tokens)
        self.noise_levels = configuration.learning.scheduler()

    @classmethod
    def from_configuration(
        cls, configuration: OpenUniConfiguration, tokenizer: PreTrainedTokenizerFast, templates: Sequence[str] = ()
    ) -> OpenUni:
        """A model with random weights (torch's global generator), for tiny models and tests."""
        chosen, network = tuple(templates) or common.GENERAL_TEMPLATES, smallest.random_network(configuration.sizes)
        return cls(configuration, network, tokenizer, chosen, common.new_companions(tokenizer, chosen)).eval()

    @classmethod
    def smallest(cls, seed: int = 0) -> OpenUni:
        """The smallest model that has every part, with random weights of this seed."""
        tokenizer = word_tokenizer(smallest.WORDS, smallest.STRUCTURAL)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            image = tokenizer.get_vocab()[IMAGE]
            configuration = smallest.smallest_configuration(len(tokenizer), image)
            return cls.from_configuration(configuration, tokenizer, smallest.TEMPLATES)

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> OpenUni:
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
        return stage_names(self.family, self.network, stage, ALONE, STAGES)

    # ---- what goes in ------------------------------------------------------------------------------------------

    def prepare(self, pictures: Sequence[Image.Image], whole: bool = False) -> Images:
        """Centre squares; ``whole`` pictures squashed instead, for questions about all of them. On the CPU."""
        return self.transform(pictures, whole)

    def understand(self, images: Images) -> Float[Tensor, "batch und_tokens width"]:
        """InternViT patches, shuffled together by fours and projected."""
        pixels = filled_rows(images.understanding.to(self.device), MIN_PICTURES)
        return self.network.understand(pixels)[: len(images.understanding)]

    def condition(
        self,
        understanding: Float[Tensor, "batch und_tokens width"],
        templates: Sequence[str],
        drop_text: Bool[Tensor, " batch"],
    ) -> Condition:
        """User's turn with picture and instruction. Dropped rows keep the picture and get the null prompt."""
        return embed_rows(self.network, self.turns.redrawing_prompts(templates, drop_text.tolist()), understanding)

    def encode_target(self, images: Images) -> Target:
        """DC-AE latents, row-major; float32, no gradient."""
        return Target(latents=self._latents(images))

    def _latents(self, images: Images) -> Float[Tensor, "batch tokens channels"]:
        pixels = filled_rows(images.target.to(self.device), MIN_PICTURES)
        latents = self.network.encode_pixels(pixels)[: len(images.target)]
        return rearrange(latents, "b c h w -> b (h w) c")

    def frozen_parts(self) -> FrozenParts:
        """Everything that is seen, for the whole vision-language model is frozen; the target's latents."""
        sizes = self.configuration.sizes
        seen, drawn = (described(part, self.transform) for part in (sizes.language, sizes.autoencoder))
        return FrozenParts(
            batched(LOOKING, seen, self.understand, lambda rows: rows),
            batched((AUTOENCODER,), drawn, self._latents, lambda rows: Target(latents=rows)),
        )

    # ---- losses ------------------------------------------------------------------------------------------------

    def reconstruction_loss(self, condition: Condition, target: Target, draws: KeyedDraws) -> LossSum:
        """Flow matching (arXiv 2509.07295, equation 1), one count per latent number."""
        if target.latents is None:
            raise BadInput("OpenUni predicts latents, the target has none", field="target", remedy="use encode_target")
        latents = rearrange(target.latents, "b (h w) c -> b c h w", h=self.configuration.grid)
        told = self.network.ask(condition.embeddings, condition.attention).condition
        uniform = draws.uniform("noise level").to(latents.device)
        noise = draws.normal("noise", *latents.shape[1:]).to(latents.device)
        return self.network.denoise(told, latents, uniform, noise, self.noise_levels).loss

    def text_to_image_loss(
        self, captions: Sequence[str], target: Target, drop_text: Bool[Tensor, " batch"], draws: KeyedDraws
    ) -> LossSum:
        """The same error after a caption; dropped rows get the null prompt."""
        prompts, null = self.turns.drawing_prompts(captions), self.turns.null_prompt()
        rows = [null if drop else prompt for prompt, drop in zip(prompts, drop_text.tolist(), strict=True)]
        return self.reconstruction_loss(embed_rows(self.network, rows), target, draws)

    def image_to_text_loss(self, images: Images, dialogues: Sequence[Dialogue]) -> LossSum:
        """Cross-entropy of the answers' tokens, end of turn included. No gradient where the model is frozen."""
        shown = torch.tensor([dialogue.picture for dialogue in dialogues if dialogue.picture is not None])
        seen = self.understand(images)[shown.to(self.device)] if len(shown) else None
        return self._answer_loss(dialogues, seen)

    def text_loss(self, dialogues: Sequence[Dialogue]) -> LossSum:
        """The same about captions that stand in the question. Raises BadInput if a dialogue shows a picture."""
        if any(dialogue.picture is not None for dialogue in dialogues):
            raise BadInput("a text dialogue refers to a picture", field="dialogues", remedy="use image_to_text_loss")
        return self._answer_loss(dialogues, None)

    def _answer_loss(self, dialogues: Sequence[Dialogue], seen: Tensor | None) -> LossSum:
        shown = [dialogue.picture is not None for dialogue in dialogues]
        prompts = self.turns.question_prompts([dialogue.question for dialogue in dialogues], shown)
        answers = self.turns.answers([dialogue.answer for dialogue in dialogues])
        return answering.answer_loss(self.network, prompts, answers, seen)

    def tokenizer_loss(self, images: Images) -> dict[str, LossSum]:
        """``pixel``: mean absolute plus mean squared error of the autoencoder, one count per value."""
        pixels = images.target.to(self.device)
        return {"pixel": pixel_error(self.network.redrawn(pixels), pixels)}

    # ---- what comes out ----------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[DrawRequest], settings: SamplingSettings) -> Iterator[Image.Image]:
        """Text to image, in order. A picture depends on its own text and seed only, not on its batch."""
        prompts = self.turns.drawing_prompts([request.text for request in requests])
        rows = [_Row(prompt, (request.text, request.seed)) for prompt, request in zip(prompts, requests, strict=True)]
        yield from self._draw(rows, settings)

    def reconstruct(self, requests: Sequence[RedrawRequest], settings: SamplingSettings) -> Iterator[Image.Image]:
        """Image to image through the understanding encoder, in order."""
        templates = [request.template for request in requests]
        prompts = self.turns.redrawing_prompts(templates, [False] * len(templates))
        rows = [
            _Row(prompt, (request.template, request.seed), request.picture)
            for prompt, request in zip(prompts, requests, strict=True)
        ]
        yield from self._draw(rows, settings)

    def _draw(self, rows: Sequence[_Row], settings: SamplingSettings) -> Iterator[Image.Image]:
        """Raises BadInput for a temperature: the path from noise to picture is no random walk."""
        refuse_others(self.family, settings, ("steps",))
        if settings.temperature != NO_TEMPERATURE:
            raise BadInput(
                f"{settings.temperature} has no meaning for OpenUni, which draws along a flow",
                field="sampling.temperature",
                choices=(str(NO_TEMPERATURE),),
            )
        for start in range(0, len(rows), settings.images_per_batch):
            yield from self._draw_batch(rows[start : start + settings.images_per_batch], settings)

    @torch.no_grad()
    def _draw_batch(self, rows: Sequence[_Row], settings: SamplingSettings) -> list[Image.Image]:
        """Rows are asked in groups of equal length and drawn all together: only what they are told differs."""
        count, plan = len(rows), self.configuration.drawing
        told = in_order_by_length(rows, length=lambda row: len(row.prompt), batch=count, make=self._told)
        given = filled_rows(torch.stack(list(told)), MIN_PICTURES)
        (null,) = self._told([_Row(self.turns.null_prompt(), ("", 0))])
        shape = (self.configuration.sizes.autoencoder["latent_channels"], *[self.configuration.grid] * 2)
        noise = picture_stream([row.key for row in rows], "noise").normal(*shape).to(self.device)
        latents = sampler.draw_latents(
            self.network,
            given,
            null.expand_as(given),
            filled_rows(noise, MIN_PICTURES),
            plan.scheduler(),
            steps=settings.steps or plan.steps,
            guidance=settings.guidance_scale or plan.guidance,
        )
        return to_pictures(self.network.decode_latents(latents)[:count])

    def _told(self, rows: Sequence[_Row]) -> list[Float[Tensor, "queries caption"]]:
        """What SANA is told of each of these rows of one prompt length."""
        pictures = [row.picture for row in rows if row.picture is not None]
        seen = self.understand(self.prepare(pictures)) if pictures else None
        asked = embed_rows(self.network, [row.prompt for row in rows], seen)
        embeddings, attention = (filled_rows(part, MIN_PICTURES) for part in (asked.embeddings, asked.attention))
        return list(self.network.ask(embeddings, attention).condition[: len(rows)])

    @torch.no_grad()
    def describe(
        self, pictures: Sequence[Image.Image], questions: Sequence[str], settings: SamplingSettings
    ) -> list[str]:
        """Greedy answers, one per picture and question."""
        prompts = self.turns.question_prompts(questions, [True] * len(questions))
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
        seen = self.understand(self.prepare([row.picture for row in rows if row.picture is not None], whole=True))
        prefix = embed_rows(self.network, [row.prompt for row in rows], seen).embeddings
        replies = answering.greedy_text(self.network, prefix, end=self.turns.end, max_tokens=max_tokens)
        return [self.turns.reply(reply) for reply in replies]

    @torch.no_grad()
    def tokenizer_ceiling(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """Encoded and decoded by the autoencoder alone: the best any reconstruction could be."""
        pixels = filled_rows(self.prepare(pictures).target.to(self.device), MIN_PICTURES)
        return to_pictures(self.network.decode_latents(self.network.encode_pixels(pixels))[: len(pictures)])

    def understanding_view(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """The pixels that the understanding encoder saw."""
        return self.transform.view(self.prepare(pictures))

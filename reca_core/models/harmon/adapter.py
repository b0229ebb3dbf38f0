"""Harmon as a UnifiedModel: RecA on a masked-autoregressive model with one encoder for seeing and drawing.

    picture -> KL-16 -> MAR encoder -> [chat turn with the picture and an instruction] -> Qwen2 -> MAR decoder -> head

Condition and target are the same latents at the same resolution, on purpose (reference "reca_recipe", section 1.4). It
is no copying machine, because the condition reaches the language model only as states of the shared encoder, with
buffer rows that belong to no token, and its gradient is scaled down (1.3); hence the two names of the spaces below.
Sources: Harmon, arXiv 2503.21979; MAR, arXiv 2406.11838; RecA sequence: reference, section 4.2 C.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from reca_core.contracts.errors import BadInput
from reca_core.contracts.requests import SamplingSettings, TrainingPlan
from reca_core.draws import KeyedDraws, picture_stream
from reca_core.models import directory as common
from reca_core.models.frozen import batched, described
from reca_core.models.grouping import filled_rows, in_order_by_length
from reca_core.models.harmon import directory as layout
from reca_core.models.harmon import sampler, smallest
from reca_core.models.harmon.chat import Turns, answer_logits, embed_rows, labels
from reca_core.models.harmon.configuration import DIFFUSION_STEPS, HarmonConfiguration
from reca_core.models.harmon.masking import loss_draws
from reca_core.models.harmon.network import HarmonNetwork, diffusion_rows, scaled_gradient
from reca_core.models.harmon.pictures import SquashTransform
from reca_core.models.pictures import pixel_error, to_pictures
from reca_core.models.stages import stage_names
from reca_core.models.unified import Condition, Dialogue, DrawRequest, FrozenParts, Images, RedrawRequest, Target
from reca_core.models.variants import refuse_others, rounds_of
from reca_core.models.word_tokenizer import word_tokenizer
from reca_core.objectives import next_token
from reca_core.objectives.gaussian_diffusion import cosine_tables, evenly_spaced
from reca_core.objectives.loss_sum import LossSum

FROZEN = ("vae.", "mar.class_emb.")
"""The autoencoder, and a class table that the checkpoint carries and nothing reads."""
STAGES: dict[str, tuple[str, ...]] = {"base": FROZEN, "post": FROZEN}
"""Training stage -> prefixes of the parameters it leaves alone: seeing and drawing share everything else (1.3)."""
ALONE = {"tokenizer": ("vae.",), "decoder": ("vae.decoder.", "vae.post_quant_conv.")}
"""Training stage -> prefixes of the only parameters it changes."""
MIN_PICTURES = 2
"""The convolutions of the autoencoder: equal bits from 2 pictures on."""


@dataclass(frozen=True)
class _Row:
    """One picture to make or to describe: its prompt, its seed's key and, where it is looked at, the picture."""

    prompt: list[int]
    key: tuple[str, int]
    picture: Image.Image | None = None


class Harmon(nn.Module):
    """The adapter. Construct with ``load`` or ``from_configuration``.

    Args:
        configuration: sizes and published settings.
        network: all parameters.
        tokenizer: the checkpoint's own.
        templates: instructions for RecA in words that this checkpoint knows.
        companions: the files that ``save`` writes beside config and weights, by name.
    """

    family = "harmon"
    image_tokenizer = "vae"
    understanding_space = "states of the MAR encoder over KL-16 latents"
    target_space = "KL-16 latents"
    parity = (
        "one mask ratio for the whole batch; the newline before the picture merged with the one after it (Harmon's "
        "published RecA training)"
    )
    parity_average = 0.0
    undecayed = ("mar.diffloss.",)

    def __init__(
        self,
        configuration: HarmonConfiguration,
        network: HarmonNetwork,
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
        self.transform = SquashTransform(configuration.side, configuration.understanding_downscale)
        height, width = configuration.grid
        picture_rows = height * width + configuration.sizes.mar.buffer
        self.turns = Turns(tokenizer, picture_rows, configuration.upstream_parity)
        self.tables = cosine_tables(DIFFUSION_STEPS)

    @classmethod
    def from_configuration(
        cls, configuration: HarmonConfiguration, tokenizer: PreTrainedTokenizerFast, templates: Sequence[str] = ()
    ) -> Harmon:
        """A model with random weights (torch's global generator), for tiny models and tests."""
        chosen = tuple(templates) or common.GENERAL_TEMPLATES
        network = smallest.random_network(configuration.sizes)
        return cls(configuration, network, tokenizer, chosen, common.new_companions(tokenizer, chosen)).eval()

    @classmethod
    def smallest(cls, seed: int = 0) -> Harmon:
        """The smallest model that has every part, with random weights of this seed."""
        tokenizer = word_tokenizer(smallest.WORDS, smallest.STRUCTURAL)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls.from_configuration(
                smallest.smallest_configuration(len(tokenizer)), tokenizer, smallest.TEMPLATES
            )

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Harmon:
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

    def following(self, plan: TrainingPlan) -> Harmon:
        """The same weights with or without upstream's slips, looking at a picture made ``downscale`` times coarser."""
        refuse_others(self.family, plan, ("upstream_parity", "understanding_downscale"))
        chosen = replace(
            self.configuration,
            upstream_parity=plan.upstream_parity,
            understanding_downscale=plan.understanding_downscale or self.configuration.understanding_downscale,
        )
        chosen.check("training.understanding_downscale")
        return Harmon(chosen, self.network, self.tokenizer, self.templates, self._companions).eval()

    # ---- what goes in ------------------------------------------------------------------------------------------

    def prepare(self, pictures: Sequence[Image.Image], whole: bool = False) -> Images:
        """Squashed to a square, which keeps all of the picture either way. On the CPU."""
        return self.transform(pictures)

    def understand(self, images: Images) -> Float[Tensor, "batch und_tokens width"]:
        """All tokens through the encoder, buffer rows last; the gradient on the way back is scaled down."""
        return self._looked_at(self._encode(images.understanding))

    def _looked_at(self, latents: Float[Tensor, "batch m n channels"]) -> Float[Tensor, "batch und_tokens width"]:
        seen = self.network.understand(latents)
        return scaled_gradient(seen, self.configuration.learning.understanding_gradient)

    def frozen_parts(self) -> FrozenParts:
        """The autoencoder's latents of both views: the encoder that looks at them learns."""
        sizes = self.configuration.sizes
        settings = described(sizes.autoencoder, sizes.latent_scale, sizes.latent_patch, self.transform)
        seen = batched(("vae.",), settings, lambda images: self._encode(images.understanding), self._looked_at)
        target = batched(("vae.",), settings, lambda images: self._encode(images.target), _target)
        return FrozenParts(seen, target)

    def condition(
        self,
        understanding: Float[Tensor, "batch und_tokens width"],
        templates: Sequence[str],
        drop_text: Bool[Tensor, " batch"],
    ) -> Condition:
        """User's turn with picture and instruction. Dropped rows keep the picture and get the null prompt."""
        return embed_rows(self.network, self.turns.learning_prompts(templates, drop_text.tolist()), understanding)

    def encode_target(self, images: Images) -> Target:
        """KL-16 latents, row-major; float32, no gradient."""
        return _target(self._encode(images.target))

    def _encode(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch m n channels"]:
        latents = self.network.encode_pixels(filled_rows(pixels.to(self.device), MIN_PICTURES))
        return latents[: len(pixels)]

    # ---- losses ------------------------------------------------------------------------------------------------

    def reconstruction_loss(self, condition: Condition, target: Target, draws: KeyedDraws) -> LossSum:
        """Denoising error of the masked tokens (arXiv 2509.07295, equation 1), one count per token and noise level."""
        if target.latents is None:
            raise BadInput("Harmon predicts latents, the target has none", field="target", remedy="use encode_target")
        latents = rearrange(target.latents, "b (m n) c -> b m n c", m=self.configuration.grid[0])
        drawn = loss_draws(
            draws,
            target.latents.shape[1],
            target.latents.shape[2],
            self.configuration.learning,
            upstream_parity=self.configuration.upstream_parity,
            device=latents.device,
        )
        drawing = self.network.draw_states(condition.embeddings, condition.attention, latents, drawn.masked)
        rows = diffusion_rows(self.network, self.tables, drawing.told, latents, drawn.masked, drawn.steps, drawn.noise)
        return rows.loss()

    def text_to_image_loss(
        self, captions: Sequence[str], target: Target, drop_text: Bool[Tensor, " batch"], draws: KeyedDraws
    ) -> LossSum:
        """The same error after a caption; dropped rows get the null prompt."""
        prompts, null = self.turns.drawing_prompts(captions), self.turns.null_prompt()
        rows = [null if drop else prompt for prompt, drop in zip(prompts, drop_text.tolist(), strict=True)]
        return self.reconstruction_loss(embed_rows(self.network, rows), target, draws)

    def image_to_text_loss(self, images: Images, dialogues: Sequence[Dialogue]) -> LossSum:
        """Cross-entropy of the answers' tokens, end of turn included."""
        shown = torch.tensor([dialogue.picture for dialogue in dialogues if dialogue.picture is not None])
        seen = self.understand(images)[shown.to(self.device)] if len(shown) else None
        return self._answer_loss(dialogues, seen)

    def text_loss(self, dialogues: Sequence[Dialogue]) -> LossSum:
        """The same about captions that stand in the question. Raises BadInput if a dialogue shows a picture."""
        if any(dialogue.picture is not None for dialogue in dialogues):
            raise BadInput("a text dialogue refers to a picture", field="dialogues", remedy="use image_to_text_loss")
        return self._answer_loss(dialogues, None)

    def tokenizer_loss(self, images: Images) -> dict[str, LossSum]:
        """``pixel``: mean absolute plus mean squared error of the autoencoder, one count per value."""
        pixels = images.target.to(self.device)
        return {"pixel": pixel_error(self.network.redrawn(pixels), pixels)}

    def _answer_loss(self, dialogues: Sequence[Dialogue], seen: Tensor | None) -> LossSum:
        prompts = self.turns.question_prompts(
            [dialogue.question for dialogue in dialogues], [dialogue.picture is not None for dialogue in dialogues]
        )
        answers = self.turns.answers([dialogue.answer for dialogue in dialogues])
        rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        sequence = embed_rows(self.network, rows, seen)
        logits = answer_logits(self.network, sequence, [len(row) for row in rows], [len(answer) for answer in answers])
        return next_token.cross_entropy(logits, labels(answers, self.device))

    # ---- what comes out ----------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[DrawRequest], settings: SamplingSettings) -> Iterator[Image.Image]:
        """Text to image, in order. A picture depends on its own text and seed only, not on its batch."""
        prompts = self.turns.drawing_prompts([request.text for request in requests])
        rows = [_Row(prompt, (request.text, request.seed)) for prompt, request in zip(prompts, requests, strict=True)]
        yield from self._draw(rows, settings)

    def reconstruct(self, requests: Sequence[RedrawRequest], settings: SamplingSettings) -> Iterator[Image.Image]:
        """Image to image through the understanding path, in order."""
        prompts = self.turns.redrawing_prompts([request.template for request in requests])
        rows = [
            _Row(prompt, (request.template, request.seed), request.picture)
            for prompt, request in zip(prompts, requests, strict=True)
        ]
        yield from self._draw(rows, settings)

    def _draw(self, rows: Sequence[_Row], settings: SamplingSettings) -> Iterator[Image.Image]:
        refuse_others(self.family, settings, ("steps",))
        yield from in_order_by_length(
            rows,
            length=lambda row: len(row.prompt),
            batch=settings.images_per_batch,
            make=lambda batch: self._draw_batch(batch, settings),
        )

    @torch.no_grad()
    def _draw_batch(self, rows: Sequence[_Row], settings: SamplingSettings) -> list[Image.Image]:
        """Rows of one prompt length, in one pass, each beside its null prompt."""
        plan, keys = self.configuration.drawing, [row.key for row in rows]
        prompts = [row.prompt for row in rows] + [self.turns.null_prompt()] * len(rows)
        prefix = embed_rows(self.network, prompts, self._seen(rows))
        kept = evenly_spaced(DIFFUSION_STEPS, plan.head_steps)
        orders = picture_stream(keys, "order").normal(self._tokens).argsort(dim=1)
        latents = sampler.draw_tokens(
            self.network,
            self.tables.kept(kept),
            prefix.embeddings,
            prefix.attention,
            orders.to(self.device),
            self.configuration.grid,
            rounds=rounds_of(settings, plan.rounds, self._tokens),
            guidance=settings.guidance_scale or plan.guidance,
            temperature=settings.temperature,
            linear_guidance=plan.linear_guidance,
            largest=plan.largest_latent,
            draws=sampler.keyed_draws(
                picture_stream(keys, "noise"), len(kept), self.configuration.sizes.mar.latent_channels, self.device
            ),
        )
        return self._decode(latents[: len(rows)])

    @property
    def _tokens(self) -> int:
        height, width = self.configuration.grid
        return height * width

    def _seen(self, rows: Sequence[_Row]) -> Tensor | None:
        pictures = [row.picture for row in rows if row.picture is not None]
        return self.understand(self.prepare(pictures)) if pictures else None

    def _decode(self, latents: Float[Tensor, "batch m n channels"]) -> list[Image.Image]:
        filled = filled_rows(latents, MIN_PICTURES)
        return to_pictures(self.network.decode_latents(filled)[: len(latents)])

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
        prefix = embed_rows(self.network, [row.prompt for row in rows], self._seen(rows)).embeddings
        filled = filled_rows(prefix, sampler.MIN_ROWS)
        replies = sampler.greedy_text(self.network, filled, end=self.turns.end, max_tokens=max_tokens)
        return [self.turns.reply(reply) for reply in replies[: len(rows)]]

    @torch.no_grad()
    def tokenizer_ceiling(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """Encoded and decoded by the autoencoder alone: the best any reconstruction could be."""
        return self._decode(self._encode(self.prepare(pictures).target))

    def understanding_view(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """The pixels that the understanding path saw."""
        return to_pictures(self.prepare(pictures).understanding)


def _target(latents: Float[Tensor, "batch m n channels"]) -> Target:
    return Target(latents=rearrange(latents, "b m n c -> b (m n) c"))

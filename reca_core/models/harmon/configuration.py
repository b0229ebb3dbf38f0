"""What decides a Harmon: sizes, picture side, drawing schedule. Written as ``config.json`` (``model_type: harmon``).

Published values: reference "reca_recipe", sections 1.4, 1.8 and 4.2 C, and "model_goldens", section 3; the truncated
normal of the mask ratio is MAR's (arXiv 2406.11838, section 4.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from transformers import Qwen2Config

from reca_core.contracts.errors import CheckpointRefused
from reca_core.models.harmon.mar import MarConfiguration
from reca_core.models.harmon.network import LATENT_SCALE, HarmonSizes

MODEL_TYPE = "harmon"
DIFFUSION_STEPS = 1000
"""Of training, cosine schedule."""
NOT_SIZES = frozenset({"transformers_version", "architectures", "dtype", "layer_types", "_name_or_path"})
"""Entries of a language configuration that say nothing about the network, or follow from the others."""


@dataclass(frozen=True, kw_only=True)
class DrawingPlan:
    """How pictures are drawn; the defaults are the published settings."""

    guidance: float = 3.0
    rounds: int = 64
    """Rounds in which tokens appear."""
    head_steps: int = 100
    """Denoising steps per token."""
    linear_guidance: bool = False
    """Guidance grows with the share of tokens that are there; constant otherwise."""
    largest_latent: float = 0.0
    """Estimates of clean latents are kept within this and its negative, as small heads need; 0: as published, free."""


@dataclass(frozen=True)
class LearningPlan:
    """How the generation loss is drawn and what of it reaches the understanding path."""

    smallest_mask_ratio: float = 0.7
    mask_ratio_deviation: float = 0.25
    """Of the normal around 1 that is truncated to [smallest, 1]."""
    head_repeats: int = 4
    """Noise levels per token and step of training."""
    understanding_gradient: float = 0.1
    """Factor on the gradient that reaches the encoder through the condition."""


@dataclass(frozen=True)
class HarmonConfiguration:
    """Everything but weights, tokenizer and templates.

    ``upstream_parity`` repeats the published training's slips: one mask ratio per batch, and the newline before the
    picture merged with the one after it (reference 3.2, H1 and H2).
    """

    sizes: HarmonSizes
    side: int
    """Pixels; pictures are squashed to this square."""
    understanding_downscale: int = 1
    """The understanding path sees the picture this many times smaller, blown up again. Published: 1."""
    drawing: DrawingPlan = DrawingPlan()
    learning: LearningPlan = LearningPlan()
    upstream_parity: bool = False

    @property
    def stride(self) -> int:
        """Pixels per token side."""
        levels = len(self.sizes.autoencoder["block_out_channels"])
        return int(2 ** (levels - 1)) * self.sizes.latent_patch

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens per side of a picture."""
        return self.side // self.stride, self.side // self.stride

    def as_json(self) -> dict[str, Any]:
        """The content of ``config.json``."""
        language = {name: value for name, value in self.sizes.language.to_dict().items() if name not in NOT_SIZES}
        return {
            "model_type": MODEL_TYPE,
            "image_side": self.side,
            "understanding_downscale": self.understanding_downscale,
            "upstream_parity": self.upstream_parity,
            "latent_scale": self.sizes.latent_scale,
            "latent_patch": self.sizes.latent_patch,
            "drawing": asdict(self.drawing),
            "learning": asdict(self.learning),
            "mar": asdict(self.sizes.mar),
            "autoencoder": self.sizes.autoencoder,
            "llm": language,
        }

    @classmethod
    def from_json(cls, settings: Mapping[str, Any], where: str) -> HarmonConfiguration:
        """The inverse of ``as_json``. Raises CheckpointRefused naming what is missing, unknown or impossible."""
        try:
            sizes = HarmonSizes(
                language=Qwen2Config(**settings["llm"]),
                mar=_part(MarConfiguration, settings["mar"]),
                autoencoder=_tuples(settings["autoencoder"]),
                latent_scale=settings.get("latent_scale", LATENT_SCALE),
                latent_patch=settings.get("latent_patch", 1),
            )
            found = cls(
                sizes,
                side=settings["image_side"],
                understanding_downscale=settings.get("understanding_downscale", 1),
                drawing=_part(DrawingPlan, settings.get("drawing", {})),
                learning=_part(LearningPlan, settings.get("learning", {})),
                upstream_parity=settings.get("upstream_parity", False),
            )
            found.check(where)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointRefused(f"does not describe a Harmon ({error!r})", field=where) from error
        return found

    def check(self, where: str) -> None:
        """Raises CheckpointRefused for sides and rounds that cannot be."""
        step, tokens = self.stride * self.understanding_downscale, self.grid[0] * self.grid[1]
        if self.side % step:
            raise CheckpointRefused(f"image_side {self.side} is not a multiple of {step}", field=where)
        if not 1 <= self.drawing.rounds <= tokens:
            raise CheckpointRefused(f"{self.drawing.rounds} rounds cannot draw {tokens} tokens", field=where)


def _part(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """A frozen part from its JSON object. Raises ValueError naming an entry that it does not have."""
    unknown = set(values) - {field.name for field in fields(kind)}
    if unknown:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    return kind(**values)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no tuples, diffusers' configurations do."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

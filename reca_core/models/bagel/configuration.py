"""What decides a BAGEL: sizes, picture bounds, drawing settings. Written as ``config.json`` (``model_type: bagel``).

Published values: reference "reca_recipe", sections 1.4, 1.8 and 4.2 E, and "model_goldens", section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from transformers import Qwen2Config, SiglipVisionConfig

from reca_core.contracts.errors import CheckpointRefused
from reca_core.models.bagel.network import BagelSizes
from reca_core.models.bagel.sampler import Renorm

MODEL_TYPE = "bagel"
NOT_SIZES = frozenset({"transformers_version", "architectures", "dtype", "layer_types", "_name_or_path"})
"""Entries of a library's configuration that say nothing about the network, or follow from the others."""


@dataclass(frozen=True)
class Bounds:
    """Sides in pixels: the short one at least, the long one at most (which wins)."""

    shortest: int
    longest: int


@dataclass(frozen=True)
class PicturePlan:
    """How large pictures are. RecA looks at small ones, which is its bottleneck; questions are about large ones."""

    target: Bounds = Bounds(512, 1024)
    understanding: Bounds = Bounds(224, 224)
    questions: Bounds = Bounds(224, 980)
    drawn_side: int = 1024
    """Of a picture drawn from text, a square."""


@dataclass(frozen=True, kw_only=True)
class DrawingPlan:
    """How pictures are drawn; the defaults are the published settings."""

    guidance: float = 4.0
    times: int = 50
    """Points of time, so one Euler step fewer."""
    shift: float = 3.0
    lowest_time: float = 0.0
    highest_time: float = 1.0
    """Guidance acts at times in (lowest, highest]."""
    renorm: Renorm = "global"
    renorm_minimum: float = 0.0
    edit_renorm: Renorm = "text_channel"
    edit_image_guidance: float = 2.0


@dataclass(frozen=True)
class BagelConfiguration:
    """Everything but weights, tokenizer and templates. ``learning_shift``: of the time in training."""

    sizes: BagelSizes
    pictures: PicturePlan = PicturePlan()
    drawing: DrawingPlan = DrawingPlan()
    learning_shift: float = 1.0

    def as_json(self) -> dict[str, Any]:
        """The content of ``config.json``."""
        sizes = self.sizes
        numbers = {name: getattr(sizes, name) for name in SIZE_NUMBERS}
        return {
            "model_type": MODEL_TYPE,
            "pictures": asdict(self.pictures),
            "drawing": asdict(self.drawing),
            "learning_shift": self.learning_shift,
            **numbers,
            "autoencoder": sizes.autoencoder,
            "vision": _sizes_of(sizes.vision),
            "llm": _sizes_of(sizes.language),
        }

    @classmethod
    def from_json(cls, settings: Mapping[str, Any], where: str) -> BagelConfiguration:
        """The inverse of ``as_json``. Raises CheckpointRefused naming what is missing, unknown or impossible."""
        try:
            numbers = {name: settings[name] for name in SIZE_NUMBERS}
            wrong = [name for name, value in numbers.items() if not isinstance(value, int) or value < 1]
            if wrong:
                raise ValueError(f"not a whole number above 0: {', '.join(wrong)}")
            sizes = BagelSizes(
                language=Qwen2Config(**settings["llm"]),
                vision=SiglipVisionConfig(**settings["vision"]),
                autoencoder=_tuples(settings["autoencoder"]),
                **numbers,
            )
            pictures = {
                name: Bounds(**value) if isinstance(value, dict) else value
                for name, value in settings.get("pictures", {}).items()
            }
            found = cls(
                sizes,
                _part(PicturePlan, pictures),
                _part(DrawingPlan, settings.get("drawing", {})),
                settings.get("learning_shift", 1.0),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointRefused(f"does not describe a BAGEL ({error!r})", field=where) from error
        found.check(where)
        return found

    def check(self, where: str) -> None:
        """Raises CheckpointRefused for pictures that the position tables do not reach."""
        grids, pictures = self.sizes.grids(), self.pictures
        for name, pixels, stride, per_side in (
            ("target", max(pictures.target.longest, pictures.drawn_side), grids.vae_stride, grids.latent_per_side),
            ("understanding", pictures.understanding.longest, grids.vit_patch, grids.vit_per_side),
            ("questions", pictures.questions.longest, grids.vit_patch, grids.vit_per_side),
        ):
            most = stride * per_side
            if not stride <= pixels <= most:
                raise CheckpointRefused(f"pictures.{name} has {pixels} pixels, not {stride} to {most}", field=where)


SIZE_NUMBERS = ("latent_channels", "vae_downsampling", "latent_patch", "latent_per_side", "vit_per_side")


def _sizes_of(config: Qwen2Config | SiglipVisionConfig) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name not in NOT_SIZES}


def _part(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """A frozen part from its JSON object. Raises ValueError naming an entry that it does not have."""
    unknown = set(values) - {field.name for field in fields(kind)}
    if unknown:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    return kind(**values)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no tuples, diffusers' configurations do."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

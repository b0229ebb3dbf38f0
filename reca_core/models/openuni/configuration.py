"""What decides an OpenUni: sizes, picture side, noise levels of training, drawing schedule.

Written as ``config.json`` (``model_type: openuni``) and ``generation_config.json``. Published values: reference
"reca_recipe", sections 1.4, 1.8 and 4.2 D, and "model_goldens", sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from transformers import InternVLConfig, SiglipVisionConfig

from reca_core.contracts.errors import CheckpointRefused
from reca_core.models.openuni.network import OpenUniSizes

MODEL_TYPE = "openuni"
NOT_SIZES = frozenset({"transformers_version", "architectures", "dtype", "layer_types", "_name_or_path"})
"""Entries of a part's configuration that say nothing about the network, or follow from the others."""


@dataclass(frozen=True, kw_only=True)
class DrawingPlan:
    """How pictures are drawn; the defaults are the published settings."""

    guidance: float = 4.5
    steps: int = 20
    flow_shift: float = 3.0

    def scheduler(self) -> DPMSolverMultistepScheduler:
        """A new one: it remembers the last steps, so every drawing has its own."""
        return DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=self.flow_shift
        )


@dataclass(frozen=True)
class LearningPlan:
    """Noise levels of training; ``shift`` 1 draws them evenly."""

    noise_levels: int = 1000
    shift: float = 1.0

    def scheduler(self) -> FlowMatchEulerDiscreteScheduler:
        """The table of levels."""
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=self.noise_levels, shift=self.shift)


@dataclass(frozen=True)
class OpenUniConfiguration:
    """Everything but weights, tokenizer and templates. ``side`` in pixels: pictures are cropped to this square."""

    sizes: OpenUniSizes
    side: int
    learning: LearningPlan = LearningPlan()
    drawing: DrawingPlan = DrawingPlan()

    @property
    def grid(self) -> int:
        """Latents per side of a picture."""
        return self.side // self.sizes.stride

    def as_json(self) -> dict[str, Any]:
        """The settings of a checkpoint directory."""
        return {
            "model_type": MODEL_TYPE,
            "image_side": self.side,
            "queries": self.sizes.queries,
            "learning": asdict(self.learning),
            "drawing": asdict(self.drawing),
            "connector": _sizes_of(self.sizes.connector.to_dict()),
            "transformer": self.sizes.transformer,
            "autoencoder": self.sizes.autoencoder,
            "language": _sizes_of(self.sizes.language.to_dict()),
            **({"understanding_side": self.sizes.seen_side} if self.sizes.seen_side else {}),
        }

    @classmethod
    def from_json(cls, settings: Mapping[str, Any], where: str) -> OpenUniConfiguration:
        """The inverse of ``as_json``. Raises CheckpointRefused naming what is missing, unknown or impossible."""
        try:
            sizes = OpenUniSizes(
                InternVLConfig(**settings["language"]),
                SiglipVisionConfig(**settings["connector"]),
                settings["queries"],
                settings["transformer"],
                settings["autoencoder"],
                settings.get("understanding_side"),
            )
            found = cls(
                sizes,
                side=settings["image_side"],
                learning=_part(LearningPlan, settings["learning"]),
                drawing=_part(DrawingPlan, settings.get("drawing", {})),
            )
            found.check(where)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointRefused(f"does not describe an OpenUni ({error!r})", field=where) from error
        return found

    def check(self, where: str) -> None:
        """Raises CheckpointRefused for parts that do not fit each other."""
        language: Any = self.sizes.language
        joints = (
            ("image_side", self.side % self.sizes.stride, 0),
            ("connector.hidden_size", self.sizes.connector.hidden_size, language.text_config.hidden_size),
            (
                "transformer.in_channels",
                self.sizes.transformer["in_channels"],
                self.sizes.autoencoder["latent_channels"],
            ),
        )
        for name, ours, wanted in joints:
            if ours != wanted:
                raise CheckpointRefused(f"{name} does not fit the other parts: {ours}, should be {wanted}", field=where)


def _sizes_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in settings.items() if name not in NOT_SIZES}
    return {name: _sizes_of(value) if isinstance(value, dict) else value for name, value in kept.items()}


def _part(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """A frozen part from its JSON object. Raises ValueError naming an entry that it does not have."""
    unknown = set(values) - {field.name for field in fields(kind)}
    if unknown:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    return kind(**values)

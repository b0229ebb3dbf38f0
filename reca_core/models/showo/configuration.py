"""What decides a Show-o: sizes, picture side, what is shown of a picture, drawing schedule.

Written as ``config.json`` (``model_type: showo``) and ``generation_config.json``. Published values: reference
"reca_recipe", sections 1.4, 1.8 and 4.2 A, and "model_goldens", section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from transformers import CLIPVisionConfig, PhiConfig

from reca_core.contracts.errors import CheckpointRefused
from reca_core.models.showo.magvit import MagvitConfiguration
from reca_core.models.showo.network import ShowoSizes
from reca_core.models.showo.sequence import SPECIAL_TOKENS

MODEL_TYPE = "showo"
NOT_SIZES = frozenset({"transformers_version", "architectures", "dtype", "_name_or_path"})
"""Entries of a part's configuration that say nothing about the network."""


@dataclass(frozen=True, kw_only=True)
class DrawingPlan:
    """How pictures are drawn. The published guidance is 5 in the form (1 + w) c - w u, so a scale of 6 here."""

    guidance: float = 6.0
    rounds: int = 50


@dataclass(frozen=True)
class ShownPicture:
    """What the VQ variant shows of a picture that is to be redrawn: its ids at another resolution, or blurred.

    Published: half the side, or an eighth blown up again (reference, 1.4). The CLIP variant does not read it.
    """

    downscale: int = 2
    blurred: bool = False


@dataclass(frozen=True)
class ShowoConfiguration:
    """Everything but weights, tokenizer and templates.

    ``upstream_parity`` repeats the published training's slips: CLIP without its normalisation, and no gradient from
    reconstruction into projector and word embeddings (reference 3.4, S1 and S2).
    """

    sizes: ShowoSizes
    side: int
    """Pixels; pictures are squashed to this square."""
    text_vocabulary: int
    """Ids below this are text; special tokens, image codes and the mask follow."""
    max_text: int = 128
    """Ids that a text and the special tokens around it may take in an opening."""
    system_prompt: str = ""
    """Said before questions about CLIP embeddings."""
    shown: ShownPicture = ShownPicture()
    drawing: DrawingPlan = DrawingPlan()
    upstream_parity: bool = False

    @property
    def tokens(self) -> int:
        """Image codes of a target."""
        return self.codes_of(self.side)

    @property
    def shown_side(self) -> int:
        """Pixels of what the VQ variant shows of a picture that is to be redrawn."""
        return self.side if self.shown.blurred else self.side // self.shown.downscale

    def codes_of(self, side: int) -> int:
        """Image codes of a square of so many pixels."""
        return int((side // self.sizes.tokenizer.downsampling) ** 2)

    def as_json(self) -> dict[str, Any]:
        """The settings of a checkpoint directory."""
        clip = self.sizes.clip
        return {
            "model_type": MODEL_TYPE,
            "image_side": self.side,
            "text_vocabulary": self.text_vocabulary,
            "max_text": self.max_text,
            "system_prompt": self.system_prompt,
            "upstream_parity": self.upstream_parity,
            "shown": asdict(self.shown),
            "drawing": asdict(self.drawing),
            "tokenizer": asdict(self.sizes.tokenizer),
            "language": _sizes_of(self.sizes.language),
            "clip": _sizes_of(clip) if clip is not None else None,
        }

    @classmethod
    def from_json(cls, settings: Mapping[str, Any], where: str) -> ShowoConfiguration:
        """The inverse of ``as_json``. Raises CheckpointRefused naming what is missing, unknown or impossible."""
        try:
            clip = settings["clip"]
            sizes = ShowoSizes(
                PhiConfig(**settings["language"]),
                _part(MagvitConfiguration, settings["tokenizer"]),
                CLIPVisionConfig(**clip) if clip is not None else None,
            )
            found = cls(
                sizes,
                side=settings["image_side"],
                text_vocabulary=settings["text_vocabulary"],
                max_text=settings["max_text"],
                system_prompt=settings["system_prompt"],
                shown=_part(ShownPicture, settings["shown"]),
                drawing=_part(DrawingPlan, settings.get("drawing", {})),
                upstream_parity=settings["upstream_parity"],
            )
            found.check(where)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointRefused(f"does not describe a Show-o ({error!r})", field=where) from error
        return found

    def check(self, where: str) -> None:
        """Raises CheckpointRefused for sides, rounds and vocabularies that cannot be."""
        step = self.sizes.tokenizer.downsampling * (1 if self.sizes.clip else self.shown.downscale)
        if self.side % step:
            raise CheckpointRefused(f"image_side {self.side} is not a multiple of {step}", field=where)
        if not 1 <= self.drawing.rounds <= self.tokens:
            raise CheckpointRefused(f"{self.drawing.rounds} rounds cannot draw {self.tokens} tokens", field=where)
        wanted = self.text_vocabulary + SPECIAL_TOKENS + 2**self.sizes.tokenizer.bits + 1
        if self.sizes.language.vocab_size != wanted:
            raise CheckpointRefused(
                f"the language model has {self.sizes.language.vocab_size} words; {self.text_vocabulary} of text, "
                f"{SPECIAL_TOKENS} special ones, the image codes and the mask are {wanted}",
                field=where,
            )


def _sizes_of(config: Any) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name not in NOT_SIZES}


def _part(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """A frozen part from its JSON object, lists as tuples. Raises ValueError naming an entry that it does not have."""
    unknown = set(values) - {field.name for field in fields(kind)}
    if unknown:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

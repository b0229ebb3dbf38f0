"""Between pictures and tensors: Janus' two transforms, and back.

Geometry (a choice that upstream leaves to the user; reference 1.4): for RecA both sides see the same centre square, so
that what is asked for is what was shown. Questions are about the whole picture, so it is fitted into the square and
padded with grey, as the published image processor does. Numbers come from the checkpoint's preprocessor_config.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from reca_core.contracts.errors import CheckpointRefused
from reca_core.contracts.files import write_json
from reca_core.models.directory import read_json
from reca_core.models.pictures import WHITE, centre_square, channels, resized, stack, to_pictures
from reca_core.models.unified import Images

SETTINGS_FILES = ("preprocessor_config.json", "processor_config.json")
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class PictureTransform:
    """Sizes in pixels; ``mean`` and ``std`` per channel of values in [0, 1]; ``min_side`` of a fitted picture."""

    understanding_size: int
    target_size: int
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF
    min_side: int = 14

    @classmethod
    def read(cls, directory: Path, understanding_size: int, target_size: int) -> PictureTransform:
        """With the checkpoint's own mean, std and minimal side, where it states them.

        Raises CheckpointRefused for a file that is no JSON object or states something else there.
        """
        path, settings = _settings(directory)
        try:
            mean, std = (_of_channels(settings.get(name) or HALF) for name in ("image_mean", "image_std"))
            side = int(settings.get("min_size", cls.min_side))
        except (TypeError, ValueError) as error:
            raise CheckpointRefused(f"image_mean, image_std or min_size: {error}", field=str(path)) from error
        return cls(understanding_size, target_size, mean, std, side)

    def write(self, directory: Path) -> None:
        """In the form that transformers' image processor reads."""
        side = self.understanding_size
        settings = {
            "image_processor_type": "JanusImageProcessor",
            "size": {"height": side, "width": side},
            "min_size": self.min_side,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        write_json(directory / SETTINGS_FILES[0], settings)

    def squares(self, pictures: Sequence[Image.Image]) -> Images:
        """Centre squares, at both sizes: for reconstruction."""
        cropped = [centre_square(picture) for picture in pictures]
        understanding = stack([resized(picture, self.understanding_size) for picture in cropped])
        target = stack([resized(picture, self.target_size) for picture in cropped])
        return Images(self.normalised(understanding), target * 2 - 1)

    def whole(self, pictures: Sequence[Image.Image]) -> Images:
        """Whole pictures on a grey square, at both sizes: for questions."""
        understanding = stack([self._fitted(picture, self.understanding_size) for picture in pictures])
        target = stack([self._fitted(picture, self.target_size) for picture in pictures])
        return Images(self.normalised(understanding), target * 2 - 1)

    def normalised(self, values: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """Values in [0, 1] as the understanding encoder wants them."""
        return (values - channels(self.mean)) / channels(self.std)

    def view(self, images: Images) -> list[Image.Image]:
        """What the understanding encoder saw, as pictures."""
        values = images.understanding.cpu() * channels(self.std) + channels(self.mean)
        return to_pictures(values * 2 - 1)

    def _fitted(self, picture: Image.Image, side: int) -> Image.Image:
        scale = side / max(picture.size)
        width, height = (max(round(length * scale), self.min_side) for length in picture.size)
        small = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        grey = tuple(int(value * WHITE) for value in self.mean)
        canvas = Image.new("RGB", (max(small.size), max(small.size)), grey)
        canvas.paste(small, ((canvas.width - width) // 2, (canvas.height - height) // 2))
        return resized(canvas, side)


def _settings(directory: Path) -> tuple[Path, dict[str, Any]]:
    """The first file that states them, and what it says; no entries where none does."""
    for path in (directory / name for name in SETTINGS_FILES):
        if path.is_file():
            found = read_json(path)
            settings = found.get("image_processor", found)
            if not isinstance(settings, dict):
                raise CheckpointRefused("image_processor is no JSON object", field=str(path))
            if "image_mean" in settings or "image_std" in settings:
                return path, settings
    return directory, {}


def _of_channels(values: Iterable[float]) -> tuple[float, ...]:
    """One number a channel. Raises TypeError or ValueError for anything else."""
    numbers = tuple(float(value) for value in values)
    if len(numbers) != len(HALF):
        raise ValueError(f"{len(numbers)} numbers for {len(HALF)} channels")
    return numbers

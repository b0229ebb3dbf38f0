"""Pictures of the rendered world as files: what its editing and question benchmarks start from."""

from __future__ import annotations

import io

from PIL import Image

from evaluation.benchmark import SourcePicture
from reca_core.contracts.world_edits import Objects
from reca_core.contracts.world_raster import paint

SIDE_PIXELS = 64
"""Large enough for any family to look at; every family scales it to its own size."""


def painted(objects: Objects) -> SourcePicture:
    """The picture of some objects: cell -> (shape, colour word)."""
    stream = io.BytesIO()
    Image.fromarray(paint(objects, SIDE_PIXELS)).save(stream, "PNG")
    return SourcePicture(content=stream.getvalue())

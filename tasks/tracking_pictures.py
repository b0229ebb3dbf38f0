"""The pictures inside a run's per-prompt table: cells that MLflow's table view shows as pictures.

The cells have the form that ``mlflow.log_table`` gives to ``mlflow.Image`` (MLflow 3: ``{"type": "image", "filepath",
"compressed_filepath"}`` and files below ``table_images/<table>``), but not its ways: it names files at random, so that
logging again doubles them and their rows, writes each picture twice, refuses a column in which one picture is missing,
and needs all of them in memory. Here a file is named by its content, scaled down, written once, and opened alone. A
column of pictures holds nothing else, because the view cannot draw it otherwise: what is not shown has a sign that
says so.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from evaluation.subjects import UNDECODABLE
from tasks.tracking import TABLE_FILE, TrackedRun, client

FOLDER = f"table_images/{Path(TABLE_FILE).stem}"
LONGEST_SIDE = 512
"""Pixels; the picture as it was judged lies at the path that the table names."""
SUFFIX = ".webp"
HASH_IN_NAMES = 32
NOT_SHOWN, UNREADABLE = "not shown here", "cannot be decoded"
SIGN_SIZE = (160, 64)
SIGN_COLOURS = ("#eeeeee", "#666666")

Cell = dict[str, str]


def log_table_pictures(run: TrackedRun, files: Mapping[Any, Path | None]) -> dict[Any, Cell]:
    """Put pictures into the run; what is there already is not sent again.

    Args:
        files: anything -> its picture; None for one that is not to be shown.
    Returns: the same keys -> their cells.
    """
    there = {Path(item.path).name for item in client().list_artifacts(run.run_id, FOLDER)}
    cells: dict[Any, Cell] = {}
    with tempfile.TemporaryDirectory() as folder:
        for key, file in files.items():
            content = sign(NOT_SHOWN) if file is None else small(file)
            name = hashlib.sha256(content).hexdigest()[:HASH_IN_NAMES] + SUFFIX
            if name not in there:
                (Path(folder) / name).write_bytes(content)
            cells[key] = {"type": "image", "filepath": f"{FOLDER}/{name}", "compressed_filepath": f"{FOLDER}/{name}"}
        if any(Path(folder).iterdir()):
            client().log_artifacts(run.run_id, folder, FOLDER)
    return cells


def small(file: Path) -> bytes:
    """A picture as WebP, at most LONGEST_SIDE on its longer side; a sign where it cannot be decoded."""
    try:
        with Image.open(file) as opened:
            opened.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            return _webp(opened.convert("RGB"))
    except UNDECODABLE:
        return sign(UNREADABLE)


def sign(text: str) -> bytes:
    """A small picture of some words."""
    ground, ink = SIGN_COLOURS
    picture = Image.new("RGB", SIGN_SIZE, ground)
    ImageDraw.Draw(picture).text((SIGN_SIZE[0] / 2, SIGN_SIZE[1] / 2), text, fill=ink, anchor="mm")
    return _webp(picture)


def _webp(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "WEBP")
    return stream.getvalue()

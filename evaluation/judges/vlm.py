"""How each benchmark asks a vision-language model: order, picture encoding, token limit, and its paper's model.

Facts: PKU-YuanGroup/ImgEdit @ 547185d (basic_bench.py), stepfun-ai/Step1X-Edit @ 570eba6 and RecA's copy @ b250aa1
(viescore). DPG-Bench's own judge is mPLUG; asking another model its questions is this project's wording.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image, ImageOps

from evaluation.benchmark import JudgeTask
from evaluation.records import Reply
from evaluation.subjects import UNDECODABLE
from reca_core.contracts.errors import BadInput

STYLES_VERSION = 1
"""Raised by whoever changes what is sent; part of every judge's identity that sends it."""
JPEG_QUALITY = 75
"""Pillow's default, which upstream relies on."""
IMGEDIT_JUDGE_PIXELS = (1_016_064, 1_354_752)
"""Of ImgEdit-Judge, a Qwen2.5-VL-7B: about one megapixel."""
YES_NO_REQUEST = "Answer with one word: yes or no."
_YES_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)

Encoded = tuple[str, bytes]
"""Media type as it is announced, and content."""


def as_stored(path: Path, task: JudgeTask) -> Encoded:
    """ImgEdit: the file's bytes, announced as PNG whatever they are."""
    return "image/png", path.read_bytes()


def as_is(path: Path, task: JudgeTask) -> Encoded:
    """The file's bytes under their own media type."""
    with Image.open(path) as picture:
        return Image.MIME.get(picture.format or "", "image/png"), path.read_bytes()


def as_jpeg_of_source_size(path: Path, task: JudgeTask) -> Encoded:
    """GEdit for GPT: upright RGB JPEG; the edited picture is first brought to the size of its source."""
    stream = io.BytesIO()
    of_source_size(path, task).save(stream, "JPEG", quality=JPEG_QUALITY)
    return "image/jpeg", stream.getvalue()


def of_source_size(path: Path, task: JudgeTask) -> Image.Image:
    """GEdit: upright RGB; the edited picture resized (bicubic) to the size that the source is stored in."""
    with Image.open(path) as opened:
        if path == task.source:
            return ImageOps.exif_transpose(opened).convert("RGB")
        picture = opened.convert("RGB")
    if task.source is None:
        raise BadInput(f"{task.prompt.prompt_id} has no source picture", field="prompts")
    with Image.open(task.source) as source:
        return ImageOps.exif_transpose(picture.resize(source.size, Image.Resampling.BICUBIC))


def plain(path: Path, task: JudgeTask) -> Image.Image:
    """Upright RGB."""
    with Image.open(path) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


@dataclass(frozen=True)
class Style:
    """How one benchmark asks."""

    encode: Callable[[Path, JudgeTask], Encoded]
    """For endpoints."""
    look: Callable[[Path, JudgeTask], Image.Image]
    """For models in this process."""
    local_order: Literal["asked", "pictures first"]
    """For models in this process; endpoints are always asked in the question's own order."""
    max_tokens: int | None
    """For endpoints, as upstream; None sends no limit."""
    local_max_tokens: int
    published_model: str
    """Of the paper this project follows; empty where its judge is no such model."""
    yes_no: bool = False
    """Whether a reply must be yes or no."""
    local_pixels: tuple[int, int] | None = None
    """Least and largest area of a picture for Qwen models in this process, where upstream sets them."""


STYLES: dict[str, Style] = {
    "imgedit": Style(as_stored, plain, "asked", None, 2048, "gpt-4o-2024-08-06", local_pixels=IMGEDIT_JUDGE_PIXELS),
    "gedit": Style(as_jpeg_of_source_size, of_source_size, "pictures first", 1400, 512, "gpt-4.1-2025-04-14"),
    "dpg": Style(as_is, plain, "asked", 16, 16, "", yes_no=True),
}


def style_of(benchmark: str, judge: str) -> Style:
    """Raises BadInput for a benchmark that is not asked in words."""
    if benchmark not in STYLES:
        raise BadInput(f"{judge} cannot judge {benchmark}", field="judge.judge", choices=("detector", "onnx"))
    return STYLES[benchmark]


def words(task: JudgeTask, style: Style) -> str:
    """The text that is sent."""
    return f"{task.question.text} {YES_NO_REQUEST}" if style.yes_no else task.question.text


def picture_of(part: str, task: JudgeTask) -> Path:
    """The picture that a part of a question names."""
    if part == "sample":
        return task.picture
    if task.source is None:
        raise BadInput(f"{task.prompt.prompt_id} has no source picture", field="prompts")
    return task.source


def content(task: JudgeTask, style: Style) -> list[dict[str, Any]] | Reply:
    """The parts of the user message for an endpoint; or, where a picture cannot be read, the reply that says so."""
    parts: list[dict[str, Any]] = []
    for part in task.question.parts:
        if part == "text":
            parts.append({"type": "text", "text": words(task, style)})
            continue
        path = picture_of(part, task)
        try:
            media_type, data = style.encode(path, task)
        except UNDECODABLE as error:
            return Reply(error=f"{path.name} cannot be shown: {type(error).__name__}")
        url = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return parts


def reply(text: str, style: Style) -> Reply:
    """What the rules get. A yes/no question answered otherwise has no answer: that is never counted as a no."""
    if not style.yes_no:
        return Reply(text=text)
    match = _YES_NO.match(text)
    return Reply(text=match[1].lower()) if match else Reply(error=f"neither yes nor no: {text}")

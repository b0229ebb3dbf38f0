"""Small parts that tests of judges share: pictures, tasks, places."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from evaluation.benchmark import JudgeTask
from evaluation.judges.opening import JudgePlace
from evaluation.records import Question
from reca_core.contracts.records import Prompt, Sample


def save_picture(path: Path, colour: str = "red", size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def task(picture: Path, question: Question, source: Path | None = None, ask: int = 0, name: str = "p") -> JudgeTask:
    prompt = Prompt(prompt_id=name, text="make it blue", seeds=[0], outputs=[picture.name])
    sample = Sample(prompt_id=name, seed=0, text=prompt.text, image_path=picture.name, sha256="")
    return JudgeTask(prompt, sample, picture, source, question, ask)


def text_question(text: str, parts: Sequence[str] = ("text", "source", "sample"), key: str = "rating") -> Question:
    return Question.model_validate({"key": key, "kind": "text", "text": text, "parts": list(parts)})


def place(folder: Path, benchmark: str, data: Path | None = None) -> JudgePlace:
    return JudgePlace(benchmark, folder / "answers", folder / "cache", data)

"""File names, captions and model names that look like markup go through the whole chain and come out as text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from reca_core.contracts.errors import EXIT_DONE
from reca_core.contracts.world import VOCABULARY
from tests.reca_core.tiny_janus import save_tiny_janus, tiny_pictures

pytestmark = pytest.mark.servers

SCRIPT = "<script>alert('x')<"
"""A file name cannot hold a slash, and this needs none to be dangerous."""
LIMIT_SECONDS = 300.0
SETTINGS = {
    "training.steps": 3,
    "training.images_per_step": 4,
    "training.warmup_steps": 1,
    "training.preview_every_steps": 3,
    "losses.text": 0,
    "losses.text_to_image": 1,
    "evaluation.prompts_per_tag": 1,
    "evaluation.pictures_per_prompt": 1,
    "registration.name": "plain",
}


class Words(HTMLParser):
    """Elements and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def conversation(image: str, said: str, replied: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": said}, {"from": "gpt", "value": replied}]
    return {"image": image, "conversations": turns}


def person(folder: Path) -> list[str]:
    """A folder of pictures, a caption file and a model whose names are markup; the settings that use them."""
    pictures = folder / "pictures" / SCRIPT
    pictures.mkdir(parents=True)
    names = []
    for number, picture in enumerate(tiny_pictures(6)):
        name = f"{SCRIPT}{number}.png"
        picture.save(pictures / name)
        names.append(f"pictures/{SCRIPT}/{name}")
    (pictures / f"{SCRIPT}broken.png").write_bytes(b"<script>")
    rows = [conversation(name, f"<image>\n{SCRIPT} what is it ?", f"a {SCRIPT} circle") for name in names]
    rows += [conversation(name, f"a red {SCRIPT} circle", "<image>") for name in names]
    (folder / "captions.json").write_text(json.dumps(rows))
    save_tiny_janus(folder / f"tiny {SCRIPT}", words=VOCABULARY)
    sources = {"images.source": "pictures", "captions.source": "captions.json", "model.source": f"./tiny {SCRIPT}"}
    sources["captions.leak_filter"] = "off"  # the benchmarks' own prompts need not be here
    return [word for name, value in (sources | SETTINGS).items() for word in ("--set", f"{name}={value}")]


def test_markup_in_names_and_captions_is_text_in_report_tables_and_artifacts(tmp_path: Path) -> None:
    here, home = tmp_path / "person", tmp_path / "home"
    command = [sys.executable, "-m", "deployments.cli", "--json", "train-then-evaluate", "--home", str(home)]
    result = subprocess.run(
        command + person(here),
        cwd=here,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert result.returncode == EXIT_DONE, result.stderr
    report = Path(json.loads(result.stdout)["report"])
    page = Words(report.read_text())
    assert "script" not in page.tags
    assert f"reconstruction of {SCRIPT}/{SCRIPT}" in page.text
    assert f"tiny {SCRIPT}" in page.text
    assert "<" not in report.with_name("report.md").read_text()
    assert "6 from" in page.text
    assert "1 file could not be used" in page.text

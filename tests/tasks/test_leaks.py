"""Fine-tuning captions are held against the benchmarks' own prompts, whose text is part of a training's identity."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reca_core.contracts.errors import PrerequisiteMissing
from reca_core.contracts.home import Home
from reca_core.contracts.requests import CaptionSource, LossTerms
from tasks.leaks import DRAWN_FROM_TEXT, leak_file

FINE_TUNING = LossTerms(text_to_image=1)
FILE = CaptionSource(source="/somewhere/captions.json")


@pytest.mark.parametrize(
    ("captions", "losses"),
    [
        (CaptionSource(), FINE_TUNING),
        (FILE, LossTerms(text_to_image=0)),
        (FILE.model_copy(update={"leak_filter": "off"}), FINE_TUNING),
    ],
)
def test_without_captions_to_draw_from_a_file_nothing_is_filtered(
    tmp_path: Path, captions: CaptionSource, losses: LossTerms
) -> None:
    found = leak_file(Home(tmp_path), captions, losses, None)
    assert (found.text, found.path, found.sha256) == ("", "", "")
    found.write()
    assert not list(tmp_path.iterdir())


def test_without_the_benchmarks_files_a_fine_tuning_does_not_start_and_says_how(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteMissing, match=r"reca fetch geneval --no-pictures, or .*leak_filter=off"):
        leak_file(Home(tmp_path), FILE, FINE_TUNING, None)


@pytest.mark.benchmark_data
def test_every_prompt_is_in_the_file_and_the_file_is_written_once(tmp_path: Path, benchmark_data: Path) -> None:
    found = leak_file(Home(tmp_path), FILE, FINE_TUNING, benchmark_data)
    assert not list(tmp_path.iterdir()), "a plan writes nothing"
    found.write()
    written = Path(found.path)
    prompts = json.loads(written.read_text())
    assert tuple(prompts) == tuple(sorted(DRAWN_FROM_TEXT))
    lines = (benchmark_data / "geneval" / "evaluation_metadata.jsonl").read_text().splitlines()
    assert set(prompts["geneval"]) == {json.loads(line)["prompt"] for line in lines}
    assert len(prompts["dpg"]) > 1000
    before = written.stat().st_mtime_ns
    leak_file(Home(tmp_path), FILE, FINE_TUNING, benchmark_data).write()
    assert written.stat().st_mtime_ns == before

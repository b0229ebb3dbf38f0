"""GEdit's items: those of the fetched data set with the intersection, else of the file; an altered list is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from evaluation.benchmark import PromptPlan
from evaluation.benchmarks.gedit.benchmark import GEdit
from evaluation.records import Unscored
from reca_core.contracts.errors import PrerequisiteMissing

PLAN = PromptPlan()
ROWS = [
    {"task_type": task, "instruction_language": language, "key": "k", "instruction": "ü", "Intersection_exist": inside}
    for task, language, inside in (
        ("subject-remove", "en", True),
        ("subject-replace", "en", False),
        ("subject-remove", "cn", True),
    )
]


@pytest.fixture
def data(tmp_path: Path, benchmark_data: Path) -> Path:
    shutil.copytree(benchmark_data / "gedit", tmp_path / "gedit", copy_function=shutil.copyfile)
    (tmp_path / "gedit").chmod(0o755)
    return tmp_path


def put(data: Path, rows: list[dict[str, object]], recorded: str = "") -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    (data / "gedit" / "items.jsonl").write_bytes(text)
    record = {"items.jsonl": recorded or hashlib.sha256(text).hexdigest()}
    (data / "gedit" / "pictures.json").write_text(json.dumps(record))


@pytest.mark.benchmark_data
def test_the_fetched_data_set_has_keys_that_occur_twice_and_the_intersection(data: Path) -> None:
    assert len(GEdit.open("gedit", PLAN, data).prompts()) == 604
    put(data, ROWS)
    benchmark = GEdit.open("gedit", PLAN, data)
    prompts = benchmark.prompts()
    assert [prompt.prompt_id for prompt in prompts] == ["fullset/subject-remove/en/k", "fullset/subject-replace/en/k"]
    assert {prompt.text for prompt in prompts} == {"ü"}
    judgments = [benchmark.unscored(prompt, 0, Unscored(reason="x")) for prompt in prompts]
    rows = benchmark.rows(judgments, "corrected")
    assert (rows["en/o_full"].n_expected, rows["en/o_intersection"].n_expected) == (2, 1)


@pytest.mark.benchmark_data
def test_a_list_of_items_that_was_altered_after_fetching_is_refused(data: Path) -> None:
    put(data, ROWS, recorded="0" * 64)
    with pytest.raises(PrerequisiteMissing, match=r"items\.jsonl was altered: expected hash 0000"):
        GEdit.open("gedit", PLAN, data)

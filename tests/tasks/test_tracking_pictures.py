"""The per-prompt table shows pictures in the form that MLflow's own ``mlflow.Image`` cells have, once, and says where
it shows none."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.records import Judgment, Scored, Unscored
from reca_core.contracts.files import append_jsonl
from reca_core.contracts.records import Prompt, Sample
from tasks import evidence, tracking, tracking_pictures
from tasks.results import Judged
from tasks.tracking import TrackedRun
from tests.evaluation.judging import save_picture
from tests.tasks.rig import judged, registered


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECA_HOME", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield root


@pytest.fixture
def run(home: Path, request: pytest.FixtureRequest) -> TrackedRun:
    return tracking.begin_run("a run", {"flow_run_id": request.node.name}, {})


def logged(run: TrackedRun) -> list[str]:
    return sorted(item.path for item in tracking.client().list_artifacts(run.run_id, tracking_pictures.FOLDER))


def opened(run: TrackedRun, cell: dict[str, str], folder: Path) -> Image.Image:
    path = tracking.client().download_artifacts(run.run_id, cell["filepath"], str(folder))
    return Image.open(io.BytesIO(Path(path).read_bytes())).convert("RGB")


def test_pictures_are_logged_small_once_and_with_mlflows_own_keys(run: TrackedRun, tmp_path: Path) -> None:
    import mlflow

    wide = save_picture(tmp_path / "wide.png", "blue", (2048, 100))
    save_picture(tmp_path / "same.png", "blue", (2048, 100))
    (tmp_path / "torn.png").write_bytes(wide.read_bytes()[:50])
    files = {"a": wide, "b": tmp_path / "same.png", "c": tmp_path / "torn.png", "d": None}
    for _ in range(2):
        cells = tracking_pictures.log_table_pictures(run, files)
    assert cells["a"] == cells["b"]
    assert len(logged(run)) == 3
    assert {cell["filepath"] for cell in cells.values()} == set(logged(run))
    shown = opened(run, cells["a"], tmp_path)
    assert shown.size == (tracking_pictures.LONGEST_SIDE, 25)
    red, _, blue = np.asarray(shown)[5, 5].tolist()
    assert blue > 200 > 50 > red
    assert opened(run, cells["c"], tmp_path).size == opened(run, cells["d"], tmp_path).size
    theirs = tracking.begin_run("as MLflow does it", {"flow_run_id": "theirs"}, {})
    table = {"image": [mlflow.Image(str(wide))]}
    tracking.client().log_table(theirs.run_id, table, "theirs.json")
    file = tracking.client().download_artifacts(theirs.run_id, "theirs.json", str(tmp_path))
    (cell,) = json.loads(Path(file).read_text())["data"][0]
    assert cell.keys() == cells["a"].keys()
    assert cell["type"] == cells["a"]["type"]
    assert Path(cell["filepath"]).parts[0] == Path(cells["a"]["filepath"]).parts[0]


def judgments(count: int) -> list[Judgment]:
    """Good and bad in turn, the last one unscored."""
    outcomes: list[Scored | Unscored] = [Scored(values={"correct": float(n % 2)}) for n in range(count - 1)]
    outcomes.append(Unscored(reason="cannot be decoded"))
    return [Judgment(id=f"{n}/7", prompt_id=f"{n}", seed=7, outcome=outcome) for n, outcome in enumerate(outcomes)]


def test_beyond_the_limit_the_lowest_scores_are_shown_and_every_row_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(evidence, "TABLE_PICTURES", 3)
    items = judgments(6)
    files = {(item.prompt_id, 7): tmp_path / item.prompt_id for item in items[1:]}
    found = evidence.pictures_in_table(items, files)
    assert [key for key, _ in found] == ["0", "1", "2", "3", "4", "5"]
    assert [key for (key, _), file in found.items() if file] == ["2", "4", "5"]
    monkeypatch.setattr(evidence, "TABLE_PICTURES", 6)
    assert sum(file is not None for file in evidence.pictures_in_table(items, files).values()) == len(files)


def judged_folder(folder: Path, items: list[Judgment]) -> Judged:
    """As the stages leave it."""
    prompts, samples = [], []
    for number, item in enumerate(items):
        name, text = f"{item.prompt_id}.png", f"prompt {item.prompt_id}"
        save_picture(folder / name, f"#0000{16 * number:02x}")
        prompts.append(Prompt(prompt_id=item.prompt_id, text=text, seeds=[7], outputs=[name]))
        samples.append(Sample(prompt_id=item.prompt_id, seed=7, text=text, image_path=name, sha256=""))
    for file, records in (("prompts", prompts), ("samples", samples), ("judgments", items)):
        append_jsonl(folder / f"{file}.jsonl", [record.model_dump(mode="json") for record in records])
    found = judged(registered().model, 0.5)
    sampled = found.sampled.model_copy(update={"directory": str(folder)})
    return found.model_copy(update={"directory": str(folder), "sampled": sampled})


def test_the_table_of_a_judging_has_a_picture_in_every_row_beside_its_path(
    run: TrackedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(evidence, "TABLE_PICTURES", 2)
    judged = judged_folder(tmp_path, judgments(5))
    for _ in range(2):
        evidence.log_evidence(run, judged, 0)
    file = tracking.client().download_artifacts(run.run_id, tracking.TABLE_FILE, str(tmp_path))
    table: dict[str, Any] = json.loads(Path(file).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["prompt_id"] for row in rows] == ["0", "2", "1", "3", "4"]
    assert [row["picture"] for row in rows] == [f"{row['prompt_id']}.png" for row in rows]
    assert all(row["image"]["type"] == "image" for row in rows)
    assert len({row["image"]["filepath"] for row in rows}) == 3
    assert len(logged(run)) == 3

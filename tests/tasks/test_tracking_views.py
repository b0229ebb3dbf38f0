"""Links lead to views that exist, runs say how they are repeated, and lineage is told in both directions."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.records import ResolvedModel
from tasks import tracking, tracking_lineage, tracking_models, tracking_runs, tracking_views
from tasks.tracking import TrackedRun

ROWS = ["overall", "colors"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("home with 'quotes'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECA_HOME", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield root


@pytest.fixture
def run(home: Path, request: pytest.FixtureRequest) -> TrackedRun:
    return tracking.begin_run("a run", {"flow_run_id": request.node.name}, {})


def view(address: str) -> dict[str, Any]:
    """What MLflow reads when it opens an address."""
    (key,) = parse_qs(urlsplit(address).fragment.partition("?")[2])["viewStateShareKey"]
    tags = tracking.client().get_experiment(tracking.experiment_id()).tags
    saved = json.loads(tags[f"mlflow.sharedViewState.{key}"])
    assert set(saved) == {"name", "createdAt", "updatedAt", "state"}
    packed = saved["state"].removeprefix("deflate;")
    return dict(json.loads(zlib.decompress(base64.b64decode(packed))))


def test_the_links_of_a_comparison_lead_to_its_two_runs_and_its_pictures(run: TrackedRun) -> None:
    links = tracking_views.comparison_links(run, "geneval.shapeworld")
    tracking_views.save_comparison_views(run, "b against a", "geneval.shapeworld", ROWS, ["a_ring", "a_star"])
    table, pictures = view(links.table), view(links.pictures)
    wanted = f"tags.`mlflow.parentRunId` = '{run.run_id}' and tags.benchmark = 'geneval.shapeworld'"
    assert table["searchFilter"] == pictures["searchFilter"] == wanted
    assert table["selectedColumns"] == ["tags.`verdict`", "tags.`score`", "tags.`difference`"]
    assert [chart["metricKey"] for chart in table["compareRunCharts"]] == [f"geneval.shapeworld/{row}" for row in ROWS]
    assert [chart["imageKeys"] for chart in pictures["compareRunCharts"]] == [["a_ring", "a_star"]]
    assert view(links.charts) == table
    assert "compareRunsMode=CHART" in links.charts
    assert "compareRunsMode" not in links.table


def test_the_view_of_arms_has_a_line_for_each_and_bars_of_differences(run: TrackedRun) -> None:
    dense = [f"row {number}" for number in range(17)]
    found = tracking_views.save_arms_view(run, "a study", {"geneval.shapeworld": ROWS, "dpg.shapeworld": dense})
    shown = view(found["arms table"])
    assert shown == view(found["arms charts"])
    assert shown["searchFilter"] == f"tags.`mlflow.parentRunId` = '{run.run_id}' and tags.stage = 'arm'"
    assert shown["selectedColumns"] == ["tags.`geneval.shapeworld`", "tags.`dpg.shapeworld`"]
    bars = [chart["metricKey"] for chart in shown["compareRunCharts"]]
    assert bars[:3] == [f"geneval.shapeworld/{name}" for name in ("overall", "overall/delta", "colors/delta")]
    assert bars[3:] == ["dpg.shapeworld/row 0", *(f"dpg.shapeworld/{row}/delta" for row in dense[:7])]
    assert len({chart["uuid"] for chart in shown["compareRunCharts"]}) == len(bars)
    key = parse_qs(urlsplit(found["arms table"]).fragment.partition("?")[2])["viewStateShareKey"][0]
    assert tracking_views.kept_for(key) == run.run_id


def test_every_benchmark_that_was_compared_has_a_column_in_the_list_of_all(run: TrackedRun) -> None:
    for benchmark in ("geneval.shapeworld", "dpg.shapeworld", "geneval.shapeworld"):
        tracking_views.save_comparison_views(run, "b against a", benchmark, ROWS, [])
    columns = view(tracking_views.comparison_links(run, "dpg.shapeworld").everything)["selectedColumns"]
    assert sorted(columns) == ["tags.`dpg.shapeworld`", "tags.`geneval.shapeworld`"]


def test_a_view_that_a_person_changed_is_replaced_and_not_stumbled_over(run: TrackedRun) -> None:
    key = tracking_views.VIEW_TAG + tracking_views.ALL_COMPARISONS
    for other in ("", "no json", "{}", '{"state": "deflate;???"}', '{"state": "[]"}'):
        tracking.client().set_experiment_tag(run.experiment_id, key, other)
        tracking_views.save_comparison_views(run, "b against a", "geneval", ROWS, [])
        columns = view(tracking_views.comparison_links(run, "geneval").everything)["selectedColumns"]
        assert columns == ["tags.`geneval`"]


def test_every_run_says_how_it_is_repeated_before_and_after_it_is_described(home: Path, run: TrackedRun) -> None:
    def tags() -> dict[str, str]:
        return dict(tracking.client().get_run(run.run_id).data.tags)

    assert tags()["rerun"] == tracking.rerun_command(run)
    assert tags()["rerun"].endswith(f" rerun {run.run_id}")
    assert "with '\"'\"'quotes" in tags()["rerun"]  # as a shell reads it
    tracking.describe(run, "what came out")
    assert tags()["mlflow.note.content"].startswith("what came out\n\n")
    assert tags()["rerun"] in tags()["mlflow.note.content"]


def test_a_description_that_is_too_long_loses_whole_tables_and_never_the_command(run: TrackedRun) -> None:
    tables = [f"| table {number} |" + "x" * 3000 for number in range(4)]
    tracking.describe(run, "\n\n".join(tables))
    said = tracking.client().get_run(run.run_id).data.tags[tracking.DESCRIPTION_TAG]
    assert said.startswith("\n\n".join(tables[:2]) + f"\n\n{tracking.LEFT_OUT}\n\nRepeat: `reca")
    assert "table 2" not in said
    tracking.describe(run, "y" * 9000)
    said = tracking.client().get_run(run.run_id).data.tags[tracking.DESCRIPTION_TAG]
    assert len(said) <= tracking.LONGEST_TAG
    assert f"{tracking.LEFT_OUT}\n\nRepeat: `reca" in said


def test_a_run_id_leads_to_what_was_judged_of_the_trained_model(run: TrackedRun) -> None:
    for verdict, name in (("base", "h1"), ("better", "h2")):
        identity = {"stage": "benchmark", "benchmark": "geneval", "request_hash": name}
        tracking.begin_run(name, identity, {"verdict": verdict}, run)
    assert tracking_runs.judged_hashes(run.run_id) == ["h2"]
    assert tracking_runs.stored_request(run.run_id) == {}


def test_lineage_is_told_on_the_version_the_model_the_training_and_the_base(home: Path, run: TrackedRun) -> None:
    def model(name: str) -> ResolvedModel:
        folder = home / name
        folder.mkdir()
        (folder / "config.json").write_text(f'{{"model_type": "janus", "name": "{name}"}}')
        return ResolvedModel(name=name, family="janus", path=str(folder), sha256=sha256_tree(folder))

    base = tracking_models.logged_model(model("base"), run.run_id, {}, copy=False)
    tags = {"request_hash": "r" * 16, "data_digest": "d" * 64, "base_model": "a `b`", "base_sha256": "b" * 64}
    version, _ = tracking_models.register("reca-x", model("made"), run.run_id, tags, copy=False)
    tracking_models.set_alias(version, "champion")
    tracking_lineage.link_forward(version, run.run_id, base)
    scores = {"geneval.shapeworld/colors": 0.1, "geneval.shapeworld/overall": 0.5}
    scores |= {"geneval.shapeworld/overall/low": 0.4, "geneval.shapeworld/overall/high": 0.6}
    tracking.log_metrics(run, scores, version.model_id)
    tracking_lineage.describe_lineage(version.model_id)
    store = tracking.client()
    told = store.get_model_version("reca-x", version.version).description
    assert [part for part in told.split("\n\n") if part.startswith("**")] == [
        f"**{name}**" for name in ("Data", "Training", "Checkpoint", "Scores", "Schedule")
    ]
    for fact in ("d" * 64, "`a 'b'`", run.run_id, "geneval.shapeworld/overall` 0.500 (0.400 to 0.600)", "`champion`"):
        assert fact in told
    assert "colors" not in told
    assert store.get_logged_model(version.model_id).tags["mlflow.note.content"] == told
    assert store.get_run(run.run_id).data.tags["registered_version"] == "reca-x/1"
    assert store.get_logged_model(base).tags["post_trained_into"] == "reca-x/1"

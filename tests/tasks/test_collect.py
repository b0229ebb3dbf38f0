"""Pictures from elsewhere as a stage: identity by folder and plan, and settings that cannot be meant together."""

from __future__ import annotations

from pathlib import Path

from reca_core.contracts.hashing import request_hash
from reca_core.contracts.home import Home
from reca_core.contracts.requests import EvaluationPlan, ModelChoice, SamplingSettings, TrainingPlan, VersionChoice
from tasks import plan
from tasks.validate import faults

PICTURES = EvaluationPlan(benchmarks=["dpg.shapeworld"], pictures_from="/pictures")


def test_a_look_is_named_by_what_is_looked_for_and_where_not_by_the_machine() -> None:
    first, moved = (plan.collect_request(Home(Path(root)), "b", 1, PICTURES, root) for root in ("/one", "/two"))
    assert request_hash(first) == request_hash(moved)
    assert first.output_directory == f"/one/samples/{request_hash(first)}"
    others = [
        PICTURES.model_copy(update=change)
        for change in (
            {"pictures_from": "/others"},
            {"dpg_files": "single"},
            {"pictures_missing": "unscored"},
            {"prompts_per_tag": 3},
            {"first_seed": 0},
        )
    ]
    hashes = {request_hash(plan.collect_request(Home(Path("/one")), "b", 1, other, "")) for other in others}
    assert len(hashes | {request_hash(first)}) == len(others) + 1


def test_pictures_are_judged_by_evaluate_alone_on_one_benchmark_by_their_whole_path() -> None:
    assert faults(ModelChoice(), SamplingSettings(), PICTURES) == []
    for other in (TrainingPlan(), VersionChoice()):
        (fault,) = faults(other, PICTURES)
        assert fault.field == "evaluation.pictures_from"
    (fault,) = faults(PICTURES.model_copy(update={"pictures_from": "pictures"}))
    assert "absolute" in fault.fact
    (fault,) = faults(PICTURES.model_copy(update={"benchmarks": ["dpg.shapeworld", "geneval.shapeworld"]}))
    assert fault.field == "evaluation.benchmarks"

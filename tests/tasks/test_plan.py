"""A request's hash depends on what is computed, and on nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.records import JudgeRequest
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.hashing import hashed_part, request_hash
from reca_core.contracts.home import Home, RunDirectory
from reca_core.contracts.judging import SettledJudge
from reca_core.contracts.records import PreparedData, ResolvedModel
from reca_core.contracts.requests import (
    CaptionSource,
    EvaluationPlan,
    FineTuning,
    LossTerms,
    SamplingSettings,
    TrainingPlan,
    TrainRequest,
)
from tasks import plan

BASE = ResolvedModel(name="tiny", family="janus", path="/models/tiny", sha256="b" * 64, source="tiny")
DATA = PreparedData(digest="d" * 64, directory="/home/data/d", pictures=3, quarantined=0)
TRAINING = TrainingPlan(steps=10)


def train(
    home: str = "/home",
    base: ResolvedModel = BASE,
    data: PreparedData = DATA,
    captions: CaptionSource = CaptionSource(),
    training: TrainingPlan = TRAINING,
) -> TrainRequest:
    return plan.train_request(Home(Path(home)), base, data, LossTerms(), captions, training)


def test_a_training_is_named_by_what_it_computes() -> None:
    request = train()
    assert request.run_directory == f"/home/runs/{request_hash(request)}"
    elsewhere = train(
        "/elsewhere",
        BASE.model_copy(update={"path": "/other", "name": "x", "source": "models:/x/1"}),
        DATA.model_copy(update={"directory": "/other", "quarantined": 7, "reused": True}),
        training=TRAINING.model_copy(update={"device": "cuda", "processes": 4, "checkpoint_every_steps": 3}),
    )
    assert request_hash(elsewhere) == request_hash(request)
    assert request_hash(train(training=TrainingPlan(steps=11))) != request_hash(request)
    assert request_hash(train(data=DATA.model_copy(update={"digest": "e" * 64}))) != request_hash(request)
    assert request_hash(train(base=BASE.model_copy(update={"sha256": "c" * 64}))) != request_hash(request)


def test_keeping_features_changes_no_name(tmp_path: Path) -> None:
    usual = train()
    assert usual.feature_directory == "/home/cache/features"
    for choice in ("on", "off"):
        other = train(str(tmp_path), training=TRAINING.model_copy(update={"feature_cache": choice}))
        assert request_hash(other) == request_hash(usual)
    assert "feature_cache" not in hashed_part(usual.training)
    assert "feature_directory" not in hashed_part(usual)
    asked = TrainingPlan(steps=10, feature_cache="on")
    assert plan.fine_tuning_parts(FineTuning(steps=5), asked, CaptionSource())[2].feature_cache == "off", (
        "it reconstructs nothing"
    )


def test_the_content_of_a_caption_file_is_part_of_the_identity(tmp_path: Path) -> None:
    file = tmp_path / "captions.json"
    with pytest.raises(PrerequisiteMissing, match=r"captions\.json"):
        train(captions=CaptionSource(source=str(file)))
    file.write_text("[]")
    before = request_hash(train(captions=CaptionSource(source=str(file))))
    file.write_text("[1]")
    assert request_hash(train(captions=CaptionSource(source=str(file)))) != before


def test_an_unknown_family_is_refused_with_the_choices() -> None:
    with pytest.raises(BadInput, match="janus"):
        train(base=BASE.model_copy(update={"family": "unheard-of"}))


def test_samples_and_answers_lie_where_their_hashes_say() -> None:
    home = Home(Path("/home"))
    sample = plan.sample_request(home, BASE, "p" * 64, SamplingSettings())
    assert sample.output_directory == f"/home/samples/{request_hash(sample)}"
    assert sample.prompts_file == f"{sample.output_directory}/prompts.jsonl"
    other = plan.sample_request(home, BASE, "q" * 64, SamplingSettings())
    assert request_hash(other) != request_hash(sample)
    judge = plan.judge_request(
        home, "geneval.shapeworld", 1, RunDirectory(Path(sample.output_directory)), "p" * 64, "s" * 64,
        EvaluationPlan(), SettledJudge(), "",
    )  # fmt: skip
    assert judge.output_directory == f"/home/answers/{request_hash(judge)}"
    assert judge.samples_directory == sample.output_directory


def test_fine_tuning_is_a_training_of_its_own_that_does_not_depend_on_how_reconstruction_is_varied() -> None:
    training = TrainingPlan(steps=9, precision="bfloat16", seed=4, schedule_steps=7)
    first = FineTuning(steps=5, images_per_step=3, image_to_text=0.5, captions="/captions.json")
    losses, captions, tuning = plan.fine_tuning_parts(first, training, CaptionSource())
    assert (losses.reconstruction, losses.text_to_image, losses.image_to_text, losses.text) == (0, 1, 0.5, 0)
    assert captions.source == "/captions.json"
    assert (tuning.steps, tuning.images_per_step, tuning.precision, tuning.seed) == (5, 3, "bfloat16", 4)
    varied = training.model_copy(update={"upstream_parity": True, "understanding_downscale": 2, "schedule_steps": 8})
    assert plan.fine_tuning_parts(first, varied, CaptionSource())[2] == tuning


def test_fine_tuning_filters_as_the_run_does_and_is_best_by_a_loss_that_it_has() -> None:
    first, loose = FineTuning(steps=5), CaptionSource(leak_filter="off")
    _, captions, tuning = plan.fine_tuning_parts(first, TrainingPlan(best_by="reconstruction"), loose)
    assert captions.leak_filter == "off"
    assert tuning.best_by == "loss"
    for kept in ("off", "text_to_image"):
        assert plan.fine_tuning_parts(first, TrainingPlan(best_by=kept), loose)[2].best_by == kept


def test_captions_below_the_home_are_found_there() -> None:
    home = Home(Path("/somewhere"))
    assert plan.placed_captions(home, CaptionSource(source="home:a/b.json")).source == "/somewhere/a/b.json"
    for source in ("shapeworld", "/a/b.json"):
        assert plan.placed_captions(home, CaptionSource(source=source)).source == source


def judging(benchmark: str = "geneval.shapeworld", occasion: str = "", judge: SettledJudge = SettledJudge()) -> str:
    samples = RunDirectory(Path("/home/samples/s"))
    request = plan.judge_request(
        Home(Path("/home")), benchmark, 1, samples, "p" * 64, "s" * 64, EvaluationPlan(), judge, "", occasion
    )
    return request_hash(request)


def test_a_judging_is_known_by_benchmark_revision_judge_protocol_and_occasion(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = judging()
    assert judging() == plain
    assert judging(judge=SettledJudge(concurrency=2, timeout_seconds=7)) == plain
    assert judging(judge=SettledJudge(protocol="published")) != plain
    assert judging(judge=SettledJudge(weights_sha256="w")) != plain
    assert len({plain, judging(occasion="tonight"), judging(occasion="tomorrow")}) == 3
    before = judging("dpg")
    monkeypatch.setattr(plan, "data_revision", lambda benchmark: "another")
    assert judging("dpg") != before


def test_fields_that_came_later_leave_the_names_of_older_results_as_they_are() -> None:
    """The hash of a judging of the rendered world from before ``data_revision`` and ``occasion`` existed."""
    request = JudgeRequest(
        benchmark="geneval.shapeworld", prompts_sha256="p", samples_sha256="s", numerics_version=1, prompts_file="",
        samples_directory="", output_directory="",
    )  # fmt: skip
    part = hashed_part(request)
    assert "occasion" not in part
    assert "data_revision" not in part
    assert hashed_part(request.model_copy(update={"occasion": "x"}))["occasion"] == "x"

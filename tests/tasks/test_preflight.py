"""The estimate before a run: what it says, what it refuses and where it stays silent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reca_core.contracts.errors import EXIT_PREREQUISITE, PrerequisiteMissing
from reca_core.contracts.estimate import GIB, Estimate, Need
from reca_core.contracts.home import HOME_VARIABLE, Home
from reca_core.contracts.requests import (
    CaptionSource,
    FineTuning,
    ImageSource,
    LossTerms,
    ModelChoice,
    TrainingPlan,
)
from tasks import preflight as looking
from tasks.preflight import Preflight, StageNeed, foresee, lines, refuse

NEED = Need(
    images_per_pass=4,
    process={"weights": 2 * GIB, "activations": GIB},
    device_peak=0,
    host={"loading": 2 * GIB, "a step": 3 * GIB},
    host_peak=3 * GIB,
    checkpoint=GIB,
    checkpoints_kept=3,
    final=2 * GIB,
    samples=0,
)
FITS = Estimate(
    device="cpu",
    processes=1,
    published=False,
    parameters={"float32": GIB // 2},
    trained=GIB // 4,
    need=NEED,
    imports=GIB // 2,
    host_available=8 * GIB,
    device_available=[],
    disk_available=100 * GIB,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    return Home(tmp_path)


def found(answer: Estimate) -> Preflight:
    return Preflight(stages=[StageNeed(stage="train", estimate=answer)], download=0, samples=0)


def seen(home: Home, model: ModelChoice, training: TrainingPlan = TrainingPlan(), every: bool = False) -> Preflight:
    parts = (ImageSource(), model, LossTerms(), CaptionSource(), training, FineTuning())
    return foresee(home, *parts, None, every=every)


def test_a_tiny_model_is_estimated_by_the_child(home: Home) -> None:
    answer = seen(home, ModelChoice(), every=True).stages[0].estimate
    assert answer is not None
    assert answer.need.process["gradients"] == 4 * answer.trained
    assert not answer.shortages
    assert not any(home.root.iterdir())


def test_a_run_leaves_a_tiny_model_out_and_measures_it_for_a_huge_pass(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(looking, "_estimated", lambda stage, *_: asked.append(stage) or StageNeed(stage=stage))
    assert "too few to be measured" in seen(home, ModelChoice()).stages[0].unknown
    assert asked == []
    seen(home, ModelChoice(), TrainingPlan(images_per_step=100_000))
    assert asked == ["train"]


def test_what_is_not_known_is_said(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "download_bytes", lambda choice: None)
    told = lines(seen(home, ModelChoice(source="somebody/some-model"), every=True))
    assert any("known once it is downloaded" in line for line in told)
    assert "download: the hub did not say how much" in told
    assert any("no earlier run" in line for line in told)


def test_a_refusal_names_what_is_short_and_settings_that_fit() -> None:
    remedy = NEED.model_copy(update={"changed": {"activation_checkpointing": True}, "host_peak": GIB})
    short = FITS.model_copy(update={"shortages": ["host memory: 3.5 GiB needed, 3.0 GiB free"], "remedies": [remedy]})
    with pytest.raises(PrerequisiteMissing) as refused:
        refuse(found(short))
    assert refused.value.exit_code == EXIT_PREREQUISITE
    assert "3.5 GiB needed" in refused.value.fact
    assert refused.value.choices == ("training.activation_checkpointing=true (host 1.0 GiB, disk 5.0 GiB)",)
    assert "training.preflight=off" in refused.value.remedy


def test_what_fits_is_told_part_by_part() -> None:
    refuse(found(FITS))
    told = "\n".join(lines(found(FITS)))
    for part in ("weights 2.0 GiB", "activations 1.0 GiB", "3.0 GiB at a step", "3 checkpoints of 1.0 GiB"):
        assert part in told


def test_the_speed_of_an_earlier_run_says_how_long(home: Home) -> None:
    from reca_core.contracts.records import PreparedData
    from tasks.models import resolve_model
    from tasks.plan import train_request

    model = resolve_model(ModelChoice())
    data = PreparedData(digest="d", directory="/d", pictures=1, quarantined=0)
    request = train_request(home, model, data, LossTerms(), CaptionSource(), TrainingPlan())
    directory = Path(request.run_directory)
    directory.mkdir(parents=True)
    (directory / "request.json").write_text(request.model_dump_json())
    rows = [{"step": step, "seconds": 2.0} for step in range(1, 6)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage = seen(home, ModelChoice(), TrainingPlan(steps=1000)).stages[0]
    assert (stage.seconds, stage.seconds_from) == (2000.0, str(directory))
    assert seen(home, ModelChoice(), TrainingPlan(images_per_step=8)).stages[0].seconds is None

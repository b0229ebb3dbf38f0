"""The estimate before a run: what it says, what it refuses and where it stays silent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from reca_core.contracts.disks import Filling, Put
from reca_core.contracts.errors import EXIT_PREREQUISITE, PrerequisiteMissing
from reca_core.contracts.estimate import GIB, Estimate, Need
from reca_core.contracts.home import HOME_VARIABLE, Home, RunDirectory
from reca_core.contracts.requests import (
    CaptionSource,
    FineTuning,
    ImageSource,
    LossTerms,
    ModelChoice,
    TrainingPlan,
)
from reca_core.contracts.study import StudyPlan
from reca_core.contracts.sweep import SweepPlan
from tasks import preflight as looking
from tasks import preflight_totals
from tasks.preflight import Preflight, foresee, lines, refuse
from tasks.preflight_totals import StageNeed
from tasks.trainings import Trainings

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
    trainings = Trainings.chain(LossTerms(), CaptionSource(), training, FineTuning())
    return foresee(home, ImageSource(), model, trainings, None, every=every)


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
    monkeypatch.setattr(looking, "_estimated", lambda *given: asked.append(given[1].stage) or {"unknown": "no"})
    assert "too few to be measured" in seen(home, ModelChoice()).stages[0].unknown
    assert asked == []
    seen(home, ModelChoice(), TrainingPlan(images_per_step=100_000))
    assert asked == ["train"]


def test_what_is_not_known_is_said(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "download_bytes", lambda choice, home: None)
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


SWEEP = SweepPlan(learning_rates=[1e-4, 1e-3], loss_weights=[LossTerms(), LossTerms(text=0)])
SAVING = TrainingPlan(steps=100, checkpoint_every_steps=10)
"""Three checkpoints stay, four at once: 6 GiB with the final model of ``NEED``, where one is being written."""


@pytest.fixture
def estimated(monkeypatch: pytest.MonkeyPatch) -> dict[str, Estimate]:
    """What the child answers; one entry, to be changed."""
    answer = {"estimate": FITS}
    monkeypatch.setattr(looking, "_estimated", lambda *given: dict(answer))
    monkeypatch.setattr(looking, "_unknown", lambda *given: "")
    return answer


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, int]:
    """Bytes free on two disks: ``home``, and ``hub`` for the hub cache, which is on another one."""
    room = {"home": 1000 * GIB, "hub": 1000 * GIB}
    hub = tmp_path / "hub"

    def which(place: Path) -> str:
        return "hub" if place.is_relative_to(hub) else "home"

    def filled(puts: Sequence[Put]) -> list[Filling]:
        every = {which(put.place): [one for one in puts if which(one.place) == which(put.place)] for put in puts}
        return [
            Filling(place=name, parts={one.what: one.bytes for one in group}, free=room[name])
            for name, group in every.items()
        ]

    monkeypatch.setattr(preflight_totals, "fillings", filled)
    monkeypatch.setattr(looking, "hub_cache", lambda home: hub)
    return room


def look(home: Home, trainings: Trainings, model: ModelChoice = ModelChoice()) -> Preflight:
    return foresee(home, ImageSource(), model, trainings, None, every=False)


def refusal(found: Preflight) -> PrerequisiteMissing:
    with pytest.raises(PrerequisiteMissing) as refused:
        refuse(found)
    return refused.value


def swept(parallel: int = 1, training: TrainingPlan = SAVING) -> Trainings:
    plan = SWEEP.model_copy(update={"parallel_trainings": parallel})
    return Trainings.of_sweep(plan, LossTerms(), CaptionSource(), training)


def test_settings_that_need_the_same_are_estimated_once(
    home: Home, estimated: dict[str, Estimate], free: dict[str, int]
) -> None:
    stages = look(home, swept()).stages
    assert [(stage.stage, stage.trainings) for stage in stages] == [
        ("train lr 0.0001, weights 1 1 0 1 and 1 like it", 2),
        ("train lr 0.0001, weights 1 1 0 0 and 1 like it", 2),
    ]
    study = Trainings.of_study(StudyPlan(), LossTerms(), CaptionSource(), SAVING)
    assert sum(stage.trainings for stage in look(home, study).stages) == 3 * 7
    assert study.at_a_time == 1


def test_what_is_said_of_every_training_is_said_once(home: Home) -> None:
    study = Trainings.of_study(StudyPlan(), LossTerms(), CaptionSource(), SAVING)
    told = [line for line in lines(look(home, study)) if "too few to be measured" in line]
    assert len(told) == 1
    assert told[0].startswith("every training: ")
    assert any(line.startswith("train: ") for line in lines(seen(home, ModelChoice())))


def test_trainings_at_a_time_add_up_in_memory(home: Home, estimated: dict[str, Estimate], free: dict[str, int]) -> None:
    refuse(look(home, swept(parallel=2)))  # 3.5 GiB each, of 8
    short = refusal(look(home, swept(parallel=3)))
    assert (short.field, short.choices) == ("sweep.parallel_trainings", ("sweep.parallel_trainings=2",))
    assert "3 trainings at a time do not fit: host memory: 10.5 GiB needed, 8.0 GiB free" in short.fact
    refuse(look(home, Trainings.of_study(StudyPlan(), LossTerms(), CaptionSource(), SAVING)))
    on_gpus = {"device": "cuda", "host_available": None, "device_available": [7 * GIB]}
    need = NEED.model_copy(update={"device_peak": 3 * GIB})
    estimated["estimate"] = FITS.model_copy(update=on_gpus | {"need": need})
    assert "GPU memory: 7.2 GiB needed, 7.0 GiB free" in refusal(look(home, swept(parallel=2))).fact


def test_what_fits_alone_only_says_so_where_several_were_asked_for(
    home: Home, estimated: dict[str, Estimate], free: dict[str, int]
) -> None:
    remedy = NEED.model_copy(update={"changed": {"images_per_pass": 1}})
    estimated["estimate"] = FITS.model_copy(update={"shortages": ["host memory"], "remedies": [remedy]})
    assert "sweep.parallel_trainings=1" in refusal(look(home, swept(parallel=2))).remedy
    assert "sweep.parallel_trainings" not in refusal(look(home, swept())).remedy


def test_results_of_all_trainings_add_up_on_disk(
    home: Home, estimated: dict[str, Estimate], free: dict[str, int]
) -> None:
    free["home"] = (4 * 5 + 1) * GIB
    refuse(look(home, swept()))
    free["home"] -= 1
    short = refusal(look(home, swept()))
    assert "21.0 GiB needed (trainings 21.0 GiB)" in short.fact
    assert short.choices == ("training.keep_checkpoints=1 training.best_by=off",)
    free["home"] = (4 * 3 + 1) * GIB - 1
    assert refusal(look(home, swept())).choices == ()
    chained = Trainings.chain(LossTerms(), CaptionSource(), SAVING, FineTuning(steps=100))
    assert look(home, chained).disks[0].needed == (2 * 5 + 1) * GIB


def test_a_download_is_held_against_the_disk_that_it_goes_to(
    home: Home, estimated: dict[str, Estimate], free: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelChoice(source="somebody/some-model")
    monkeypatch.setattr(looking, "download_bytes", lambda choice, home: 200 * GIB)
    free |= {"home": 6 * GIB, "hub": 200 * GIB}
    one = Trainings.chain(LossTerms(), CaptionSource(), SAVING, FineTuning())
    refuse(look(home, one, model))
    free["hub"] = 100 * GIB
    short = refusal(look(home, one, model))
    assert (short.field, short.choices) == ("model.source", ())
    assert "at hub: 200.0 GiB needed (download 200.0 GiB), 100.0 GiB free" in short.fact
    assert "HF_HOME for downloads" in short.remedy
    monkeypatch.setattr(looking, "hub_cache", lambda home: home.cache / "hub")
    free["home"] = 205 * GIB
    assert "206.0 GiB needed (trainings 6.0 GiB, download 200.0 GiB)" in refusal(look(home, one, model)).fact


def test_features_that_are_insisted_on_are_counted_once(
    home: Home, estimated: dict[str, Estimate], free: dict[str, int]
) -> None:
    need = NEED.model_copy(update={"features": 40 * GIB})
    estimated["estimate"] = FITS.model_copy(update={"need": need})
    free["home"] = 60 * GIB
    short = refusal(look(home, swept()))
    assert "61.0 GiB needed (trainings 21.0 GiB, frozen features 40.0 GiB)" in short.fact
    assert short.choices == ("training.feature_cache=auto",)


def test_what_is_done_and_what_is_begun_needs_less(
    home: Home, estimated: dict[str, Estimate], free: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from reca_core.contracts.records import CheckpointRef, PreparedData, TrainResult
    from tasks.models import resolve_model
    from tasks.plan import train_request

    data = PreparedData(digest="d", directory="/d", pictures=1, quarantined=0)
    monkeypatch.setattr(looking, "prepared", lambda home, images: data)
    asked = swept()
    model = resolve_model(ModelChoice())
    requests = [train_request(home, model, data, one.losses, one.captions, one.training) for one in asked.planned[:2]]
    first, second = (RunDirectory(Path(request.run_directory)) for request in requests)
    first.final.mkdir(parents=True)
    result = TrainResult(
        checkpoint=CheckpointRef(path=str(first.final), step=100, sha256="s"),
        steps=100,
        seconds=1.0,
        resumed_from_step=0,
        first_losses={},
        last_losses={},
        trained_tensors=1,
        idle_tensors=[],
        warnings=[],
    )
    first.done.write_text(result.model_dump_json())
    second.checkpoints.mkdir(parents=True)
    with (second.checkpoints / "half").open("wb") as file:
        file.truncate(GIB)
    found = look(home, asked)
    assert [stage.trainings for stage in found.stages] == [1, 2]
    assert found.disks[0].needed == (3 * 5 + 1 - 1) * GIB
    done = Trainings(asked.planned[:1])
    assert lines(look(home, done)) == ["every training is done already"]

"""Whether features are kept, and why: what `auto` weighs, what `on` refuses, and what makes a feature another one."""

from __future__ import annotations

import dataclasses
import logging
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from reca_core.contracts.errors import BadInput
from reca_core.contracts.records import ManifestRow
from reca_core.contracts.requests import TrainingPlan, TrainRequest
from reca_core.data.feature_store import FeatureStore
from reca_core.data.manifest import read_manifest
from reca_core.models.harmon.adapter import Harmon
from reca_core.models.unified import ReusesFeatures, UnifiedModel
from reca_core.training import feature_choice, setup
from reca_core.training.feature_choice import Choice, Outlook, choose, judged, key_of, open_features, place_of
from reca_core.training.features import TARGET, UNDERSTANDING
from reca_core.training.optimizer import set_trainable
from tests.reca_core.training_rig import ALONE, ONE_PROCESS, plan, request

GB = 10**9
Disk = namedtuple("Disk", ("total", "used", "free"))


@dataclasses.dataclass
class Place:
    """One model and one data set, for many requests."""

    root: Path
    adapter: UnifiedModel
    base: setup.Base
    rows: Sequence[ManifestRow]

    def asked(self, choice: str, **settings: Any) -> TrainRequest:
        asked = request(self.root, "run", ALONE, feature_cache=choice, **settings)
        return asked.model_copy(update={"feature_directory": str(self.root / "features")})

    def choose(self, asked: TrainRequest, done: int = 0) -> Choice:
        return choose(asked, self.adapter, self.base, self.rows, done, ONE_PROCESS)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    asked = request(tmp_path)
    adapter = setup.load_model(asked, ONE_PROCESS)
    base = setup.base_digests(adapter.network, ONE_PROCESS)
    return Place(tmp_path, adapter, base, read_manifest(Path(asked.data.directory)))


def outlook(**numbers: Any) -> Outlook:
    return Outlook(**{"pictures": 1000, "looks": 5.0, "known": 0.0, "bytes": 2 * GB, "free": 100 * GB, **numbers})


@pytest.mark.parametrize(
    ("choice", "numbers", "kept", "reason"),
    [
        ("auto", {}, True, "5.0 looks at each of 1,000 pictures are to come; 2.0 GB to write, 100.0 GB free"),
        ("auto", {"looks": 1.9}, False, "1.9 looks at each of 1,000 pictures are to come, which pays from 2 on"),
        ("auto", {"looks": 1.9, "known": 0.1}, True, "1.9 looks at each of 1,000 pictures are to come; 2.0 GB"),
        ("auto", {"looks": 1.8, "known": 0.1}, False, "which pays from 2 on, and 10% are known"),
        ("auto", {"looks": 0.1, "known": 0.5}, True, "50% of the pictures are known already"),
        ("auto", {"looks": 0.1, "known": 0.4}, False, "40% are known"),
        ("auto", {"bytes": 51 * GB}, False, "they would take 51.0 GB, more than 50% of the 100.0 GB that stay free"),
        (
            "auto",
            {"bytes": 49 * GB, "reserved": 75 * GB},
            False,
            "50% of the 25.0 GB that stay free (100.0 GB free, 75.0",
        ),
        ("auto", {"bytes": 12 * GB, "reserved": 75 * GB}, True, "75.0 GB of it for checkpoints and the finished model"),
        ("auto", {"bytes": 1, "reserved": 101 * GB}, False, "of the 0.0 MB that stay free"),
        ("on", {"bytes": 51 * GB, "looks": 0.1}, True, "as asked for"),
        ("on", {"bytes": 23 * GB, "reserved": 75 * GB}, False, "more than 90% of the 25.0 GB that stay free"),
        ("on", {"bytes": 91 * GB}, False, "more than 90% of the 100.0 GB"),
    ],
)
def test_looks_knowledge_and_room_decide(choice: Any, numbers: dict[str, Any], kept: bool, reason: str) -> None:
    decision, why = judged(TrainingPlan(feature_cache=choice), outlook(**numbers))
    assert decision == kept
    assert reason in why


def test_auto_reckons_with_the_steps_that_are_left_and_with_what_is_there(place: Place) -> None:
    six = place.asked("auto", steps=6)  # of 4 pictures, over 12: two looks
    kept = place.choose(six)
    assert set(kept.keys) == {UNDERSTANDING, TARGET}
    assert kept.why.startswith("kept of target and understanding: 2.0 looks at each of 12 pictures are to come")
    late = place.choose(six, done=1)
    assert not late.keys
    assert late.why.startswith("not kept: 1.7 looks at each of 12 pictures are to come, which pays from 2 on")
    parts = place.adapter.frozen_parts() if isinstance(place.adapter, ReusesFeatures) else None
    assert parts is not None
    images = place.adapter.prepare([feature_choice.load_verified(row) for row in place.rows[:9]])
    for part, key in ((parts.understanding, kept.keys[UNDERSTANDING]), (parts.target, kept.keys[TARGET])):
        store = FeatureStore(place_of(six, key), key)
        store.keep([row.sha256 for row in place.rows[:9]], part.encode(images))
        store.close()
    assert "75% of the pictures are known already" in place.choose(six, done=5).why


def test_the_reason_stands_in_the_log(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for choice in ("off", "auto"):
            asked = place.asked(choice, steps=1)
            assert open_features(asked, place.adapter, place.base, place.rows, 0, ONE_PROCESS) is None
    assert "frozen features: off, as asked for" in caplog.text
    assert "frozen features: not kept: 0.3 looks at each of 12 pictures are to come" in caplog.text
    assert not (place.root / "features").exists()


class WithoutFrozenParts:
    family = "plain"


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("the request names no folder for them", {"feature_directory": ""}),
        ("the stage 'tokenizer' learns from pixels", {"training": plan(stage="tokenizer", feature_cache="on")}),
        ("the stage 'decoder' learns from pixels", {"training": plan(stage="decoder", feature_cache="on")}),
        ("only reconstruction looks at .* never repeat", {"losses": ALONE.model_copy(update={"reconstruction": 0})}),
    ],
)
def test_on_is_refused_with_the_reason_and_auto_does_without(place: Place, reason: str, change: dict[str, Any]) -> None:
    asked = place.asked("on").model_copy(update=change)
    with pytest.raises(BadInput, match=rf"(?s)training.feature_cache: features cannot be kept: {reason}.*auto, off"):
        place.choose(asked)
    relaxed = asked.training.model_copy(update={"feature_cache": "auto"})
    assert place.choose(asked.model_copy(update={"training": relaxed})).why.startswith("not kept: ")


def test_on_is_refused_where_nothing_is_frozen(place: Place) -> None:
    for parameter in place.adapter.network.parameters():
        parameter.requires_grad_(True)
    with pytest.raises(BadInput, match=r"stage post trains everything that they are computed with \(target, under"):
        place.choose(place.asked("on"))
    place.adapter = WithoutFrozenParts()  # type: ignore[assignment]
    with pytest.raises(BadInput, match="the family plain declares no frozen part"):
        place.choose(place.asked("on"))


def test_on_is_refused_where_the_disk_is_too_full(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_choice.disks.shutil, "disk_usage", lambda _: Disk(GB, GB - 5000, 5000))
    with pytest.raises(BadInput, match=r"they would take 0\.0 MB, more than 90% of the 0\.0 MB"):
        place.choose(place.asked("on"))


def test_checkpoints_and_the_result_have_their_room_first(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = place.asked(
        "auto", steps=6, checkpoint_every_steps=2, keep_checkpoints=1
    )  # at once 3, the best and a new one
    parameters = list(place.adapter.network.parameters())
    trained = sum(parameter.nbytes for parameter in parameters if parameter.requires_grad)
    weights = sum(tensor.nbytes for tensor in (*parameters, *place.adapter.network.buffers()))
    needed = 3 * 3 * trained + weights
    assert feature_choice.reserved_bytes(asked, place.adapter.network) == needed
    folder = Path(asked.run_directory) / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "step").write_bytes(bytes(trained))
    assert feature_choice.reserved_bytes(asked, place.adapter.network) == needed - trained
    monkeypatch.setattr(feature_choice.disks.shutil, "disk_usage", lambda _: Disk(GB, 0, needed - trained))
    assert "of the 0.0 MB that stay free" in place.choose(asked).why
    monkeypatch.setattr(feature_choice.disks, "number", lambda path: int(path.name == "features"))
    assert feature_choice.reserved_bytes(asked, place.adapter.network) == 0
    assert place.choose(asked).keys


def test_a_stage_that_trains_the_encoder_keeps_targets_and_says_so(place: Place) -> None:
    set_trainable(place.adapter.network, place.adapter.trainable_names("base"))
    found = place.choose(place.asked("on", stage="base"))
    assert set(found.keys) == {TARGET}
    assert found.why.endswith("; understanding learns in this stage and is computed anew")


def test_a_feature_is_another_one_with_other_weights_settings_or_precision(place: Place) -> None:
    assert isinstance(place.adapter, ReusesFeatures)
    part, asked = place.adapter.frozen_parts().understanding, place.asked("on")

    def name(changed: TrainRequest = asked, other: Any = part, base: setup.Base = place.base) -> str:
        return place_of(changed, key_of(changed, UNDERSTANDING, other, base, ONE_PROCESS)).name

    usual = name()
    assert name(place.asked("auto", seed=5, learning_rate=1e-4, steps=99, images_per_step=2)) == usual
    for tensor, same in (("model.vision_model.embeddings.patch_embedding.weight", False), ("lm_head.weight", True)):
        base = setup.Base({**place.base.frozen, tensor: "another"}, place.base.trained)
        assert (name(base=base) == usual) == same
    assert name(other=dataclasses.replace(part, settings=part.settings + " ")) != usual
    assert name(place.asked("on", precision="bfloat16")) != usual
    assert name(asked.model_copy(update={"numerics_version": 2})) != usual
    assert name(asked.model_copy(update={"model": asked.model.model_copy(update={"family": "showo"})})) != usual


def test_another_look_at_the_picture_is_another_feature() -> None:
    usual = Harmon.smallest()
    coarser = usual.following(plan(understanding_downscale=2))
    assert coarser.frozen_parts().understanding.settings != usual.frozen_parts().understanding.settings
    assert usual.following(plan()).frozen_parts().understanding.settings == usual.frozen_parts().understanding.settings

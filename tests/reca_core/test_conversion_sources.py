"""What a person may call a checkpoint: trained weights over a base, averages, DeepSpeed directories, runs; refusals.

Harmon stands for all families here: its authors use every one of these forms. Both layouts of every family are in
test_conversion.py.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import types
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from reca_core.contracts.errors import BadInput, CheckpointRefused, PrerequisiteMissing
from reca_core.conversion import run as conversion_run
from reca_core.models.bagel.adapter import Bagel
from reca_core.models.harmon.adapter import STAGES, Harmon
from reca_core.models.load import adapter_class
from reca_core.models.published import SMALL_SUFFIXES
from reca_core.models.zero import read_zero
from tests.reca_core.deepspeed_files import write_zero
from tests.reca_core.test_conversion import CONVERTED, held, read, replace, run, same, tensors, weights_files

WEIGHTS = "harmon.pth"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in both layouts, and the same model with every trainable parameter moved, in ours."""
    place = tmp_path_factory.mktemp("harmon")
    model = Harmon.smallest(seed=0)
    model.save(place / "base")
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if name in model.trainable_names("post"):
                parameter.add_(0.5)
    model.save(place / "trained")
    assert run("harmon", place / "base", place / "theirs", "upstream").written
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


def moved(made: Path) -> dict[str, Tensor]:
    """What upstream's training saves: all but the autoencoder, moved."""
    whole = read(made / "theirs" / WEIGHTS)
    return {name: tensor if name.startswith(STAGES["post"]) else tensor + 0.5 for name, tensor in whole.items()}


# ---- trained weights and their base ----------------------------------------------------------------------------


def test_a_trained_model_is_exported_in_the_files_of_its_base(made: Path, tmp_path: Path) -> None:
    report = run("harmon", made / "trained", tmp_path / "out", "upstream", made / "theirs")
    assert (report.written, report.unchanged) == (True, [])
    assert same(read(tmp_path / "out" / WEIGHTS), moved(made))
    assert same(read(tmp_path / "out" / "kl16.ckpt"), read(made / "theirs" / "kl16.ckpt"))


def test_an_untouched_model_is_refused_and_every_equal_tensor_named(made: Path, tmp_path: Path) -> None:
    report = run("harmon", made / "base", tmp_path / "out", "upstream", made / "theirs")
    assert "equal the base" in report.refusal
    names = {name for name in held(made / "base") if not name.startswith(STAGES["post"])}
    assert set(report.unchanged) == names
    assert not (tmp_path / "out").exists()


def test_one_trained_tensor_that_equals_the_base_is_enough_unless_its_run_says_it_was_idle(
    place: Path, tmp_path: Path
) -> None:
    state, name = held(place / "trained"), "mar.mask_token"
    state[name] = held(place / "base")[name]
    save_file(state, place / "trained" / "model.safetensors", metadata={"format": "pt"})
    report = run("harmon", place / "trained", tmp_path / "out", "upstream", place / "theirs")
    assert report.unchanged == [name]
    assert name in report.refusal
    (place / "final").mkdir()
    (place / "trained").rename(place / "final" / "final")
    (place / "final" / "DONE.json").write_text(json.dumps({"idle_tensors": [name]}))
    report = run("harmon", place / "final", tmp_path / "out", "upstream", place / "theirs")
    assert (report.written, report.unchanged) == (True, [name])


@pytest.mark.parametrize("base", ["base", "theirs"])
def test_bare_trained_weights_are_completed_from_a_base_in_either_layout(made: Path, tmp_path: Path, base: str) -> None:
    torch.save(moved(made), tmp_path / "iter_5000.pth")
    report = run("harmon", tmp_path / "iter_5000.pth", tmp_path / "out", "reca", made / base)
    assert (report.written, report.unchanged) == (True, [])
    assert same(held(tmp_path / "out"), held(made / "trained"))
    assert Harmon.load(tmp_path / "out").templates == Harmon.load(made / "base").templates


def test_weights_that_lack_trained_tensors_are_not_published_with_those_of_the_base(made: Path, tmp_path: Path) -> None:
    kept = {name: tensor for name, tensor in moved(made).items() if not name.startswith("proj_out.")}
    torch.save(kept, tmp_path / "iter_5000.pth")
    report = run("harmon", tmp_path / "iter_5000.pth", tmp_path / "out", "upstream", made / "theirs")
    assert set(report.unchanged) == {name for name in moved(made) if name.startswith("proj_out.")}
    assert report.refusal


def test_weights_of_another_model_over_a_base_are_unexpected(made: Path, tmp_path: Path) -> None:
    torch.save({"decoder.layers.0.weight": torch.ones(2)}, tmp_path / "other.pth")
    report = run("harmon", tmp_path / "other.pth", tmp_path / "out", "reca", made / "theirs")
    assert report.unexpected == ["decoder.layers.0.weight"]
    assert not report.written


def test_bare_weights_without_a_base_say_what_is_missing(made: Path, tmp_path: Path) -> None:
    torch.save(moved(made), tmp_path / "iter_5000.pth")
    with pytest.raises(PrerequisiteMissing, match="--base"):
        run("harmon", tmp_path / "iter_5000.pth", tmp_path / "out", "reca")


def test_of_several_models_beside_one_autoencoder_the_named_one_is_read(place: Path, tmp_path: Path) -> None:
    torch.save(moved(place), place / "theirs" / "other.pth")
    with pytest.raises(CheckpointRefused, match="other"):
        run("harmon", place / "theirs", tmp_path / "out", "reca")
    assert run("harmon", place / "theirs" / "other.pth", tmp_path / "out", "reca").written
    assert same(held(tmp_path / "out"), held(place / "trained"))


# ---- frameworks' forms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ["state_dict", "module"])
def test_wrapped_weights_are_unwrapped_and_averages_only_on_request(made: Path, tmp_path: Path, entry: str) -> None:
    average = {name: tensor + 7 for name, tensor in moved(made).items()}
    torch.save({entry: moved(made), "ema_state_dict": average, "meta": {"iter": 3}}, tmp_path / "iter_3.pth")
    assert run("harmon", tmp_path / "iter_3.pth", tmp_path / "out", "reca", made / "theirs").written
    assert same(held(tmp_path / "out"), held(made / "trained"))
    assert run("harmon", tmp_path / "iter_3.pth", tmp_path / "ema", "reca", made / "theirs", weights="ema").written
    name = "proj_in.0.bias"
    assert torch.equal(held(tmp_path / "ema")[name], average[name])


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_float32_masters_of_every_zero_stage_are_put_together(made: Path, tmp_path: Path, stage: int) -> None:
    directory = write_zero(tmp_path / "iter_5000.pth", moved(made), stage)
    assert same(read_zero(directory), moved(made))
    assert run("harmon", directory, tmp_path / "out", "reca", made / "theirs").written
    assert same(held(tmp_path / "out"), held(made / "trained"))


def test_a_zero_directory_without_masters_gives_its_half_precision_weights(made: Path, tmp_path: Path) -> None:
    directory = write_zero(tmp_path / "iter_5000.pth", moved(made), stage=2)
    for file in (directory / "global_step9").glob("*optim_states.pt"):
        file.unlink()
    assert same(read_zero(directory), {name: tensor.bfloat16() for name, tensor in moved(made).items()})


@pytest.mark.parametrize("stage", [2, 3])
def test_a_zero_directory_that_lacks_a_rank_is_refused(made: Path, tmp_path: Path, stage: int) -> None:
    directory = write_zero(tmp_path / "iter_5000.pth", moved(made), stage)
    (directory / "global_step9" / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(CheckpointRefused, match="1 of 2 ranks"):
        read_zero(directory)


def test_sharded_pickles_are_read_and_written_with_their_index(place: Path, tmp_path: Path) -> None:
    model = adapter_class("showo").smallest(seed=0)
    model.save(tmp_path / "ours")
    assert run("showo", tmp_path / "ours", tmp_path / "theirs", "upstream").written
    whole = read(tmp_path / "theirs" / "pytorch_model.bin")
    (tmp_path / "theirs" / "pytorch_model.bin").unlink()
    names = sorted(whole)
    shards = {"pytorch_model-1-of-2.bin": names[:9], "pytorch_model-2-of-2.bin": names[9:]}
    for file, part in shards.items():
        torch.save({name: whole[name] for name in part}, tmp_path / "theirs" / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (tmp_path / "theirs" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert run("showo", tmp_path / "theirs", tmp_path / "again", "reca").written
    assert same(held(tmp_path / "again"), held(tmp_path / "ours"))
    assert run("showo", tmp_path / "again", tmp_path / "back", "upstream").written
    assert same(read(tmp_path / "back" / "pytorch_model.bin"), whole)


# ---- runs of ours ----------------------------------------------------------------------------------------------


def test_a_run_gives_its_final_model_and_its_average_only_on_request(place: Path, tmp_path: Path) -> None:
    run_directory = tmp_path / "run"
    shutil.copytree(place / "trained", run_directory / "final")
    shutil.copytree(place / "base", run_directory / "final-average")
    assert run("harmon", run_directory, tmp_path / "model", "reca").written
    assert same(held(tmp_path / "model"), held(place / "trained"))
    assert run("harmon", run_directory, tmp_path / "average", "reca", weights="ema").written
    assert same(held(tmp_path / "average"), held(place / "base"))
    with pytest.raises(CheckpointRefused, match="--weights ema"):
        run("harmon", run_directory / "final-average", tmp_path / "out", "upstream")


def test_a_training_checkpoint_is_completed_from_its_base(made: Path, tmp_path: Path) -> None:
    step = tmp_path / "step-00000050"
    step.mkdir()
    trained = {n: t for n, t in held(made / "trained").items() if not n.startswith(STAGES["post"])}
    save_file(trained, step / "weights.safetensors")
    save_file({name: tensor + 3 for name, tensor in trained.items()}, step / "average.safetensors")
    (step / "state.json").write_text("{}")
    with pytest.raises(PrerequisiteMissing, match="--base"):
        run("harmon", step, tmp_path / "out", "reca")
    assert run("harmon", step, tmp_path / "out", "upstream", made / "theirs").written
    assert same(read(tmp_path / "out" / WEIGHTS), moved(made))
    assert run("harmon", step, tmp_path / "ema", "reca", made / "base", weights="ema").written
    assert torch.equal(held(tmp_path / "ema")["proj_in.0.bias"], trained["proj_in.0.bias"] + 3)


# ---- BAGEL's average -------------------------------------------------------------------------------------------


def test_bagel_s_average_is_never_taken_for_the_trained_model(tmp_path: Path) -> None:
    Bagel.smallest(seed=0).save(tmp_path / "ours")
    base = tmp_path / "base"
    assert run("bagel", tmp_path / "ours", base, "upstream").written
    (base / "model.safetensors").rename(base / "ema.safetensors")  # the published base has no other name
    report = run("bagel", base, tmp_path / "taken", "reca")
    assert report.written
    assert "ema.safetensors is taken" in report.notes[0]
    trained = tmp_path / "trained"
    trained.mkdir()
    state = {name: tensor + 0.5 for name, tensor in read(base / "ema.safetensors").items()}
    save_file({name: tensor + 1 for name, tensor in state.items()}, trained / "ema.safetensors")
    with pytest.raises((CheckpointRefused, PrerequisiteMissing), match="--weights ema"):
        run("bagel", trained, tmp_path / "out", "upstream", base)
    save_file(state, trained / "model.safetensors")
    assert run("bagel", trained, tmp_path / "out", "reca", base).written
    name = "llm2vae.weight"
    assert torch.equal(held(tmp_path / "out")[name], state[name])
    assert run("bagel", trained, tmp_path / "ema", "reca", base, weights="ema").written
    assert torch.equal(held(tmp_path / "ema")[name], state[name] + 1)


# ---- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", CONVERTED)
def test_another_family_is_refused(family: str, made: Path, tmp_path: Path) -> None:
    if family == "harmon":
        (made.parent / "nothing").mkdir(exist_ok=True)
        with pytest.raises((BadInput, CheckpointRefused, PrerequisiteMissing)):
            run(family, made.parent / "nothing", tmp_path / "out", "reca")
        return
    with pytest.raises(CheckpointRefused, match="harmon"):
        run(family, made / "base", tmp_path / "out", "upstream")
    with pytest.raises((CheckpointRefused, PrerequisiteMissing)):
        run(family, made / "theirs", tmp_path / "out", "reca")
    assert not (tmp_path / "out").exists()


def test_a_truncated_file_is_refused_by_its_name(place: Path, tmp_path: Path) -> None:
    for file in (place / "theirs" / WEIGHTS, place / "theirs" / "kl16.ckpt", place / "base" / "model.safetensors"):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointRefused, match=file.name):
            run("harmon", file.parent, tmp_path / "out", "reca")
        file.write_bytes(whole)
    assert not (tmp_path / "out").exists()


def test_a_full_or_failing_disk_leaves_nothing(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(conversion_run.common, "write_weights", full)
    with pytest.raises(OSError, match="no space"):
        run("harmon", made / "theirs", tmp_path / "out", "reca")
    assert not list(tmp_path.iterdir())


def test_a_target_that_is_there_is_not_touched(made: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="there already"):
        run("harmon", made / "theirs", tmp_path / "out", "reca")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


# ---- pickles that want to run code -----------------------------------------------------------------------------


class Attack:
    """Unpickling this would create a folder."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("family", CONVERTED)
def test_no_pickle_of_any_family_runs_code(family: str, tmp_path: Path) -> None:
    adapter_class(family).smallest(seed=0).save(tmp_path / "ours")
    assert run(family, tmp_path / "ours", tmp_path / "theirs", "upstream").written
    pickles = [path for path in weights_files(tmp_path / "theirs") if path.suffix != ".safetensors"]
    assert pickles or family == "bagel"
    for number, file in enumerate(pickles):
        whole = read(file)
        torch.save({"model": {**whole, "odd": Attack(tmp_path / "ran")}}, file)
        with pytest.raises(CheckpointRefused, match="run code"):
            run(family, tmp_path / "theirs", tmp_path / f"out{number}", "reca")
        replace(file, whole)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["mp_rank_00_model_states.pt", "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"])
def test_no_file_of_a_zero_directory_runs_code(made: Path, tmp_path: Path, file: str) -> None:
    directory = write_zero(tmp_path / "iter_5000.pth", moved(made), stage=2)
    torch.save({"module": {}, "optimizer_state_dict": Attack(tmp_path / "ran")}, directory / "global_step9" / file)
    with pytest.raises(CheckpointRefused, match="run code"):
        read_zero(directory)
    assert not (tmp_path / "ran").exists()


def test_what_frameworks_log_beside_the_weights_is_passed_over(made: Path, tmp_path: Path) -> None:
    """mmengine's log buffers are named in such files; it is not installed here, so the writer gets a stand-in."""
    buffers = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self) -> None:
            self.values = numpy.arange(3.0)

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = buffers.__name__, "HistoryBuffer"
    buffers.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    sys.modules[buffers.__name__] = buffers
    for parent in ("mmengine", "mmengine.logging"):
        sys.modules.setdefault(parent, types.ModuleType(parent))
    try:
        torch.save({"state_dict": moved(made), "message_hub": {"log": HistoryBuffer()}}, tmp_path / "iter_3.pth")
    finally:
        for name in ("mmengine.logging.history_buffer", "mmengine.logging", "mmengine"):
            del sys.modules[name]
    assert run("harmon", tmp_path / "iter_3.pth", tmp_path / "out", "reca", made / "theirs").written
    assert same(held(tmp_path / "out"), held(made / "trained"))


def test_our_directory_remembers_small_files_only(made: Path, tmp_path: Path) -> None:
    assert run("harmon", made / "theirs", tmp_path / "ours", "reca").written
    kept = [path for path in (tmp_path / "ours" / "upstream" / "files").rglob("*") if path.is_file()]
    assert kept
    assert {path.suffix for path in kept} <= set(SMALL_SUFFIXES)
    assert tensors(tmp_path / "ours").keys() == {f"model.safetensors:{name}" for name in held(tmp_path / "ours")}


def test_an_untouched_model_in_half_precision_is_untouched_and_a_small_step_from_half_is_one(
    made: Path, tmp_path: Path
) -> None:
    state = {name: tensor.bfloat16() for name, tensor in held(made / "base").items()}
    shutil.copytree(made / "base", tmp_path / "half")
    save_file(state, tmp_path / "half" / "model.safetensors", metadata={"format": "pt"})
    report = run("harmon", tmp_path / "half", tmp_path / "out", "upstream", made / "theirs")
    assert "equal the base" in report.refusal
    stepped = {name: tensor.float() * (1 + 1e-4) + 1e-9 for name, tensor in state.items()}
    shutil.copytree(made / "base", tmp_path / "stepped")
    save_file(stepped, tmp_path / "stepped" / "model.safetensors", metadata={"format": "pt"})
    report = run("harmon", tmp_path / "stepped", tmp_path / "moved", "upstream", tmp_path / "half")
    assert (report.written, report.unchanged) == (True, [])


def test_the_card_of_a_trained_model_goes_with_it(place: Path, tmp_path: Path) -> None:
    (place / "trained" / "README.md").write_text("# Checkpoint")
    assert run("harmon", place / "trained", tmp_path / "out", "upstream", place / "theirs").written
    assert (tmp_path / "out" / "README.md").read_text() == "# Checkpoint"
    assert run("harmon", place / "trained", tmp_path / "again", "reca", place / "theirs").written
    assert (tmp_path / "again" / "README.md").read_text() == "# Checkpoint"


def test_what_was_trained_with_a_published_slip_is_said_where_it_leaves(tmp_path: Path, place: Path) -> None:
    """BAGEL's slip is that ``final`` holds the moving average: nobody should export that unawares."""
    card = place / "trained" / "README.md"
    card.write_text("# Checkpoint\n\n- stage: reca\n- upstream parity: yes: the average was exported\n")
    report = run("harmon", place / "trained", tmp_path / "out", "upstream", place / "theirs")
    assert report.notes == ["trained with upstream_parity: the average was exported"]
    card.write_text("# Checkpoint\n\n- stage: reca\n- upstream parity: no: the correct behaviour\n")
    assert run("harmon", place / "trained", tmp_path / "again", "upstream", place / "theirs").notes == []

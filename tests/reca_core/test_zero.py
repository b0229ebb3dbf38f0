"""DeepSpeed directories that are not what they should be: refused with the file or the parameter, never half-read.

What whole ones give is in test_conversion_sources.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reca_core.contracts.errors import CheckpointRefused
from reca_core.models.zero import is_zero, read_zero
from tests.reca_core.deepspeed_files import STEP, write_zero

WEIGHTS = {"wide": torch.arange(15.0).view(5, 3), "one": torch.tensor(2.0)}
FROZEN = {"still": torch.arange(4.0)}
Change = Callable[[dict[str, Any]], object]
GROUPS = {2: "single_partition_of_fp32_groups", 3: "fp32_flat_groups"}
stages = pytest.mark.parametrize("stage", [2, 3])


def written(directory: Path, stage: int) -> Path:
    """A whole directory with a frozen parameter; returns the folder of its files."""
    place = write_zero(directory, WEIGHTS, stage) / STEP
    for rank, file in enumerate(sorted(place.glob("*model_states.pt"))):
        held = FROZEN["still"].chunk(2)[rank].clone() if stage == 3 else FROZEN["still"]
        shapes = {name: tensor.shape for name, tensor in FROZEN.items()}
        change(
            file,
            lambda saved, h=held, s=shapes: saved.update(frozen_param_shapes=s, frozen_param_fragments={"still": h}),
        )
    return place


def change(file: Path, how: Change) -> None:
    """Read, change, write."""
    saved = torch.load(file, weights_only=False)
    how(saved)
    torch.save(saved, file)


def optimizer(how: Change) -> Change:
    return lambda saved: how(saved["optimizer_state_dict"])


def of_groups(how: Callable[[list[Tensor]], object]) -> Change:
    def changed(saved: dict[str, Any]) -> object:
        state = saved["optimizer_state_dict"]
        return how(state[GROUPS[state["zero_stage"]]])

    return changed


def put(groups: list[Tensor], how: Callable[[Tensor], Tensor]) -> None:
    groups[0] = how(groups[0])


OPTIMIZER: dict[str, Change] = {
    "no groups": of_groups(lambda groups: groups.clear()),
    "a short group": of_groups(lambda groups: put(groups, lambda vector: vector[:2].clone())),
    "a group of rows": of_groups(lambda groups: put(groups, lambda vector: vector[None])),
    "no state": lambda saved: saved.pop("optimizer_state_dict"),
    "a list of states": lambda saved: saved.update(optimizer_state_dict=[1]),
    "no entry": optimizer(lambda state: [state.pop(entry, None) for entry in GROUPS.values()]),
    "a word for a count": optimizer(lambda state: state.update(partition_count="x")),
    "counts that differ": optimizer(lambda state: state.update(partition_count=[2, 3])),
    "no count": optimizer(lambda state: state.pop("partition_count")),
    "a word for a stage": optimizer(lambda state: state.update(zero_stage="two")),
    "an unknown stage": optimizer(lambda state: state.update(zero_stage=4)),
}
MODEL: dict[str, Change] = {
    "no shapes": lambda saved: saved.pop("param_shapes"),
    "shapes of one group": lambda saved: saved.update(param_shapes=saved["param_shapes"][0]),
    "no fragments": lambda saved: saved.pop("frozen_param_fragments"),
    "a short fragment": lambda saved: saved.update(frozen_param_fragments={"still": torch.zeros(1)}),
}


@stages
def test_a_whole_directory_is_read(tmp_path: Path, stage: int) -> None:
    written(tmp_path, stage)
    found = read_zero(tmp_path)
    assert found.keys() == WEIGHTS.keys() | FROZEN.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in {**WEIGHTS, **FROZEN}.items())


@stages
@pytest.mark.parametrize("damage", OPTIMIZER)
def test_a_damaged_optimizer_file_is_refused(tmp_path: Path, stage: int, damage: str) -> None:
    for file in written(tmp_path, stage).glob("*optim_states.pt"):
        change(file, OPTIMIZER[damage])
    with pytest.raises(CheckpointRefused, match=STEP):
        read_zero(tmp_path)


@stages
@pytest.mark.parametrize("damage", MODEL)
def test_a_damaged_model_file_is_refused(tmp_path: Path, stage: int, damage: str) -> None:
    for file in written(tmp_path, stage).glob("*model_states.pt"):
        change(file, MODEL[damage])
    with pytest.raises(CheckpointRefused, match=STEP):
        read_zero(tmp_path)


@stages
def test_ranks_of_different_stages_are_refused(tmp_path: Path, stage: int) -> None:
    file = sorted(written(tmp_path, stage).glob("*optim_states.pt"))[1]
    change(file, optimizer(lambda state: state.update(zero_stage=1)))
    with pytest.raises(CheckpointRefused, match=f"stage {stage}, 1"):
        read_zero(tmp_path)


@stages
def test_a_rank_of_another_number_is_no_substitute(tmp_path: Path, stage: int) -> None:
    for file in written(tmp_path, stage).glob("*zero_pp_rank_1_*"):
        file.rename(file.with_name(file.name.replace("rank_1_", "rank_5_")))
    with pytest.raises(CheckpointRefused, match="absent is 1"):
        read_zero(tmp_path)


@pytest.mark.parametrize("kept", ["no file", "no stage"])
def test_sharded_model_files_without_masters_are_refused(tmp_path: Path, kept: str) -> None:
    for file in written(tmp_path, 3).glob("*optim_states.pt"):
        if kept == "no file":
            file.unlink()
        else:
            change(file, optimizer(lambda state: state.pop("zero_stage")))
    with pytest.raises(CheckpointRefused, match="hold no weights"):
        read_zero(tmp_path)


def test_a_model_cut_in_several_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, 2) / "mp_rank_00_model_states.pt"
    (file.parent / "mp_rank_01_model_states.pt").write_bytes(file.read_bytes())
    with pytest.raises(CheckpointRefused, match="cut in several"):
        read_zero(tmp_path)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    written(tmp_path, 2)
    (tmp_path / "latest").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointRefused, match="latest"):
        is_zero(tmp_path)

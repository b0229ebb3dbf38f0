"""Weights out of a DeepSpeed ZeRO directory: what each rank saved, put together to one state dict in float32.

    <directory>/[global_stepN/]mp_rank_00_model_states.pt                       stages 0 to 2: all weights, 16-bit
    <directory>/[global_stepN/]zero_pp_rank_R_mp_rank_00_model_states.pt        stage 3: shapes only
    <directory>/[global_stepN/][bf16_]zero_pp_rank_R_mp_rank_00_optim_states.pt  the float32 masters, one part per rank

``latest`` names the sub-folder where there is one. The masters are preferred: RecA's steps are smaller than the last
bit of a bfloat16 weight. A group of masters is one flat vector: stages 1 and 2 cut it in equal parts, stage 3 cuts
every parameter (DeepSpeed's documentation of its "zero_to_fp32" conversion). Pickles: pickles.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reca_core.contracts.errors import CheckpointRefused
from reca_core.models.pickles import read_pickle, weights_in

LATEST, FORMAT = "latest", "deepspeed"
MODEL_STATES, OPTIMIZER_STATES = "*mp_rank_*_model_states.pt", "*zero_pp_rank_*_optim_states.pt"
RANK = re.compile(r"zero_pp_rank_(\d+)_")
STATE, STAGE, WORLD = "optimizer_state_dict", "zero_stage", "partition_count"
PARTS = {1: "single_partition_of_fp32_groups", 2: "single_partition_of_fp32_groups", 3: "fp32_flat_groups"}
"""ZeRO stage -> entry that holds a rank's part of the masters."""
SHARDED_STAGE = 3


def is_zero(path: Path) -> bool:
    """True for a directory that DeepSpeed wrote."""
    return path.is_dir() and any(_place(path).glob(MODEL_STATES))


def read_zero(directory: Path) -> dict[str, Tensor]:
    """All weights. Raises CheckpointRefused for a rank that is missing or parts that do not add up."""
    place = _place(directory)
    models = [read_pickle(file, FORMAT) for file in _by_rank(place.glob(MODEL_STATES))]
    ranks = [read_pickle(file, FORMAT)[STATE] for file in _by_rank(place.glob(OPTIMIZER_STATES))]
    if not ranks or STAGE not in ranks[0]:
        return weights_in(models[0], place, inside="module")
    stage = int(ranks[0][STAGE])
    if stage not in PARTS:
        raise CheckpointRefused(f"is of ZeRO stage {stage}", field=str(place), choices=tuple(map(str, PARTS)))
    world = _world(ranks[0], place)
    if len(ranks) != world or (stage == SHARDED_STAGE and len(models) != world):
        raise CheckpointRefused(
            f"{len(ranks)} of {world} ranks are here", field=str(place), remedy="copy the directory again, completely"
        )
    masters = _sharded(models, ranks, place) if stage == SHARDED_STAGE else _flat(models[0], ranks, stage, place)
    return _with_the_rest(models, masters, stage)


def _place(directory: Path) -> Path:
    latest = directory / LATEST
    if latest.is_file():
        inside = directory / Path(latest.read_text(encoding="utf-8").strip()).name
        return inside if inside.is_dir() else directory
    return directory


def _by_rank(files: Iterable[Path]) -> list[Path]:
    def rank(file: Path) -> int:
        found = RANK.search(file.name)
        return int(found[1]) if found else 0

    return sorted(files, key=rank)


def _world(state: Mapping[str, Any], place: Path) -> int:
    count = state.get(WORLD)
    counts = {int(each) for each in count} if isinstance(count, (list, tuple)) else {int(count or 0)}
    if counts == {0} or len(counts) != 1:
        raise CheckpointRefused(f"does not say how many ranks saved it ({WORLD}: {count})", field=str(place))
    return counts.pop()


def _flat(model: Mapping[str, Any], ranks: Sequence[Mapping[str, Any]], stage: int, place: Path) -> dict[str, Tensor]:
    """Stages 1 and 2: the ranks' parts of each group one after another, then cut at the parameters' sizes."""
    masters: dict[str, Tensor] = {}
    for group, shapes in enumerate(model["param_shapes"]):
        vector = torch.cat([rank[PARTS[stage]][group] for rank in ranks])
        needed = sum(math.prod(shape) for shape in shapes.values())
        if needed > len(vector):
            raise CheckpointRefused(f"group {group} holds {len(vector)} of {needed} numbers", field=str(place))
        offset = 0
        for name, shape in shapes.items():
            masters[name] = vector[offset : offset + math.prod(shape)].view(shape)
            offset += math.prod(shape)
    return masters


def _sharded(models: Sequence[Mapping[str, Any]], ranks: Sequence[Mapping[str, Any]], place: Path) -> dict[str, Tensor]:
    """Stage 3: every parameter is cut in equal parts, the last one padded; a rank holds its parts in one vector."""
    vectors = [torch.cat(list(rank[PARTS[SHARDED_STAGE]])) for rank in ranks]
    masters: dict[str, Tensor] = {}
    offset = 0
    for shapes in models[0]["param_shapes"]:
        for name, shape in shapes.items():
            part = math.ceil(math.prod(shape) / len(ranks))
            whole = torch.cat([vector[offset : offset + part] for vector in vectors])
            if len(whole) < math.prod(shape):
                raise CheckpointRefused(f"{name} is cut short", field=str(place))
            masters[name] = whole[: math.prod(shape)].view(shape)
            offset += part
    return masters


def _with_the_rest(models: Sequence[Mapping[str, Any]], masters: dict[str, Tensor], stage: int) -> dict[str, Tensor]:
    """Frozen parameters, buffers and second names of shared ones, which no optimizer holds."""
    first = models[0]
    state = dict(masters)
    for name, shape in (first.get("frozen_param_shapes") or {}).items():
        parts = [(model.get("frozen_param_fragments") or {}).get(name) for model in models]
        held = [part.flatten() for part in (parts if stage == SHARDED_STAGE else parts[:1]) if part is not None]
        state[name] = torch.cat(held)[: math.prod(shape)].view(shape)
    module = first.get("module") or {}
    for name in first.get("buffer_names") or ():
        if name in module:
            state[name] = module[name]
    shared = first.get("shared_params") or {}
    pairs = shared.items() if isinstance(shared, Mapping) else shared
    state |= {name: state[source] for name, source in pairs if source in state and name not in state}
    if stage != SHARDED_STAGE:  # what a name list leaves out is still in the 16-bit copy
        state |= {name: tensor for name, tensor in module.items() if name not in state and isinstance(tensor, Tensor)}
    return state

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
    """All weights. Raises CheckpointRefused for a rank that is missing, parts that do not add up or damaged files."""
    place = _place(directory)
    files = _by_rank(place.glob(MODEL_STATES))
    models = [_object(read_pickle(file, FORMAT), file) for file in files]
    ranks = _by_rank(place.glob(OPTIMIZER_STATES))
    states = [_object(_object(read_pickle(file, FORMAT), file).get(STATE), file, STATE) for file in ranks]
    sharded = RANK.search(files[0].name) is not None
    if not sharded and len(files) > 1:
        raise CheckpointRefused("holds a model cut in several", field=str(place), choices=tuple(f.name for f in files))
    if not any(STAGE in state for state in states):
        if sharded:
            raise CheckpointRefused(
                "these model files hold no weights: of ZeRO 3 they are in the optimizer's files, which are not here",
                field=str(place),
                remedy="copy the directory again, completely",
            )
        return weights_in(models[0], place, inside="module")
    stage = _stage(states, place)
    world = _world(states[0], place)
    for kind, found in (("optimizer", ranks), ("model", files if stage == SHARDED_STAGE else [])):
        absent = sorted(set(range(world)) - set(map(_rank, found))) if found else []
        if absent or len(found) not in (0, world):
            raise CheckpointRefused(
                f"{len(found)} of {world} ranks have a file of the {kind} here"
                + (f"; absent is {', '.join(map(str, absent))}" if absent else ""),
                field=str(place),
                remedy="copy the directory again, completely",
            )
    groups = [_groups(state, PARTS[stage], file) for state, file in zip(states, ranks, strict=True)]
    shapes = _shapes(models[0], files[0])
    masters = _sharded(shapes, groups, place) if stage == SHARDED_STAGE else _flat(shapes, groups, place)
    return _with_the_rest(models, masters, stage, place)


def _place(directory: Path) -> Path:
    """Where the files lie. Raises CheckpointRefused for a ``latest`` that is no text."""
    latest = directory / LATEST
    if latest.is_file():
        try:
            name = latest.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError as error:
            raise CheckpointRefused(
                "is not the name of a folder", field=str(latest), remedy="name the folder itself"
            ) from error
        inside = directory / Path(name).name
        return inside if inside.is_dir() else directory
    return directory


def _rank(file: Path) -> int:
    found = RANK.search(file.name)
    return int(found[1]) if found else 0


def _by_rank(files: Iterable[Path]) -> list[Path]:
    return sorted((file for file in files if file.is_file()), key=_rank)


def _object(value: object, file: Path, entry: str = "") -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise CheckpointRefused(f"has no {entry or 'entries'}", field=str(file), remedy="copy the directory again")
    return value


def _stage(states: Sequence[Mapping[str, Any]], place: Path) -> int:
    """That all ranks say. Raises CheckpointRefused for different ones, and for one that is unknown."""
    said: list[Any] = [state.get(STAGE) for state in states]
    odd = [stage for stage in said if not isinstance(stage, int) or stage not in PARTS or stage != said[0]]
    if odd:
        stages = ", ".join(map(str, said))
        raise CheckpointRefused(f"is of ZeRO stage {stages}", field=str(place), choices=tuple(map(str, PARTS)))
    return int(said[0])


def _world(state: Mapping[str, Any], place: Path) -> int:
    count = state.get(WORLD)
    counts: list[Any] = list(count) if isinstance(count, (list, tuple)) else [count]
    if not counts or any(not isinstance(each, int) or each < 1 or each != counts[0] for each in counts):
        raise CheckpointRefused(f"does not say how many ranks saved it ({WORLD}: {count})", field=str(place))
    return int(counts[0])


def _groups(state: Mapping[str, Any], entry: str, file: Path) -> list[Tensor]:
    """A rank's masters: one vector a group. Raises CheckpointRefused for anything else."""
    found = state.get(entry)
    vectors = list(found) if isinstance(found, (list, tuple)) else []
    if not vectors or not all(isinstance(vector, Tensor) and vector.dim() == 1 for vector in vectors):
        raise CheckpointRefused(f"{entry} holds no vectors", field=str(file), remedy="copy the directory again")
    return vectors


def _shapes(model: Mapping[str, Any], file: Path) -> list[Mapping[str, Sequence[int]]]:
    """Of each group the parameters' names and shapes, in order."""
    found = model.get("param_shapes")
    if not isinstance(found, (list, tuple)) or not all(isinstance(group, Mapping) for group in found):
        raise CheckpointRefused("has no param_shapes", field=str(file), remedy="copy the directory again")
    return list(found)


def _flat(
    shapes: Sequence[Mapping[str, Sequence[int]]], ranks: Sequence[Sequence[Tensor]], place: Path
) -> dict[str, Tensor]:
    """Stages 1 and 2: the ranks' parts of each group one after another, then cut at the parameters' sizes."""
    masters: dict[str, Tensor] = {}
    for group, named in enumerate(shapes):
        vectors = [vectors[group] for vectors in ranks if group < len(vectors)]
        needed, held = sum(math.prod(shape) for shape in named.values()), sum(map(len, vectors))
        if needed > held or len(vectors) < len(ranks):
            raise CheckpointRefused(f"group {group} holds {held} of {needed} numbers", field=str(place))
        offset = 0
        for name, shape in named.items():
            masters[name] = _cut(vectors, offset, math.prod(shape)).view(tuple(shape))
            offset += math.prod(shape)
    return masters


def _sharded(
    shapes: Sequence[Mapping[str, Sequence[int]]], ranks: Sequence[Sequence[Tensor]], place: Path
) -> dict[str, Tensor]:
    """Stage 3: every parameter is cut in equal parts, the last one padded; a rank holds its parts in one vector."""
    masters: dict[str, Tensor] = {}
    offset = 0
    for named in shapes:
        for name, shape in named.items():
            part = math.ceil(math.prod(shape) / len(ranks))
            pieces = [_cut(vectors, offset, part) for vectors in ranks]
            if any(len(piece) < part for piece in pieces):
                raise CheckpointRefused(f"{name} is cut short", field=str(place))
            masters[name] = _joined(pieces)[: math.prod(shape)].view(tuple(shape))
            offset += part
    return masters


def _cut(vectors: Sequence[Tensor], start: int, count: int) -> Tensor:
    """So many numbers of vectors that are thought of as one: mapped from the file where one vector holds them all."""
    pieces = []
    for vector in vectors:
        pieces.append(vector[max(start, 0) : max(start + count, 0)])
        start -= len(vector)
    return _joined([piece for piece in pieces if len(piece)] or pieces[:1])


def _joined(pieces: Sequence[Tensor]) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces))


def _with_the_rest(
    models: Sequence[Mapping[str, Any]], masters: dict[str, Tensor], stage: int, place: Path
) -> dict[str, Tensor]:
    """Frozen parameters, buffers and second names of shared ones, which no optimizer holds."""
    first = models[0]
    state = dict(masters)
    for name, shape in _object(first.get("frozen_param_shapes") or {}, place, "frozen_param_shapes").items():
        fragments = [model.get("frozen_param_fragments") or {} for model in models]
        parts = [held.get(name) for held in fragments if isinstance(held, Mapping)]
        held = [part.flatten() for part in parts if isinstance(part, Tensor)]
        if len(held) < len(models) or sum(map(len, held)) < math.prod(shape):
            raise CheckpointRefused(
                f"the frozen {name} is cut short", field=str(place), remedy="copy the directory again"
            )
        state[name] = _joined(held)[: math.prod(shape)].view(tuple(shape))
    module = _object(first.get("module") or {}, place, "module")
    for name in first.get("buffer_names") or ():
        if name in module:
            state[name] = module[name]
    shared = first.get("shared_params") or {}
    pairs = shared.items() if isinstance(shared, Mapping) else shared
    state |= {name: state[source] for name, source in pairs if source in state and name not in state}
    if stage != SHARDED_STAGE:  # what a name list leaves out is still in the 16-bit copy
        state |= {name: tensor for name, tensor in module.items() if name not in state and isinstance(tensor, Tensor)}
    return state

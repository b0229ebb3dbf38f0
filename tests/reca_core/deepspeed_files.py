"""Weights as DeepSpeed saves them: ZeRO directories of stages 1 to 3, written without DeepSpeed for tests.

The layout is that of reca_core/models/zero.py; checked there against what a reader must put together again.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq")
STEP = "global_step9"


def write_zero(
    directory: Path, state: Mapping[str, Tensor], stage: int, ranks: int = 2, *, moments: bool = False
) -> Path:
    """In a ``global_step`` folder that ``latest`` names; with ``moments`` also what Adam keeps, as in a real run."""
    place = directory / STEP
    place.mkdir(parents=True)
    (directory / "latest").write_text(STEP)
    shapes = [OrderedDict((name, tensor.shape) for name, tensor in state.items())]
    common: dict[str, Any] = {"param_shapes": shapes, "buffer_names": [], "ds_version": "0.16"}
    if stage != 3:
        half = {name: tensor.bfloat16() for name, tensor in state.items()}
        torch.save({**common, "module": half}, place / "mp_rank_00_model_states.pt")
    for rank in range(ranks):
        if stage == 3:
            torch.save({**common, "module": {}}, place / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
        part = (_sharded if stage == 3 else _partitioned)(state, rank, ranks)
        groups = {3: "fp32_flat_groups"}.get(stage, "single_partition_of_fp32_groups")
        optimizer: dict[str, Any] = {"zero_stage": stage, "partition_count": ranks, groups: [part]}
        if moments:
            optimizer["base_optimizer_state"] = {"state": {0: {name: torch.zeros_like(part) for name in MOMENTS}}}
        name = f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        torch.save({"optimizer_state_dict": optimizer}, place / name)
    return directory


def _partitioned(state: Mapping[str, Tensor], rank: int, ranks: int) -> Tensor:
    """Of one flat float32 vector, padded and cut in equal parts (stages 1 and 2), this rank's."""
    flat = torch.cat([tensor.flatten().float() for tensor in state.values()])
    flat = torch.nn.functional.pad(flat, (0, -len(flat) % (2 * ranks)))
    return flat.chunk(ranks)[rank].clone()  # a view would be saved with the whole vector


def _sharded(state: Mapping[str, Tensor], rank: int, ranks: int) -> Tensor:
    """Of every parameter, padded and cut in equal parts (stage 3), this rank's, one after another."""
    return torch.cat([_padded(tensor, ranks).chunk(ranks)[rank] for tensor in state.values()])


def _padded(tensor: Tensor, ranks: int) -> Tensor:
    flat = tensor.flatten().float()
    return torch.nn.functional.pad(flat, (0, math.ceil(len(flat) / ranks) * ranks - len(flat)))

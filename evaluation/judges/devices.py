"""Where a judge computes. Imports torch when called, not before."""

from __future__ import annotations

from typing import Literal

from reca_core.contracts.errors import PrerequisiteMissing


def pick_device(wanted: Literal["auto", "cpu", "cuda"]) -> str:
    """``auto`` takes a GPU where there is one. Raises PrerequisiteMissing for a GPU that is not there."""
    import torch

    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise PrerequisiteMissing("no CUDA device", field="judge.device", remedy="--set judge.device=cpu")
    return "cuda" if there and wanted != "cpu" else "cpu"

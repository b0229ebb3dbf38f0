"""Which device a process computes on."""

from __future__ import annotations

import os

import torch

from reca_core.contracts.errors import PrerequisiteMissing

LOCAL_RANK_VARIABLE = "LOCAL_RANK"
"""Set by torchrun: this process's number on its machine, and so its GPU."""


def choose_device(choice: str) -> torch.device:
    """``auto`` takes this process's GPU where there is one. Raises PrerequisiteMissing for cuda without a GPU."""
    if choice == "cpu" or (choice == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise PrerequisiteMissing("there is no CUDA device", field="device", choices=("auto", "cpu"))
    return torch.device("cuda", int(os.environ.get(LOCAL_RANK_VARIABLE, "0")))

"""Reading the recorded numbers of the original model code: one folder per set, sizes from its config.json.

A set's family is the first word of its folder's name. Tolerance: ``max|a-b| <= 1e-4 * max(1, max|expected|)``, integers
and booleans equal, gradient norms within 1e-3 relative.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

ABSOLUTE_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
ZERO_GRADIENT = 1e-12


@dataclass(frozen=True)
class GoldenSet:
    folder: Path

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((self.folder / "config.json").read_text())
        return config

    def tensors(self, name: str) -> dict[str, Tensor]:
        return load_file(self.folder / f"{name}.safetensors")


def golden_root() -> Path:
    default = Path(__file__).resolve().parents[2].parent / "shared" / "goldens"
    return Path(os.environ.get("RECA_GOLDENS", default)) / "models"


def golden_sets(family: str) -> list[Any]:
    """Parameters for pytest: every set of the family, or one that skips by its marker where there is no folder."""
    root = golden_root()
    if not root.is_dir():
        return [pytest.param(GoldenSet(root / family), id="absent")]
    folders = [path for path in sorted(root.iterdir()) if path.is_dir()]
    mine = [path for path in folders if re.split(r"[^a-z0-9]", path.name.lower())[0] == family]
    return [pytest.param(GoldenSet(path), id=path.name) for path in mine]


class Expected:
    """The recorded tensors; remembers which were compared, so that a test can insist on all of them."""

    def __init__(self, golden: GoldenSet) -> None:
        self.tensors = golden.tensors("expected")
        self.seen: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Tensor:
        self.seen.add(name)
        return self.tensors[name]

    def agree(self, name: str, ours: Tensor) -> None:
        """Fail unless ``ours`` is the recorded tensor within the tolerance."""
        theirs = self[name]
        assert ours.shape == theirs.shape, f"{name}: shape {tuple(ours.shape)}, recorded {tuple(theirs.shape)}"
        if not theirs.is_floating_point():
            assert torch.equal(ours, theirs), f"{name}: {int((ours != theirs).sum())} of {theirs.numel()} differ"
            return
        bound = ABSOLUTE_TOLERANCE * max(1.0, float(theirs.abs().max()))
        worst = float((ours.detach() - theirs).abs().max())
        assert worst <= bound, f"{name}: off by {worst:.2e}, allowed {bound:.2e}"

    def agree_gradients(self, prefix: str, loss: Tensor, parameters: dict[str, nn.Parameter]) -> None:
        """Fail unless every recorded gradient norm ``prefix.grad_norm/<name>`` is ours.

        ``parameters`` maps the recorded names to ours. A recorded 0 means a gradient of zeros or none at all.
        """
        recorded = {key.partition("/")[2]: key for key in self.tensors if key.startswith(f"{prefix}.grad_norm/")}
        assert recorded, f"no gradient norms recorded for {prefix}"
        names = list(recorded)
        gradients = torch.autograd.grad(
            loss, [parameters[name] for name in names], allow_unused=True, retain_graph=True
        )
        for name, gradient in zip(names, gradients, strict=True):
            theirs = float(self[recorded[name]])
            ours = 0.0 if gradient is None else float(gradient.norm())
            close = abs(ours - theirs) <= GRADIENT_TOLERANCE * abs(theirs) + ZERO_GRADIENT
            assert close, f"{prefix} gradient of {name}: {ours:.6g}, recorded {theirs:.6g}"

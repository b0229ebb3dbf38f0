"""Freed blocks of a large model's training leave the process; a small model's training keeps the system's rule."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from reca_core.contracts.estimate import SMALL_BYTES
from reca_core.training.allocator import give_back_large_blocks

HOLES = """
import sys
from pathlib import Path
from reca_core.training.allocator import give_back_large_blocks
import torch
give_back_large_blocks(Path(sys.argv[1]))
resident = lambda: int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
torch.zeros(31 << 18).sum()  # 31 MiB, freed: glibc raises its threshold to it
before = resident()
blocks = [torch.ones(3 << 18) for _ in range(64)]
small = [blocks.__setitem__(index, None) or torch.ones(2 << 18) for index in range(0, 64, 2)]
blocks = [None] * 64
print((resident() - before) >> 10)
"""
"""MiB that stay after 192 MiB of blocks were freed among 64 MiB of smaller ones that are kept."""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the rule is glibc's")


def checkpoint(folder: Path, size: int) -> Path:
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(size)
    return folder


def left_behind(folder: Path) -> int:
    done = subprocess.run([sys.executable, "-c", HOLES, str(folder)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@glibc
def test_holes_between_kept_blocks_are_given_back_where_the_model_is_large(tmp_path: Path) -> None:
    large = left_behind(checkpoint(tmp_path / "large", SMALL_BYTES))
    small = left_behind(checkpoint(tmp_path / "small", SMALL_BYTES - 1))
    assert large < 80
    assert small > large + 40


def test_a_small_model_is_left_alone(tmp_path: Path) -> None:
    assert not give_back_large_blocks(checkpoint(tmp_path / "small", SMALL_BYTES - 1))

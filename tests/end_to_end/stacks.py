"""A home with the real stack for tests: ``reca up``, ``status`` and ``down`` as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.end_to_end.test_servers import Stack, free_port

UP_SECONDS = 480.0


def reca(home: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    installed = str(Path(sys.executable).with_name("reca"))
    return subprocess.run(
        [installed, *words, "--home", str(home)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=UP_SECONDS,
        check=False,
    )


def up(stack: Stack, **variables: str) -> subprocess.CompletedProcess[str]:
    ports = ("--prefect-port", str(stack.prefect_port), "--mlflow-port", str(stack.mlflow_port))
    return reca(stack.root / "home", "up", *ports, "--json", **variables)


@contextmanager
def up_and_down(root: Path) -> Iterator[Stack]:
    """A stack that answers, for the block."""
    started = Stack(root, free_port(), free_port())
    (root / "worker.log").symlink_to(root / "home/stack/worker.log")
    (root / "prefect.log").symlink_to(root / "home/stack/prefect.log")
    try:
        result = up(started)
        assert result.returncode == 0, result.stderr
        yield started
    finally:
        reca(root / "home", "down")


def status(stack: Stack) -> dict[str, Any]:
    result = reca(stack.root / "home", "status", "--json")
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["exit_code"] == result.returncode
    return found


def environment_of(pid: int) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in pair)

"""Shared by the end-to-end tests: the smallest model on disk, settings to match, and who is still alive."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUILD = """
import sys
from pathlib import Path
import torch
from reca_core.contracts.world import VOCABULARY
from reca_core.models.janus.adapter import Janus
from reca_core.models.janus.smallest import TEMPLATES, smallest_configuration
from reca_core.models.janus.word_tokenizer import word_tokenizer
torch.manual_seed(int(sys.argv[2]))
tokenizer = word_tokenizer(VOCABULARY)
Janus.from_configuration(smallest_configuration(len(tokenizer)), tokenizer, TEMPLATES).save(Path(sys.argv[1]))
"""
POLL_SECONDS = 0.1


def save_smallest_janus(directory: Path, seed: int = 0) -> Path:
    """Random weights, 0.2 M parameters: every part of the chain runs, in seconds."""
    command = [sys.executable, "-c", BUILD, str(directory), str(seed)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return directory


def settings(model: Path, steps: int = 12) -> dict[str, Any]:
    """Parameters of train-then-evaluate for a few seconds of work."""
    return {
        "images": {"source": "shapeworld", "scenes": 60},
        "model": {"source": str(model)},
        "training": {
            "steps": steps,
            "images_per_step": 4,
            "warmup_steps": 1,
            "checkpoint_every_steps": 5,
            "preview_every_steps": 100,
            "on_collapse": "warn",
        },
        "evaluation": {"prompts_per_tag": 1, "pictures_per_prompt": 1},
    }


def processes_of(home: Path) -> dict[int, str]:
    """Processes that work for a home: pid and command line; zombies are dead."""
    mark = f"RECA_HOME={home}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if not folder.name.isdigit() or mark not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            if (folder / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def wait_until(condition: Callable[[], Any], seconds: float) -> Any:
    """The first true value of ``condition``, or its last value after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(POLL_SECONDS)
    return condition()

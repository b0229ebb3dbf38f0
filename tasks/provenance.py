"""Which code made a result: recorded beside every request and compared when it is resumed, but never part of its hash.

A typo fix must not orphan a week of training (docs/decisions/0005-identity.md); whoever changes a result raises the
``numerics_version`` of the family or benchmark instead.
"""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import reca_core
from reca_core.contracts.base import Record

PACKAGES = ("torch", "transformers", "diffusers", "safetensors", "numpy", "pillow", "reca-pipeline")
"""Distributions whose version can change a number."""


class Provenance(Record):
    """The code behind a result."""

    git_commit: str
    """Commit of this repository, with ``+dirty`` where files differ from it; empty outside a checkout."""
    versions: dict[str, str]
    """Package -> version, Python included."""


@functools.cache
def current_provenance() -> Provenance:
    """What is running now. Costs two git calls, once per process."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Provenance(git_commit=_git_commit(), versions=versions)


def _git_commit() -> str:
    commit = _git("rev-parse", "HEAD")
    return commit + ("+dirty" if commit and _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str:
    root = Path(reca_core.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def differences(before: Provenance, now: Provenance) -> list[str]:
    """What has changed, in words, one entry per fact."""
    found = [
        f"{name} was {before.versions.get(name, 'absent')}, is {now.versions.get(name, 'absent')}"
        for name in sorted(before.versions.keys() | now.versions.keys())
        if before.versions.get(name) != now.versions.get(name)
    ]
    if before.git_commit != now.git_commit:
        found.append(f"git commit was {before.git_commit or 'unknown'}, is {now.git_commit or 'unknown'}")
    return found

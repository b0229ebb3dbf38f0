"""What the end-to-end tests share: one smallest model per file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.rig import save_smallest_janus


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory; every part of the chain runs on it in seconds."""
    return save_smallest_janus(tmp_path_factory.mktemp("model") / "smallest")

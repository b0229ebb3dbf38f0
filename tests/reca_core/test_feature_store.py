"""Features on disk: what was kept comes back to the bit, whoever else writes, and what is damaged never comes back."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reca_core.data import feature_store
from reca_core.data.feature_store import FeatureStore

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys, torch
from pathlib import Path
from tests.reca_core.test_feature_store import names, rows
from reca_core.data.feature_store import FeatureStore
first = int(sys.argv[2])
store = FeatureStore(Path(sys.argv[1]), {})
for number in range(first, first + 40):
    store.keep(names(1, number), rows(1, number))
    store.write()
store.close()
"""


def names(count: int, first: int = 0) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(first, first + count)]


def rows(count: int, first: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Of different sizes, each a view into something larger, as encoders give them."""
    return [
        (torch.arange(24.0).reshape(2, 3, 4)[:, : 1 + number % 3] + number).to(dtype)
        for number in range(first, first + count)
    ]


def opened(place: Path) -> FeatureStore:
    return FeatureStore(place, {"part": "target"})


def shards(place: Path) -> list[Path]:
    return sorted(place.glob("*.safetensors"))


def assert_equal(found: tuple[Tensor, ...] | None, wanted: list[Tensor]) -> None:
    assert found is not None
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_what_was_kept_is_read_before_and_after_it_is_written(tmp_path: Path, dtype: torch.dtype) -> None:
    store = opened(tmp_path / "store")
    assert store.keep(names(7), rows(7, dtype=dtype)) == 7
    assert_equal(store.read(names(7)[::-1]), rows(7, dtype=dtype)[::-1])
    assert not shards(store.directory)
    store.close()
    again = opened(tmp_path / "store")
    assert_equal(again.read(names(7)[2:5]), rows(7, dtype=dtype)[2:5])
    assert again.read(names(8)) is None
    assert json.loads((store.directory / "about.json").read_text()) == {"part": "target"}


def test_a_picture_is_kept_once_and_never_with_a_number_that_is_not_finite(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert store.keep(names(3), rows(3)) == 3
    store.write()
    assert store.keep(names(4), rows(4)) == 1
    assert store.keep(names(1, 9), [torch.tensor([1.0, float("nan")])]) == 0
    assert store.read(names(1, 9)) is None


def test_a_full_shard_is_written_without_being_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "SHARD_PICTURES", 2)
    monkeypatch.setattr(feature_store, "OPEN_SHARDS", 1)
    store = opened(tmp_path)
    for number in range(6):
        store.keep(names(1, number), rows(1, number))
    assert len(shards(tmp_path)) == 3
    assert_equal(store.read(names(6)), rows(6))


def test_one_trainer_reads_what_another_one_wrote_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = opened(tmp_path), opened(tmp_path)
    writer.keep(names(3), rows(3))
    writer.write()
    assert reader.read(names(3)) is None, "it has looked a moment ago"
    reader.look()
    assert_equal(reader.read(names(3)), rows(3))
    writer.keep(names(1, 3), rows(1, 3))
    writer.write()
    monkeypatch.setattr(feature_store, "LOOK_SECONDS", 0.0)
    assert_equal(reader.read(names(4)), rows(4))


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(first)], env=environment)
        for first in (0, 20)  # 20 pictures are computed by both
    ]
    assert [writer.wait(600) for writer in writers] == [0, 0]
    assert_equal(opened(tmp_path).read(names(60)), rows(60))
    assert not list(tmp_path.glob(".*.tmp"))


def damage(shard: Path, kind: str) -> None:
    content = shard.read_bytes()
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    unsummed = content.replace(b'"checksums"', b'"checksumz"')
    shard.write_bytes({"cut": content[:-5], "empty": b"", "flipped": flipped, "unsummed": unsummed}[kind])


@pytest.mark.parametrize("kind", ["cut", "empty", "flipped", "unsummed"])
def test_a_damaged_shard_is_removed_with_a_notice_and_its_pictures_are_unknown(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(tmp_path)
    store.keep(names(2), rows(2))
    store.write()
    store.keep(names(2, 2), rows(2, 2))
    store.write()
    (bad,) = [shard for shard in shards(tmp_path) if names(1)[0].encode() in shard.read_bytes()]
    damage(bad, kind)
    again = opened(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert all(again.read([name]) is None for name in names(2)) or again.read(names(2)) is None
    assert f"{bad} is damaged" in caplog.text
    assert not bad.exists()
    assert_equal(again.read(names(2, 2)), rows(2, 2))
    assert again.keep(names(2), rows(2)) == 2, "what is gone is computed and kept again"


def test_a_cache_that_is_removed_meanwhile_is_begun_again(tmp_path: Path) -> None:
    writer = opened(tmp_path / "store")
    writer.keep(names(2), rows(2))
    writer.close()
    reader = opened(tmp_path / "store")
    shutil.rmtree(tmp_path / "store")
    assert reader.read(names(2)) is None
    assert reader.keep(names(2), rows(2)) == 2
    reader.close()
    assert_equal(opened(tmp_path / "store").read(names(2)), rows(2))


def test_a_full_disk_ends_the_keeping_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = namedtuple("usage", ("total", "used", "free"))
    monkeypatch.setattr(feature_store.shutil, "disk_usage", lambda _: usage(2 << 30, 1 << 30, 1 << 30))
    store = opened(tmp_path)
    store.keep(names(2), rows(2))
    store.write()
    assert "nothing more is kept (less than 1 GiB would stay free on its disk)" in caplog.text
    assert store.read(names(2)) is None
    assert store.keep(names(2), rows(2)) == 0
    assert not shards(tmp_path)


def test_what_a_killed_writer_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    old, young = tmp_path / ".old.safetensors.tmp", tmp_path / ".young.safetensors.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    assert len(shards(opened(tmp_path).directory)) == 0
    assert (old.exists(), young.exists()) == (False, True)

"""A prepared set's identity is its pictures, and a damaged set is never read as a whole one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from reca_core.contracts.errors import PrerequisiteMissing, StageFailed
from reca_core.contracts.home import Home
from reca_core.contracts.records import ManifestRow
from reca_core.contracts.requests import ImageSource
from reca_core.data.manifest import MANIFEST, digest_of, iterate_manifest, read_manifest, write_records
from reca_core.data.prepare import prepare

HASHES = sorted(hashlib.sha256(bytes([number])).hexdigest() for number in range(50))


def prepared(tmp_path: Path) -> Path:
    return Path(prepare(ImageSource(scenes=12), Home(tmp_path / "home"), lambda _: None).directory)


def test_every_hash_counts() -> None:
    digests = {digest_of(HASHES[:number] + HASHES[number + 1 :]) for number in range(50)}
    assert len(digests | {digest_of(HASHES)}) == 51


def test_hashes_out_of_order_or_twice_are_an_error() -> None:
    for wrong in (HASHES[::-1], [HASHES[0], HASHES[0]]):
        with pytest.raises(ValueError, match="does not ascend"):
            digest_of(wrong)


def test_the_digest_needs_no_list() -> None:
    assert digest_of(iter(HASHES)) == digest_of(HASHES)


def test_rows_are_read_back_in_ascending_order(tmp_path: Path) -> None:
    rows = read_manifest(prepared(tmp_path))
    assert 1 <= len(rows) <= 12
    assert [row.sha256 for row in rows] == sorted({row.sha256 for row in rows})
    assert all(hashlib.sha256(Path(row.file).read_bytes()).hexdigest() == row.sha256 for row in rows)


def test_a_directory_that_is_no_prepared_set_is_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteMissing, match="reca run prepare"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("cut", [1, 100, 1000])
def test_a_cut_manifest_is_not_read_as_a_smaller_set(tmp_path: Path, cut: int) -> None:
    directory = prepared(tmp_path)
    content = (directory / MANIFEST).read_bytes()
    (directory / MANIFEST).write_bytes(content[:-cut])
    for read in (lambda: list(iterate_manifest(directory)), lambda: read_manifest(directory)):
        with pytest.raises(StageFailed, match="prepare again"):
            read()
    assert prepared(tmp_path) == directory
    assert (directory / MANIFEST).read_bytes() == content


def test_a_file_with_the_right_content_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [ManifestRow(sha256=sha256, file=f"/pictures/{sha256}", width=8, height=8) for sha256 in HASHES]
    assert write_records(path, rows)
    inode = path.stat().st_ino
    assert not write_records(path, iter(rows))
    assert path.stat().st_ino == inode
    assert write_records(path, rows[1:])
    assert len(list(tmp_path.iterdir())) == 1

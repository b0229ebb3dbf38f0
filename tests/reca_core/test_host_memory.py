"""The host memory that is free: limits wherever they were set, and cached files that are no loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reca_core.training.host_memory import host_available

GIB = 1 << 30


class Machine:
    """A /proc and mounted control groups of a version."""

    def __init__(self, root: Path, version: int, own: str = "/", mounted: str = "/") -> None:
        self.proc, self.groups, self.version = root / "proc", root / "groups", version
        (self.proc / "self").mkdir(parents=True)
        self.groups.mkdir()
        kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,memory"
        number = "0::" if version == 2 else "4:memory,hugetlb:"
        mounts = (
            "22 27 0:21 / /proc rw,relatime - proc proc rw",
            "36 31 0:33 / /elsewhere rw shared:9 - cgroup cgroup rw,devices",
            f"41 31 0:38 {mounted} {self.groups} rw,relatime shared:9 - {kind}",
        )
        (self.proc / "self" / "mountinfo").write_text("".join(f"{line}\n" for line in mounts))
        (self.proc / "self" / "cgroup").write_text(f"9:name=systemd:/x\n{number}{own}\n")
        (self.proc / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {60 * GIB // 1024} kB\n")

    def group(self, path: str, limit: object, used: int, **stat: Any) -> None:
        """``stat`` in GiB, under the names of version 2."""
        place = self.groups / path
        place.mkdir(parents=True, exist_ok=True)
        two = self.version == 2
        (place / ("memory.max" if two else "memory.limit_in_bytes")).write_text(f"{limit}\n")
        (place / ("memory.current" if two else "memory.usage_in_bytes")).write_text(f"{used * GIB}\n")
        names = {name: name if two else f"total_{name.removeprefix('file_')}" for name in stat}
        rows = [f"{names[name]} {value * GIB}\n" for name, value in stat.items()]
        (place / "memory.stat").write_text("".join(["anon 0\n" if two else "inactive_file 7\n", *rows]))

    def free(self) -> float:
        """In GiB."""
        found = host_available(self.proc)
        assert found is not None
        return found / GIB


@pytest.mark.parametrize("version", [1, 2])
def test_cached_files_are_no_loss_unless_they_have_yet_to_be_written(version: int, tmp_path: Path) -> None:
    machine = Machine(tmp_path, version)
    machine.group("", 32 * GIB, 31, inactive_file=29, active_file=1)
    assert machine.free() == 31
    machine.group("", 32 * GIB, 32, inactive_file=29, active_file=1, file_dirty=3, file_writeback=1)
    assert machine.free() == 26
    machine.group("", 32 * GIB, 32)
    assert machine.free() == 0


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("job", "user", "free"), [(8, 16, 6), (16, 8, 3), (64, 64, 59)])
def test_the_least_of_the_own_group_and_its_parents_counts(
    version: int, job: int, user: int, free: int, tmp_path: Path
) -> None:
    machine = Machine(tmp_path, version, own="/user.slice/job.scope")
    machine.group("user.slice", user * GIB, 5)
    machine.group("user.slice/job.scope", job * GIB, 2)
    machine.group("user.slice/another.scope", GIB, 1)
    assert machine.free() == free


@pytest.mark.parametrize(("version", "unlimited"), [(1, 9223372036854771712), (2, "max")])
def test_a_group_without_a_limit_leaves_the_machine(version: int, unlimited: object, tmp_path: Path) -> None:
    machine = Machine(tmp_path, version)
    machine.group("", unlimited, 5)
    assert machine.free() == 60
    (machine.proc / "meminfo").unlink()
    assert host_available(machine.proc) is None
    assert host_available(tmp_path / "no-proc") is None


@pytest.mark.parametrize(("own", "mounted"), [("/docker/1", "/docker/1"), ("/", "/../.."), ("/../1", "/")])
def test_a_container_finds_its_limit_at_the_top_of_its_mount(own: str, mounted: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path, 2, own, mounted)
    machine.group("", 8 * GIB, 1)
    assert machine.free() == 7

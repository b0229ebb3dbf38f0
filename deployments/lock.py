"""The lock files: exact versions of everything `make demo` and `make test` install, resolved from pyproject's ranges.

    python -m deployments.lock --write    resolve and write requirements.lock and requirements-dev.lock
    python -m deployments.lock --check    fail if a locked version leaves its range or a dependency is not locked

No hashes and no local version labels: the same ``torch==2.13.0`` line must be satisfied by a CPU wheel on a laptop and
by the CUDA wheel on a GPU box (docs/decisions/0002-pins.md). Only the standard library and ``packaging`` are used.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
RUNTIME_LOCK = ROOT / "requirements.lock"
DEVELOPMENT_LOCK = ROOT / "requirements-dev.lock"
EXACT_PINS = ("torch==2.13.0",)
"""A torch without an exact pin resolves to the newest build, which pulls gigabytes of CUDA packages on any machine."""
DEVELOPMENT_EXTRAS = ("postgres", "lora", "judges", "dev")
HEADER = "# Written by `make lock` from the ranges in pyproject.toml. Do not edit by hand.\n"


def requirements(extras: tuple[str, ...]) -> list[Requirement]:
    """The project's dependencies plus those of the named extras, as written in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def resolve(wanted: list[Requirement]) -> dict[str, str]:
    """Name -> version of everything pip would install for ``wanted`` into an empty environment."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--report", str(report), *EXACT_PINS, *(str(item) for item in wanted)]
        subprocess.run(command, check=True)
        installs = json.loads(report.read_text())["install"]
    versions = {item["metadata"]["name"]: item["metadata"]["version"].split("+")[0] for item in installs}
    return {str(canonicalize_name(name)): version for name, version in versions.items()}


def read_lock(path: Path) -> dict[str, str]:
    """Name -> version of a lock file. Raises ValueError for a line that is not ``name==version``."""
    locked: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if not line or line.startswith(("#", "-r ")):
            continue
        name, separator, version = line.partition("==")
        if not separator:
            raise ValueError(f"{path.name}: {line!r} is not name==version")
        locked[str(canonicalize_name(name))] = version
    return locked


def write() -> None:
    """Resolve both sets together, so that development tools can never move a runtime version."""
    everything = resolve(requirements(DEVELOPMENT_EXTRAS))
    runtime_names = resolve([Requirement(f"{name}=={version}") for name, version in direct(everything).items()])
    runtime = {name: everything[name] for name in sorted(runtime_names)}
    extra = {name: version for name, version in sorted(everything.items()) if name not in runtime}
    RUNTIME_LOCK.write_text(HEADER + lines_of(runtime))
    DEVELOPMENT_LOCK.write_text(HEADER + "-r requirements.lock\n" + lines_of(extra))


def direct(everything: dict[str, str]) -> dict[str, str]:
    """The resolved versions of the project's own runtime dependencies."""
    names = [str(canonicalize_name(item.name)) for item in requirements(())]
    return {name: everything[name] for name in names}


def lines_of(versions: dict[str, str]) -> str:
    """One ``name==version`` line each."""
    return "".join(f"{name}=={version}\n" for name, version in versions.items())


def faults() -> list[str]:
    """What is wrong with the lock files, in words; empty when they fit pyproject.toml."""
    locked = read_lock(RUNTIME_LOCK)
    found = _range_faults(locked, requirements(()), RUNTIME_LOCK.name)
    return found + _range_faults(
        locked | read_lock(DEVELOPMENT_LOCK), requirements(DEVELOPMENT_EXTRAS), DEVELOPMENT_LOCK.name
    )


def _range_faults(locked: dict[str, str], wanted: list[Requirement], file: str) -> list[str]:
    found = []
    for item in wanted:
        version = locked.get(str(canonicalize_name(item.name)))
        if version is None:
            found.append(f"{file}: {item.name} is not locked")
        elif not item.specifier.contains(version, prereleases=True):
            found.append(f"{file}: {item.name}=={version} is outside {item.specifier}")
    return found


def main() -> int:
    """Entry point; exit status 1 when ``--check`` finds a fault."""
    parser = argparse.ArgumentParser(prog="python -m deployments.lock", description="Write or check the lock files.")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--write", action="store_true", help="resolve and write both lock files")
    group.add_argument("--check", action="store_true", help="fail if the lock files leave pyproject's ranges")
    if parser.parse_args().write:
        write()
    found = faults()
    for fault in found:
        sys.stderr.write(fault + "\n")
    if found:
        sys.stderr.write("remedy: make lock\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

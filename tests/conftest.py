"""Which tests need what, and the rule that skipping is not passing.

A test that needs something carries a marker of a group. Where the group's need is absent the test skips and says why;
``RECA_REQUIRE=goldens,servers`` turns that skip into a failure, and whenever RECA_REQUIRE is set any skip that is not
listed in tests/allowed_skips.txt fails the whole run.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips.txt")


def golden_folder() -> Path:
    return Path(os.environ.get("RECA_GOLDENS", ROOT.parent / "shared" / "goldens"))


def benchmark_folder() -> Path:
    return Path(os.environ.get("RECA_BENCHMARK_DATA", ROOT.parent / "shared" / "benchmark_data"))


def _folder(path: Path, variable: str) -> str:
    if not path.is_dir():
        return f"{path} is not a folder: set {variable}"
    return "" if any(path.iterdir()) else f"{path} is empty: set {variable}"


def _modules(*names: str) -> str:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


def _browser() -> str:
    chromium = shutil.which("chromium")
    return _modules("playwright") or ("" if chromium else "no chromium on PATH: apt-get install chromium")


def _postgres() -> str:
    contrib = list(Path("/usr").glob("share/postgresql*/**/extension/pg_trgm.control"))
    return _modules("psycopg2") or ("" if contrib else "no PostgreSQL with pg_trgm: apt-get install postgresql")


def _gpu() -> str:
    smi = shutil.which("nvidia-smi")
    found = smi and subprocess.run([smi, "-L"], capture_output=True, check=False).returncode == 0
    return "" if found else "no CUDA device"


def _compiler() -> str:
    return "" if shutil.which("g++") or shutil.which("clang++") else "no C++ compiler on PATH: apt-get install g++"


GROUPS: dict[str, Callable[[], str]] = {
    "goldens": lambda: _folder(golden_folder(), "RECA_GOLDENS"),
    "benchmark_data": lambda: _folder(benchmark_folder(), "RECA_BENCHMARK_DATA"),
    "servers": lambda: _modules("prefect", "mlflow"),
    "postgres": _postgres,
    "browser": _browser,
    "ray": lambda: _modules("ray"),
    "gpu": _gpu,
    "compiler": _compiler,
}
"""Group -> function that says what is missing, or nothing."""


def required_groups() -> set[str]:
    """The groups named in RECA_REQUIRE. A name that is no group is an error, not an empty promise."""
    names = {name.strip() for name in os.environ.get("RECA_REQUIRE", "").split(",") if name.strip()}
    unknown = names - GROUPS.keys()
    if unknown:
        raise pytest.UsageError(f"RECA_REQUIRE names no such group: {sorted(unknown)}; choices: {sorted(GROUPS)}")
    return names


def pytest_configure(config: pytest.Config) -> None:
    required_groups()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for group, missing in GROUPS.items():
        if item.get_closest_marker(group) is None:
            continue
        reason = missing()
        if reason and group in required_groups():
            pytest.fail(f"RECA_REQUIRE asks for {group}: {reason}", pytrace=False)
        if reason:
            pytest.skip(f"{group}: {reason}")


SERIAL_GROUPS = ("servers", "postgres", "browser", "ray")
"""Their tests start processes that want a core each: beside other tests, one worker runs all of them, one by one."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Under ``-n``: the tests of a file stay together, and so do all files with servers where there are others too.

    Not ``--dist loadgroup``: pytest-xdist 3.8 does not see the groups under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "servers" if self._mixed and starts_servers(_file(nodeid)) else nodeid.partition("::")[0]

        @cached_property
        def _mixed(self) -> bool:
            return any(not starts_servers(_file(nodeid)) for nodeid in self.collection or ())

    return ByFile(config, log)


def _file(nodeid: str) -> Path:
    return ROOT / nodeid.partition("::")[0]


@cache
def starts_servers(file: Path) -> bool:
    """Whether a test file marks tests with one of the serial groups."""
    return any(f"mark.{group}" in file.read_text(encoding="utf-8") for group in SERIAL_GROUPS)


def unexpected_skips(skipped: list[str], allowed: list[str]) -> list[str]:
    """Test ids that skipped without a prefix of theirs being allowed."""
    return [test for test in skipped if not any(test.startswith(prefix) for prefix in allowed)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not os.environ.get("RECA_REQUIRE"):
        return
    lines = ALLOWED_SKIPS.read_text().splitlines()
    allowed = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    skipped = [report.nodeid for report in terminalreporter.stats.get("skipped", [])]
    for test in unexpected_skips(skipped, allowed):
        terminalreporter.write_line(f"SKIP NOT ALLOWED {test} (tests/allowed_skips.txt)", red=True)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("RECA_REQUIRE") or reporter is None or exitstatus != 0:
        return
    lines = ALLOWED_SKIPS.read_text().splitlines()
    allowed = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    skipped = [report.nodeid for report in reporter.stats.get("skipped", [])]
    if unexpected_skips(skipped, allowed):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def goldens() -> Path:
    """The golden data folder; use with ``pytest.mark.goldens``."""
    return golden_folder()


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    """The benchmarks' own prompt files; use with ``pytest.mark.benchmark_data``."""
    return benchmark_folder()

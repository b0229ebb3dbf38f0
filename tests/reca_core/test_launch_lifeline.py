"""A child ends with its parent, also when the parent is killed and the child sits in a session of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reca_core.contracts import lifeline

WAIT_SECONDS = 10.0
CHILD = """
import sys, time
from reca_core.contracts import lifeline
if {watch}: lifeline._kernel_signal = lambda: False
lifeline.die_with_parent()
open(sys.argv[1], "w").write("ready")
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys, time
from reca_core.contracts.lifeline import child_environment
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]], env=child_environment(os.environ),
                         start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    """True while the process runs; a zombie is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds: float = WAIT_SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("watch", [False, True], ids=["kernel signal", "watcher thread"])
def test_a_child_in_its_own_session_dies_when_its_parent_is_killed(tmp_path: Path, watch: bool) -> None:
    ready = tmp_path / "ready"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD.format(watch=watch), str(ready)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert wait_until(ready.exists)
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_until(lambda: not alive(child))


def test_a_child_whose_parent_is_already_gone_ends_at_once() -> None:
    environment = {**os.environ, lifeline.PARENT_VARIABLE: str(2**22 + 1)}
    script = "from reca_core.contracts.lifeline import die_with_parent; die_with_parent(); print('still here')"
    child = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert child.returncode == lifeline.ORPHAN_EXIT
    assert child.stdout == ""


def test_the_lifeline_loads_without_torch() -> None:
    script = "import sys, reca_core.contracts.lifeline; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

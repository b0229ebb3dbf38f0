"""Children are followed through their log, never outlive their parent, and say whose fault a failure was."""

from __future__ import annotations

import contextlib
import contextvars
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reca_core.contracts.errors import BadInput, PrerequisiteMissing, StageFailed
from reca_core.contracts.progress import MARK, Progress
from tasks.following import BATCH_LINES, LINE_BYTES
from tasks.processes import ChildKilled, environment_for_children, module_command, run_child, stoppable

WAIT_SECONDS = 15.0


def program(tmp_path: Path, source: str) -> list[str]:
    file = tmp_path / "child.py"
    file.write_text(textwrap.dedent(source))
    return [sys.executable, "-P", str(file)]


class Heard:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.progress: list[Progress] = []

    @property
    def lines(self) -> list[str]:
        return [line for text in self.texts for line in text.splitlines()]


def run(tmp_path: Path, source: str, grace_seconds: float = 1.0) -> Heard:
    heard = Heard()
    log = tmp_path / "run" / "log.txt"
    run_child(program(tmp_path, source), log, heard.texts.append, heard.progress.append, grace_seconds)
    return heard


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_lines_and_progress_arrive_apart_and_the_log_holds_both(tmp_path: Path) -> None:
    heard = run(
        tmp_path,
        """
        import sys
        print("one"); print("zwei: ü", file=sys.stderr)
        print('@progress {"stage": "post", "done": 3, "total": 5, "unit": "step"}')
        print("three", end="")
        """,
    )
    assert heard.lines == ["one", "zwei: ü", "three"]
    assert [(item.done, item.total) for item in heard.progress] == [(3, 5)]
    assert MARK in (tmp_path / "run" / "log.txt").read_text()


def test_a_second_attempt_appends_to_the_log_and_is_heard_alone(tmp_path: Path) -> None:
    run(tmp_path, "print('first')")
    heard = run(tmp_path, "print('second')")
    assert heard.lines == ["second"]
    assert (tmp_path / "run" / "log.txt").read_text() == "first\nsecond\n"


def test_progress_is_reported_at_most_about_once_a_second_and_the_last_one_always(tmp_path: Path) -> None:
    heard = run(
        tmp_path,
        """
        import time
        for done in range(1, 151):
            print('@progress {"stage": "post", "done": %d, "total": 150, "unit": "step"}' % done)
            time.sleep(.01)
        """,
    )
    assert heard.progress[-1].done == 150
    assert len(heard.progress) <= 5


def test_huge_output_is_cut_for_the_reader_and_whole_in_the_file(tmp_path: Path) -> None:
    heard = run(tmp_path, "for number in range(200_000): print('line', number, 'x' * 40)")
    assert heard.lines[-1].startswith("line 199999 ")
    assert all(len(text.splitlines()) <= BATCH_LINES + 1 for text in heard.texts)
    assert any("lines more in" in text for text in heard.texts)
    assert (tmp_path / "run" / "log.txt").read_bytes().count(b"\n") == 200_000


def test_output_without_newlines_and_with_bad_bytes_does_not_stop_the_reader(tmp_path: Path) -> None:
    heard = run(
        tmp_path,
        r"""
        import sys
        for number in range(2_000): sys.stdout.buffer.write(b"\r%6d of many " % number + b"\xff" * 1000)
        sys.stdout.buffer.write(b"\rend")
        """,
    )
    assert heard.lines == ["end"]
    assert max(len(line) for line in heard.lines) <= LINE_BYTES


def test_a_torn_progress_line_is_neither_text_nor_progress(tmp_path: Path) -> None:
    heard = run(tmp_path, """print('@progress {"stage": "po')""")
    assert (heard.lines, heard.progress) == ([], [])


@pytest.mark.parametrize(
    ("status", "kind"), [(2, BadInput), (3, PrerequisiteMissing), (4, StageFailed), (1, StageFailed)]
)
def test_the_exit_status_decides_the_error_which_shows_the_last_lines(
    tmp_path: Path, status: int, kind: type[Exception]
) -> None:
    source = f"import sys\nfor n in range(100): print('said', n)\nsys.exit({status})"
    with pytest.raises(kind) as caught:
        run(tmp_path, source)
    assert type(caught.value) is kind
    assert "said 99" in str(caught.value)
    assert "said 5\n" not in str(caught.value)
    assert str(tmp_path / "run" / "log.txt") in str(caught.value)


def test_a_child_killed_from_outside_is_told_apart_from_one_that_failed(tmp_path: Path) -> None:
    with pytest.raises(ChildKilled, match="SIGKILL"):
        run(tmp_path, "import os, signal; print('here', flush=True); os.kill(os.getpid(), signal.SIGKILL)")


class Cancelled(BaseException):
    """As Prefect's TerminationSignal: no Exception."""


STUBBORN_FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"])
open("pids", "w").write(f"{os.getpid()} {child.pid}")
print("up", flush=True)
time.sleep(60)
"""


def family_pids(tmp_path: Path) -> list[int]:
    file = tmp_path / "run" / "pids"
    assert wait_until(lambda: file.exists() and len(file.read_text().split()) == 2)
    return [int(pid) for pid in file.read_text().split()]


def test_whatever_ends_the_caller_ends_the_whole_group_also_one_that_ignores_sigterm(tmp_path: Path) -> None:
    def cancel(_: str) -> None:
        raise Cancelled

    log = tmp_path / "run" / "log.txt"
    began = time.monotonic()
    with pytest.raises(Cancelled):
        run_child(program(tmp_path, STUBBORN_FAMILY), log, cancel, lambda _: None, grace_seconds=0.5)
    assert time.monotonic() - began < 10
    assert wait_until(lambda: not any(alive(pid) for pid in family_pids(tmp_path)), 2)


def test_a_child_may_use_the_grace_to_save_its_work(tmp_path: Path) -> None:
    def cancel(_: str) -> None:
        raise Cancelled

    source = """
    import signal, sys, time
    def save(*_): open("saved", "w").write("x"); sys.exit(0)
    signal.signal(signal.SIGTERM, save)
    print("up", flush=True)
    time.sleep(60)
    """
    log = tmp_path / "run" / "log.txt"
    with pytest.raises(Cancelled):
        run_child(program(tmp_path, source), log, cancel, lambda _: None, grace_seconds=10)
    assert (tmp_path / "run" / "saved").exists()


PARENT = """
import sys, threading
from pathlib import Path
from tasks.processes import run_child
def work():
    run_child(sys.argv[2:], Path(sys.argv[1]), lambda text: None, lambda progress: None)
task = threading.Thread(target=work)
task.start()
task.join()
"""
TIED_CHILD = """
import os, time
from reca_core.contracts.lifeline import die_with_parent
die_with_parent()
open("pids", "w").write(f"{os.getpid()} {os.getppid()}")
time.sleep(60)
"""


def test_killing_the_parent_kills_the_child(tmp_path: Path) -> None:
    log = tmp_path / "run" / "log.txt"
    command = [sys.executable, "-c", PARENT, str(log), *program(tmp_path, TIED_CHILD)]
    parent = subprocess.Popen(command)
    child, seen_parent = family_pids(tmp_path)
    assert seen_parent == parent.pid
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_until(lambda: not alive(child), 5)


def test_a_child_outlives_the_thread_that_asked_for_the_one_before_it(tmp_path: Path) -> None:
    """The kernel's death signal follows the starting thread: task threads come and go, the starter stays."""
    source = """
    import threading, sys
    from pathlib import Path
    from tasks.processes import run_child
    log, *command = sys.argv[1:]
    def short(): run_child([sys.executable, "-c", "pass"], Path(log), print, print)
    thread = threading.Thread(target=short); thread.start(); thread.join()
    run_child(command, Path(log), print, print)
    """
    file = tmp_path / "parent.py"
    file.write_text(textwrap.dedent(source))
    child = (
        "from reca_core.contracts.lifeline import die_with_parent as d\nd()\nimport time; time.sleep(.5); print('end')"
    )
    log = tmp_path / "run" / "log.txt"
    command = [sys.executable, str(file), str(log), sys.executable, "-c", child]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "end" in result.stdout


def test_ctrl_c_in_the_terminal_reaches_the_parent_only(tmp_path: Path) -> None:
    heard = run(tmp_path, "import os; print(os.getpgid(0) == os.getpid(), os.getpgid(os.getppid()) == os.getpid())")
    assert heard.lines == ["True False"]


def test_a_module_of_the_working_directory_cannot_replace_one_of_ours(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "json.py").write_text("raise SystemExit('wrong json')")
    run_child(module_command("json.tool", "--help"), folder / "log.txt", lambda _: None, lambda _: None)
    assert "usage" in (folder / "log.txt").read_text()


def test_the_childs_environment() -> None:
    parent = {"PYTHONPATH": os.pathsep.join(["", "/a", "b", "."]), "HF_HUB_OFFLINE": "1", "PATH": "/bin"}
    made = environment_for_children(parent)
    assert made["PYTHONPATH"] == "/a"
    assert made["OMP_NUM_THREADS"] == "1"
    assert made["HF_HUB_OFFLINE"] == "1"
    assert environment_for_children({"OMP_NUM_THREADS": "4"})["OMP_NUM_THREADS"] == "4"
    assert "PYTHONPATH" not in environment_for_children({"PYTHONPATH": "."})


def test_what_ends_a_block_early_ends_the_children_that_other_threads_follow(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        with contextlib.suppress(KeyboardInterrupt), stoppable():
            followed = threads.submit(
                contextvars.copy_context().run,
                run,
                tmp_path,
                """
                import os, pathlib, time
                pathlib.Path("pid").write_text(str(os.getpid()))
                time.sleep(600)
                """,
            )
            pid = tmp_path / "run" / "pid"
            assert wait_until(lambda: pid.is_file() and pid.read_text() != "")
            raise KeyboardInterrupt
        with pytest.raises(ChildKilled):
            followed.result(WAIT_SECONDS)
    assert not alive(int(pid.read_text()))

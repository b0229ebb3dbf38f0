"""How fast a stage is and how long it takes is said from what was seen, never from what an earlier attempt did."""

from __future__ import annotations

from collections.abc import Iterator

from reca_core.contracts.progress import Pace, Progress, duration, plural


def at(done: int, unit: str = "picture", total: int = 100) -> Progress:
    return Progress(stage="judge", done=done, total=total, unit=unit)


def paced(*seconds: float) -> Pace:
    clock: Iterator[float] = iter(seconds)
    return Pace(lambda: next(clock))


def test_what_was_done_before_the_first_look_was_not_done_at_this_pace() -> None:
    pace = paced(0.0, 10.0, 20.0)
    assert [pace.see(at(done)) for done in (40, 60, 80)] == ["", "2 pictures/s, 20 s left", "2 pictures/s, 10 s left"]


def test_a_slow_stage_says_seconds_per_unit_and_a_finished_one_no_time_left() -> None:
    pace = paced(0.0, 40.0, 400.0)
    assert [pace.see(at(done, "reply", 10)) for done in (0, 1, 10)] == [
        "",
        "40 s per reply, 6 min left",
        "40 s per reply",
    ]


def test_a_stage_that_falls_back_has_begun_anew() -> None:
    pace = paced(0.0, 1.0, 50.0, 51.0)
    assert [pace.see(at(done)) for done in (0, 50, 0, 10)][2:] == ["", "10 pictures/s, 9 s left"]


def test_nothing_is_said_while_nothing_was_done_or_no_time_passed() -> None:
    pace = paced(0.0, 5.0, 5.0)
    assert [pace.see(at(done)) for done in (3, 3, 3)] == ["", "", ""]
    pace = paced(0.0, 0.0)
    assert [pace.see(at(done)) for done in (3, 4)] == ["", ""]


def test_times_and_plurals_read_well() -> None:
    assert [duration(seconds) for seconds in (0.4, 89, 91, 5399, 5401)] == ["0 s", "89 s", "2 min", "90 min", "1.5 h"]
    assert [plural(unit) for unit in ("step", "reply")] == ["steps", "replies"]

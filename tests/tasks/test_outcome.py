"""The outcome names every stage once, in order, and never calls an incomplete run complete."""

from __future__ import annotations

import pytest

from reca_core.contracts.requests import EvaluationPlan
from tasks.conclude import cell, markdown, report_inputs
from tasks.outcome import outcome, seconds_of, stages_of
from tasks.report_inputs import ReportInputs
from tasks.results import FoundVersions
from tests.tasks.rig import BASE, BENCHMARK, RUN, compared, judged, prepared, registered, reported, trained


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECA_HOME", "/home")


def test_a_comparison_brings_its_samplings_and_judgings_in_the_order_they_ran() -> None:
    results = [prepared(), trained(), registered(), compared(), reported()]
    assert list(seconds_of(stages_of(results))) == [
        "prepare",
        "train",
        "register",
        f"sample {BENCHMARK}, tiny",
        f"judge {BENCHMARK}, tiny",
        f"sample {BENCHMARK}, reca-tiny/1",
        f"judge {BENCHMARK}, reca-tiny/1",
        f"compare {BENCHMARK}",
        "report",
    ]


def test_a_complete_run_ends_with_0_and_names_what_it_made() -> None:
    made = outcome(RUN, [prepared(), trained(), registered(), compared(), reported()])
    assert (made.exit_status, made.incomplete) == (0, [])
    assert made.run_directory == "/home/runs/r"
    assert made.version is not None
    assert made.version.version == "1"
    assert made.scores == ["/home/answers/tiny/scores.json", "/home/answers/reca-tiny/1/scores.json"]
    assert (made.comparisons, made.report) == (["/home/scores/x/comparison.json"], "/home/reports/x/report.html")
    assert made.reused == ["prepare"]


def test_unscored_pictures_and_refused_comparisons_end_with_5_and_their_reasons() -> None:
    unscored = outcome(RUN, [judged(BASE, 0.5, ("2 x cannot be decoded",))])
    assert unscored.exit_status == 5
    assert unscored.incomplete == [f"judge {BENCHMARK}, tiny: 2 x cannot be decoded"]
    refused = outcome(RUN, [trained(), compared(refusal="the two sides differ in seeds")])
    assert refused.exit_status == 5
    assert "differ in seeds" in refused.incomplete[0]
    assert refused.comparisons == []


def test_aliases_that_point_nowhere_are_reported_and_the_run_still_has_a_directory() -> None:
    absent = ["nothing for models:/x@champion"]
    found = FoundVersions(stage="find versions", seconds=0, name="x", models=[], behind={}, weights={}, absent=absent)
    made = outcome(RUN, [found])
    assert (made.exit_status, made.incomplete) == (5, ["nothing for models:/x@champion"])
    assert made.run_directory == "/home"


def test_the_main_directory_is_the_training_else_the_judging_else_the_data() -> None:
    assert outcome(RUN, [prepared()]).run_directory == "/home/data/d"
    assert outcome(RUN, [prepared(), judged(BASE, 1.0)]).run_directory == "/home/answers/tiny"


def test_the_report_is_named_by_what_it_compares() -> None:
    def inputs(name: str) -> ReportInputs:
        return report_inputs(RUN, prepared(), trained(), registered(), [compared(name=name)], EvaluationPlan())

    one, again, other = inputs("reca-tiny/1"), inputs("reca-tiny/1"), inputs("reca-tiny/2")
    assert one.output == again.output
    assert one.output != other.output
    assert one.output.parts[:3] == ("/", "home", "reports")
    assert (one.base_name, one.trained_name, one.reused) == ("tiny", "reca-tiny/1", ("prepare",))


HOSTILE = "<script>alert('x')</script> | ![p](http://x) `c` *b*\n# h"


def test_nothing_from_outside_becomes_markup_in_the_prefect_artifact() -> None:
    page = markdown([compared(name=HOSTILE), compared(refusal=HOSTILE)])
    assert "<script" not in page
    assert "![" not in page
    assert "\n# h" not in page
    assert cell("a | b") == r"a \| b"
    table = [line for line in page.splitlines() if line.startswith("| overall")]
    assert table == [
        r"| overall | 0.250 | 0.500 | \+0.250 | \+0.100 to \+0.400 | 4/4 |",
        "| overall | 0.250 | 0.500 | – | – | 4/4 |",
    ]
    header = next(line for line in page.splitlines() if "| difference |" in line)
    assert header.replace(r"\|", "").count("|") == 7

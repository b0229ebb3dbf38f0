"""`reca evaluate --images DIR --judge openai` as real processes: named faults, kills, two starts, an expired key."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from reca_core.contracts.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INCOMPLETE, EXIT_PREREQUISITE, EXIT_STAGE_FAILED
from reca_core.contracts.files import read_jsonl
from tests.end_to_end.judged_pictures import (
    KEY,
    RUN_SECONDS,
    Holding,
    Place,
    ended,
    faithful,
    no_permission_after,
    prompts_of,
    reca_command,
    start,
    two_scores,
)
from tests.end_to_end.rig import processes_of, wait_until
from tests.evaluation.judging import save_picture
from tests.evaluation.serving import served
from tests.evaluation.test_onnx import PHOTOGRAPHS, network, raw

pytestmark = [pytest.mark.servers, pytest.mark.benchmark_data]

GONE_SECONDS = 15.0
ANSWERED = 5


def rows(answers: Path) -> dict[str, Any]:
    """The corrected table."""
    found: dict[str, Any] = json.loads((answers / "scores.json").read_text())["corrected"]["rows"]
    return found


def scored_by_the_rules_alone(place: Place, answers: Path) -> dict[str, Any]:
    """The table that `reca score` makes of the transcript: no judge, no pictures, no resuming. It expects all 737."""
    replies = {row["prompt_id"]: row["reply"]["text"] for row in read_jsonl(answers / "transcript.jsonl")}
    (place.root / "replies.json").write_text(json.dumps(replies))
    words = ["score", "imgedit", "--answers", "replies.json", "--output", "scored.json"]
    assert ended(start(reca_command(place.home, place.data, *words), place.root))[0] == EXIT_INCOMPLETE
    found: dict[str, Any] = json.loads((place.root / "scored.json").read_text())["rows"]
    return found


def test_killed_in_the_middle_and_started_twice_at_once_nothing_is_asked_twice(
    tmp_path: Path, benchmark_data: Path
) -> None:
    place = Place(tmp_path, "imgedit", benchmark_data, per_tag=2)
    held = Holding(ANSWERED, faithful)
    with served(held) as server:
        killed = place.start(server, "--concurrency", "1")
        assert wait_until(lambda: held.reached.is_set() or killed.poll() is not None, RUN_SECONDS)
        assert killed.poll() is None, killed.communicate()
        killed.kill()
        killed.communicate()
        assert wait_until(lambda: not processes_of(place.home), GONE_SECONDS), processes_of(place.home)
        held.let_go.set()
    with served(faithful) as server:
        both = [place.start(server) for _ in range(2)]
        (first, first_said, _), (second, second_said, _) = [ended(process) for process in both]
        assert (first, second) == (EXIT_DONE, EXIT_DONE)
        assert len(server.paths) == len(place.prompts) - ANSWERED
        assert max(Counter(server.bodies).values()) == 1
    answers = Path(first_said["run_directory"])
    assert second_said["run_directory"] == str(answers)
    assert [path.name for path in (place.home / "answers").iterdir()] == [answers.name]
    asked = [row["prompt_id"] for row in read_jsonl(answers / "transcript.jsonl")]
    assert sorted(asked) == sorted(prompt.prompt_id for prompt in place.prompts)
    expected = scored_by_the_rules_alone(place, answers)
    assert {name: row["value"] for name, row in rows(answers).items()} == {
        name: row["value"] for name, row in expected.items()
    }
    assert rows(answers)["overall"]["n_scored"] == len(place.prompts)
    spent = json.loads((answers / "spent.json").read_text())["requests"]
    assert spent == len(place.prompts) + 1, "the request that the kill cut off was made too"
    assert KEY.encode() not in b"".join(path.read_bytes() for path in place.home.rglob("*") if path.is_file())


def test_a_key_that_expires_ends_it_with_what_was_answered_kept(tmp_path: Path, benchmark_data: Path) -> None:
    """GEdit, the pictures before the edit beside those after it, as upstream leaves them."""
    place = Place(tmp_path, "gedit", benchmark_data, per_tag=1, sources="pictures")
    asked = 2 * len(place.prompts)
    with served(no_permission_after(ANSWERED, two_scores)) as server:
        status, document, _ = place.run(server, "--concurrency", "1")
        assert status == EXIT_STAGE_FAILED
        assert "no permission" in json.dumps(document)
        assert len(server.paths) == ANSWERED + 1
    with served(two_scores) as server:
        status, document, _ = place.run(server)
        assert status == EXIT_DONE
        assert len(server.paths) == asked - ANSWERED
    overall = rows(Path(document["run_directory"]))["overall"]
    assert (overall["n_scored"], overall["n_expected"]) == (len(place.prompts), len(place.prompts))


def test_missing_and_unreadable_pictures_are_named_before_anything_is_asked(
    tmp_path: Path, benchmark_data: Path
) -> None:
    place = Place(tmp_path, "imgedit", benchmark_data, per_tag=1)
    missing, torn, text = (place.pictures / prompt.outputs[0] for prompt in place.prompts[:3])
    missing.unlink()
    torn.write_bytes(torn.read_bytes()[:40])
    text.write_text("<html>no such picture</html>")
    with served(faithful) as server:
        status, document, _ = place.run(server)
        assert (status, server.paths) == (EXIT_BAD_INPUT, [])
        said = json.dumps(document)
        assert f"1 missing: {missing.name}" in said
        assert "2 unreadable" in said
        assert all(path.name in said for path in (torn, text))
        status, document, _ = place.run(server, "--set", "evaluation.pictures_missing=unscored")
        assert (status, len(server.paths)) == (EXIT_INCOMPLETE, len(place.prompts) - 3)
    overall = rows(Path(document["run_directory"]))["overall"]
    assert (overall["n_scored"], overall["n_expected"]) == (len(place.prompts) - 3, len(place.prompts))


def test_a_look_ahead_counts_requests_and_dollars_and_stops_where_the_limits_do_not_cover_them(
    tmp_path: Path, benchmark_data: Path
) -> None:
    """ImgEdit asks once and at most three times per picture."""
    place = Place(tmp_path, "imgedit", benchmark_data, per_tag=2)
    most = 3 * len(place.prompts)
    prices = ["--set", "judge.dollars_per_million_input_tokens=2", "--set", "judge.dollars_per_million_output_tokens=8"]
    with served(faithful) as server:
        status, document, _ = place.run(server, "--dry-run", "--max-requests", str(most), *prices)
        assert status == EXIT_DONE
        (judging,) = [step for step in document["plan"] if step["stage"].startswith("judge")]
        assert f"{len(place.prompts)} to {most} questions" in judging["work"]
        dollars = float(judging["work"].partition("at most ")[2].partition(" dollars")[0])
        assert dollars > 0
        enough, short = f"{dollars + 0.01:.2f}", f"{dollars / 2:.2f}"
        assert place.run(server, "--dry-run", "--max-cost", enough, *prices)[0] == EXIT_DONE
        for words, field in (
            (["--max-requests", str(most - 1)], "judge.max_requests"),
            (["--max-cost", short, *prices], "judge.max_cost_dollars"),
            (["--max-cost", "100"], "judge.max_cost_dollars"),
        ):
            status, document, _ = place.run(server, "--dry-run", *words)
            assert status == EXIT_BAD_INPUT
            assert field in json.dumps(document)
        assert server.paths == []


def test_geneval_is_judged_by_a_detector_file_and_dpg_without_its_table_asks_nobody(
    tmp_path: Path, benchmark_data: Path
) -> None:
    prompts = prompts_of("geneval", benchmark_data, 1)
    for number, prompt in enumerate(prompts):
        save_picture(tmp_path / "pictures" / prompt.outputs[0], f"#00{number:02x}80", (64, 64))
    network(tmp_path / "three.onnx", raw([(1, 1, 60, 60, known.index, 0.9) for known in PHOTOGRAPHS], "v8"))
    words = ["evaluate", "--benchmark", "geneval", "--images", "pictures", "--set", "evaluation.prompts_per_tag=1"]
    words += ["--judge", "onnx", "--judge-weights", "three.onnx", "--set", "judge.decoding_processes=0"]
    status, document, _ = ended(start(reca_command(tmp_path / "home", benchmark_data, *words), tmp_path))
    assert status in (EXIT_DONE, EXIT_INCOMPLETE), document
    answers = Path(document["run_directory"])
    assert json.loads((answers / "scores.json").read_text())["corrected"]["benchmark"] == "geneval.three"
    assert rows(answers)["overall"]["n_expected"] == len(prompts)
    with served(faithful) as server:
        words = ["evaluate", "--benchmark", "dpg", "--images", "pictures", "--judge", "openai"]
        words += ["--judge-url", f"{server.url}/v1", "--judge-model", "judge-1"]
        status, document, _ = ended(start(reca_command(tmp_path / "home", benchmark_data, *words), tmp_path))
        assert (status, server.paths) == (EXIT_PREREQUISITE, [])
    assert "dpg_bench.csv" in json.dumps(document)

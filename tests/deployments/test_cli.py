"""The grammar of `reca`: instant help, closest names, one JSON object, exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deployments import arguments
from deployments.cli import main
from deployments.commands.sampling import read_seeds, read_texts
from reca_core.contracts.errors import EXIT_BAD_INPUT, BadInput

HELP_SECONDS = 0.5
HEAVY = ("prefect", "mlflow", "torch", "pydantic", "rich", "PIL")


def test_help_takes_at_most_half_a_second_and_imports_nothing_heavy() -> None:
    probe = (
        "import sys\nfrom deployments import cli\ntry:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"sys.stderr.write(','.join(name for name in {HEAVY!r} if name in sys.modules))"
    )
    times = []
    for _ in range(3):
        began = time.monotonic()
        result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
        times.append(time.monotonic() - began)
    assert min(times) <= HELP_SECONDS
    assert result.stderr == ""
    for command in (*arguments.FLOWS, "demo", "run", "score", "compare", "generate", "reconstruct", "describe"):
        assert command in result.stdout


@pytest.mark.parametrize("flow", arguments.FLOWS)
def test_a_flow_is_started_by_run_or_by_its_own_name_with_dashes_or_underscores(flow: str) -> None:
    underscored = flow.replace("-", "_")
    parse = arguments.build().parse_args
    found = [parse(words) for words in (["run", flow], ["run", underscored], [flow], [underscored])]
    assert {options.flow for options in found} == {flow}
    assert len({options.target for options in found[:2]}) == len({options.target for options in found[2:]}) == 1
    own = "deployments.commands.rollback:rollback" if flow == "rollback" else found[0].target
    assert found[2].target == own, "only rollback has a command of its own, which finds the stack"


def test_shared_options_stand_before_or_after_the_command() -> None:
    parse = arguments.build().parse_args
    assert parse(["--home", "x", "demo", "--json"]) == parse(["demo", "--home", "x", "--json"])


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["demoo"], "demo"), (["run", "evalute"], "evaluate"), (["run", "post_trian"], "post-train")],
)
def test_an_unknown_name_exits_2_and_names_the_closest(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == EXIT_BAD_INPUT
    assert f"did you mean {meant}?" in capsys.readouterr().err


def test_with_json_a_fault_is_one_object_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demoo", "--json"]) == EXIT_BAD_INPUT
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    document = json.loads(out)
    assert document["exit_code"] == EXIT_BAD_INPUT
    assert set(document["errors"][0]) == {"field", "fact", "choices", "remedy"}


def test_options_are_not_abbreviated() -> None:
    with pytest.raises(BadInput):
        arguments.build().parse_args(["run", "evaluate", "--dry"])


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-3", [0, 1, 2, 3]), ("1,5,9", [1, 5, 9]), ("7", [7]), ("0-2,1,8", [0, 1, 2, 8])]
)
def test_seeds_are_ranges_and_lists(text: str, seeds: list[int]) -> None:
    assert read_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1-", "0-9999999999"])
def test_what_names_no_seeds_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--seeds"):
        read_seeds(text)


def test_prompts_are_read_to_the_last_line_with_or_without_a_newline(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"text": "a"}\n\n{"prompt": "b", "tag": "counting"}')
    assert read_texts(file) == ["a", "b"]


@pytest.mark.parametrize("line", ['{"text": 3}', "{}", "[]", "nonsense"])
def test_a_prompt_without_text_is_refused_by_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(f'{{"text": "a"}}\n{line}\n')
    with pytest.raises(BadInput, match="line 2"):
        read_texts(file)


def test_nothing_to_draw_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    words = ["generate", "--model", "tiny-janus", "--output", str(tmp_path / "out"), "--home", str(tmp_path / "home")]
    assert main(words) == EXIT_BAD_INPUT
    assert not list(tmp_path.iterdir())


def test_the_help_of_a_flow_lists_its_settings_and_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["run", "evaluate", "--help"], ["evaluate", "-h"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code in (0, None)
        text = " ".join(capsys.readouterr().out.split())
        assert 'model.source = "tiny-janus"' in text
        assert "at least 1, at most 100" in text
        assert '"corrected", "parity"' in text
        assert "janus-pro-1b" in text
        assert "training.steps" not in text


def test_the_console_script_is_installed() -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(["reca", "--help"], env=environment, capture_output=True, text=True, check=True)
    assert "exit status" in result.stdout

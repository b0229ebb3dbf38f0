"""A real flow with a judge behind an address: it is asked while pictures are still made, and that changes no result."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from reca_core.contracts.errors import EXIT_DONE
from reca_core.contracts.files import read_jsonl
from reca_core.models.load import adapter_class
from tests.end_to_end.judged_pictures import RUN_SECONDS, Holding, Place, ended, faithful
from tests.end_to_end.rig import processes_of, wait_until
from tests.evaluation.serving import served

pytestmark = [pytest.mark.servers, pytest.mark.benchmark_data]

GONE_SECONDS = 15.0
ANSWERED = 2
SAMPLER = "reca_core.launch sample"
SLOWLY = ["--set", "sampling.images_per_batch=1", "--set", "sampling.steps=40", "--set", "sampling.device=cpu"]
"""A picture takes long enough that the judge's child finds some there and others not."""


def sampler_of(home: Path) -> int:
    """Its pid, 0 while there is none."""
    return next((pid for pid, command in processes_of(home).items() if SAMPLER in command), 0)


def drawn(home: Path) -> list[dict[str, Any]]:
    return [row for file in (home / "samples").glob("*/samples.jsonl") for row in read_jsonl(file)]


def complete(home: Path) -> bool:
    return any((home / "samples").glob("*/DONE.json"))


def rows(document: dict[str, Any]) -> Any:
    return {name: table["rows"] for name, table in json.loads(Path(document["scores"][0]).read_text()).items()}


def test_the_judge_is_asked_while_pictures_are_made_and_nothing_differs_after_a_kill(
    tmp_path: Path, benchmark_data: Path
) -> None:
    place = Place(tmp_path, "imgedit", benchmark_data, per_tag=1)
    adapter_class("bagel").smallest(seed=0).save(tmp_path / "smallest")
    model = ["--model", str(tmp_path / "smallest"), *SLOWLY]
    count, held = len(place.prompts), Holding(ANSWERED, faithful)
    with served(held) as server:
        killed = place.start(server, "--concurrency", "1", *model, pictures=False)
        assert wait_until(lambda: drawn(place.home) or killed.poll() is not None, RUN_SECONDS)
        assert killed.poll() is None, killed.communicate()
        os.kill(sampler_of(place.home), signal.SIGSTOP)
        made = len(drawn(place.home))
        assert wait_until(lambda: held.reached.is_set() or len(server.paths) == made, RUN_SECONDS)
        assert (made < count, complete(place.home)) == (True, False), "asked before the last picture was there"
        os.kill(sampler_of(place.home), signal.SIGCONT)
        assert wait_until(held.reached.is_set, RUN_SECONDS)
        killed.kill()
        killed.communicate()
        assert wait_until(lambda: not processes_of(place.home), GONE_SECONDS), processes_of(place.home)
        held.let_go.set()
    with served(faithful) as server:
        status, overlapped, said = ended(place.start(server, *model, pictures=False))
        assert status == EXIT_DONE, said
        assert len(server.paths) == count - ANSWERED
        assert max(Counter(server.bodies).values()) == 1
    (samples,) = (file.parent for file in (place.home / "samples").glob("*/DONE.json"))
    assert len(drawn(place.home)) == count
    assert not (samples / "asked-ahead").exists() or not any((samples / "asked-ahead").iterdir())
    spent = json.loads((Path(overlapped["run_directory"]) / "spent.json").read_text())["requests"]
    assert spent == count + 1, "the request that the kill cut off was made too"
    place.home, place.pictures = tmp_path / "another home", samples
    with served(faithful) as server:
        status, alone, said = ended(place.start(server))
        assert status == EXIT_DONE, said
        assert len(server.paths) == count
    assert rows(alone) == rows(overlapped)

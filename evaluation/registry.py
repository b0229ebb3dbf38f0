"""The explicit tables of benchmarks and of their own judges. Strings only, so nothing heavy loads in the control plane.

An id is ``NAME`` for the published judge or ``NAME.JUDGE`` for any other; ``geneval.shapeworld`` is GenEval's rules in
the rendered world, read by its own judge. Judges of photographs are chosen by settings, which give the id its suffix
(evaluation/judges/selection.py). Adding a benchmark: one folder in ``evaluation/benchmarks``, one line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.benchmark import Benchmark, BenchmarkCard, Judge, PromptPlan
from evaluation.judges.opening import JudgePlace
from evaluation.judges.selection import choice_faults, judge_version, judged_id, open_chosen, settled
from reca_core.contracts.errors import BadInput
from reca_core.contracts.hashing import canonical_json, sha256_text
from reca_core.contracts.judging import JudgeSettings

FIELD = "evaluation.benchmarks"
VERSIONS_PER_RULES = 1000
"""Room for the judge's version below that of the rules."""


@dataclass(frozen=True)
class BenchmarkEntry:
    """One benchmark."""

    rules: str
    """``package.module:Class`` with the classmethod ``open(benchmark_id, plan, data, world)``."""
    judge: str
    """Judge of its own behind the bare id; empty where one is chosen by settings."""
    world: str
    """Judge behind ``NAME.shapeworld``, the benchmark's form in the rendered world; empty where it has none."""
    numerics_version: int
    """Raised by whoever changes a result of these rules."""


@dataclass(frozen=True)
class JudgeEntry:
    """One judge that is not chosen by settings."""

    judge: str
    """``package.module:Class``."""
    numerics_version: int
    """Raised by whoever changes an answer of this judge."""


WORLD = "shapeworld"
"""Suffix of the rendered form of a benchmark: prompts, questions and source pictures of the rendered world."""
PUBLISHED, REPLY, ENDPOINT = "published", "reply", "openai"
BENCHMARKS: dict[str, BenchmarkEntry] = {
    "geneval": BenchmarkEntry("evaluation.benchmarks.geneval.benchmark:GenEval", "", "shapeworld", 1),
    "dpg": BenchmarkEntry("evaluation.benchmarks.dpg.benchmark:DpgBench", "", "shapeworld", 1),
    "imgedit": BenchmarkEntry("evaluation.benchmarks.imgedit.benchmark:ImgEdit", "", "shapeworld", 1),
    "gedit": BenchmarkEntry("evaluation.benchmarks.gedit.benchmark:GEdit", "", "shapeworld", 1),
    "pope": BenchmarkEntry("evaluation.understanding.pope:Pope", "reply", "reply", 1),
    "mme": BenchmarkEntry("evaluation.understanding.mme:Mme", "reply", "", 1),
    "mmvp": BenchmarkEntry("evaluation.understanding.mmvp:Mmvp", "reply", "", 1),
    "scenes": BenchmarkEntry("evaluation.understanding.scenes:Scenes", "reply", "reply", 1),
}
JUDGES: dict[str, JudgeEntry] = {
    "shapeworld": JudgeEntry("evaluation.judges.shapeworld:ShapeworldJudge", 1),
    "reply": JudgeEntry("evaluation.judges.reply:ReplyJudge", 1),
}


def split_id(benchmark_id: str) -> tuple[str, str]:
    """Benchmark and judge of an id; the judge is empty for the published one."""
    name, _, judge = benchmark_id.partition(".")
    return name, judge


def known_ids() -> list[str]:
    """The ids that need no choice of a judge: every benchmark, and its rendered form where it has one."""
    return [*BENCHMARKS, *(f"{name}.{WORLD}" for name, entry in BENCHMARKS.items() if entry.world)]


def benchmark_faults(benchmark_id: str, settings: JudgeSettings = JudgeSettings()) -> Iterator[BadInput]:
    """What is wrong with an id and a judge as something to evaluate; nothing where it is fine."""
    name, suffix = split_id(benchmark_id)
    if name not in BENCHMARKS or benchmark_id.endswith("."):
        yield BadInput(f"no benchmark is called {benchmark_id!r}", field=FIELD, choices=known_ids())
    elif WORLD in (suffix, settings.judge):
        yield from _world_faults(name, suffix, settings)
    elif BENCHMARKS[name].judge:
        if suffix or settings.judge != PUBLISHED:
            yield BadInput(f"{name} is judged by its own rule alone", field=FIELD, choices=(name, f"{name}.{WORLD}"))
    else:
        faults = list(choice_faults(name, settings))
        yield from faults
        if suffix and not faults and judged_id(name, settings) != benchmark_id:
            yield BadInput(
                f"{benchmark_id} names a judge that judge.judge = {settings.judge} does not give",
                field=FIELD,
                choices=known_ids(),
                remedy=f"name {name} and choose the judge: --judge NAME, which gives the id its suffix",
            )


def _world_faults(name: str, suffix: str, settings: JudgeSettings) -> Iterator[BadInput]:
    if not BENCHMARKS[name].world:
        yield BadInput(f"{name} has no form in the rendered world", field=FIELD, choices=known_ids())
    elif suffix not in ("", WORLD) or settings.judge not in (PUBLISHED, WORLD):
        yield BadInput(
            f"{settings.judge} cannot judge {name}.{suffix or WORLD}",
            field="judge.judge",
            choices=(PUBLISHED, WORLD),
        )


def reads_replies(benchmark_id: str) -> bool:
    """Whether it measures what a model says about pictures, not pictures that it draws. Raises BadInput for none."""
    return _entry(split_id(benchmark_id)[0]).judge == REPLY


def judged_as(benchmark_id: str, settings: JudgeSettings) -> str:
    """The full id of the scores that a judge gives. Raises BadInput for what cannot be judged so."""
    for fault in benchmark_faults(benchmark_id, settings):
        raise fault
    name, suffix = split_id(benchmark_id)
    if WORLD in (suffix, settings.judge):
        return f"{name}.{WORLD}"
    return name if BENCHMARKS[name].judge else judged_id(name, settings)


def judged_elsewhere(benchmark_id: str, settings: JudgeSettings) -> bool:
    """Whether the judge computes on another machine, so that asking it takes nothing from this one."""
    name, _ = split_id(benchmark_id)
    return not _own_judge(benchmark_id) and settled(name, settings).judge == ENDPOINT


def _own_judge(benchmark_id: str) -> str:
    """The judge that an id has of its own; empty where settings choose one."""
    name, suffix = split_id(benchmark_id)
    return _entry(name).world if suffix == WORLD else _entry(name).judge


def _entry(name: str) -> BenchmarkEntry:
    if name not in BENCHMARKS:
        raise BadInput(f"no benchmark is called {name!r}", field=FIELD, choices=tuple(BENCHMARKS))
    return BENCHMARKS[name]


def numerics_version(benchmark_id: str, settings: JudgeSettings = JudgeSettings()) -> int:
    """Version of the rules and the judge behind an id, in one number. Raises BadInput for what cannot be judged."""
    name, _ = split_id(benchmark_id)
    own = _own_judge(benchmark_id)
    judge = JUDGES[own].numerics_version if own else judge_version(name, settings)
    return _entry(name).numerics_version * VERSIONS_PER_RULES + judge


def benchmark_class(name: str) -> type[Any]:
    """The class with a benchmark's rules. Raises BadInput for an unknown benchmark."""
    return _load(_entry(name).rules)


def card(benchmark_id: str) -> BenchmarkCard:
    """What a reader of the benchmark's numbers needs to know. Raises BadInput for an unknown benchmark."""
    found: BenchmarkCard = benchmark_class(split_id(benchmark_id)[0]).card
    return found


def data_revision(benchmark_id: str) -> str:
    """Hash over the pinned files behind an id; empty for a rendered world, which has none."""
    files = () if split_id(benchmark_id)[1] == WORLD else card(benchmark_id).files
    return (
        sha256_text(canonical_json(sorted((file.path, file.sha256, file.git_blob) for file in files))) if files else ""
    )


def open_benchmark(benchmark_id: str, plan: PromptPlan, data: Path | None) -> Benchmark:
    """The rules over the prompts of a plan.

    Args:
        data: folder with the benchmarks' own files; rendered worlds need none.
    Raises: BadInput for no benchmark; PrerequisiteMissing for absent or altered data.
    """
    name, suffix = split_id(benchmark_id)
    if suffix == WORLD and not _entry(name).world:
        raise BadInput(f"{name} has no form in the rendered world", field=FIELD, choices=known_ids())
    benchmark: Benchmark = benchmark_class(name).open(benchmark_id, plan, data, suffix if suffix == WORLD else "")
    return benchmark


def asks_endpoint(benchmark_id: str, settings: JudgeSettings) -> bool:
    """Whether replies come from an address: more processes would ask no faster, and spend each its own budget."""
    return not _own_judge(benchmark_id) and settled(split_id(benchmark_id)[0], settings).judge == "openai"


def prompt_texts(name: str, data: Path | None) -> list[str]:
    """What the published prompts of a benchmark say that draws from text.

    Raises: BadInput for no benchmark; PrerequisiteMissing for absent or altered data.
    """
    texts: list[str] = benchmark_class(name).prompt_texts(data)
    return texts


def open_judge(benchmark_id: str, place: JudgePlace, settings: JudgeSettings) -> Judge:
    """The judge behind a full id, ready to answer. Raises BadInput for what cannot be judged so, and what its own
    ``open`` raises."""
    own = _own_judge(benchmark_id)
    if not own:
        return open_chosen(place, settings)
    judge: Judge = _load(JUDGES[own].judge)()
    return judge


def _load(target: str) -> type[Any]:
    module, _, name = target.partition(":")
    loaded: type[Any] = getattr(importlib.import_module(module), name)
    return loaded

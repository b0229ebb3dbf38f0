"""The explicit tables of benchmarks and judges. Strings only, so nothing heavy loads in the control plane.

An id is ``NAME`` for the published judge or ``NAME.JUDGE`` for any other; ``geneval.shapeworld`` is GenEval's rules in
the rendered world, read by its own judge. Adding a benchmark: one folder in ``evaluation/benchmarks``, one line here.
Adding a judge: one file in ``evaluation/judges``, one line here, and its name at the benchmarks it judges.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.benchmark import Benchmark, BenchmarkCard, Judge, PromptPlan
from reca_core.contracts.errors import BadInput

FIELD = "evaluation.benchmarks"
VERSIONS_PER_RULES = 1000
"""Room for the judge's version below that of the rules."""


@dataclass(frozen=True)
class BenchmarkEntry:
    """One benchmark."""

    rules: str
    """``package.module:Class`` with the classmethod ``open(benchmark_id, plan, data, world)``."""
    published: str
    """Judge behind the bare id; empty where there is none here."""
    world: str
    """Judge behind ``NAME.shapeworld``, the benchmark's form in the rendered world; empty where it has none."""
    numerics_version: int
    """Raised by whoever changes a result of these rules."""


@dataclass(frozen=True)
class JudgeEntry:
    """One judge."""

    judge: str
    """``package.module:Class``."""
    numerics_version: int
    """Raised by whoever changes an answer of this judge."""


WORLD = "shapeworld"
"""Suffix of the rendered form of a benchmark: prompts, questions and source pictures of the rendered world."""
BENCHMARKS: dict[str, BenchmarkEntry] = {
    "geneval": BenchmarkEntry("evaluation.benchmarks.geneval.benchmark:GenEval", "", "shapeworld", 1),
    "dpg": BenchmarkEntry("evaluation.benchmarks.dpg.benchmark:DpgBench", "", "shapeworld", 1),
    "imgedit": BenchmarkEntry("evaluation.benchmarks.imgedit.benchmark:ImgEdit", "", "shapeworld", 1),
    "gedit": BenchmarkEntry("evaluation.benchmarks.gedit.benchmark:GEdit", "", "shapeworld", 1),
    "pope": BenchmarkEntry("evaluation.understanding.pope:Pope", "reply", "reply", 1),
    "mme": BenchmarkEntry("evaluation.understanding.mme:Mme", "reply", "", 1),
    "mmvp": BenchmarkEntry("evaluation.understanding.mmvp:Mmvp", "reply", "", 1),
}
JUDGES: dict[str, JudgeEntry] = {
    "shapeworld": JudgeEntry("evaluation.judges.shapeworld:ShapeworldJudge", 1),
    "reply": JudgeEntry("evaluation.judges.reply:ReplyJudge", 1),
}


def split_id(benchmark_id: str) -> tuple[str, str]:
    """Benchmark and judge of an id; the judge is empty for the published one."""
    name, _, judge = benchmark_id.partition(".")
    return name, judge


def judge_name(benchmark_id: str) -> str:
    """The judge behind an id; empty where there is none here. Raises BadInput for an unknown benchmark."""
    name, suffix = split_id(benchmark_id)
    entry = _entry(name)
    return {"": entry.published, WORLD: entry.world}.get(suffix, "")


def judged_ids() -> list[str]:
    """Every id that can be evaluated: a benchmark with a judge that exists here."""
    return [
        benchmark_id for name in BENCHMARKS for benchmark_id in (name, f"{name}.{WORLD}") if judge_name(benchmark_id)
    ]


def benchmark_faults(benchmark_id: str) -> Iterator[BadInput]:
    """What is wrong with an id as something to evaluate; nothing where it is fine."""
    name, judge = split_id(benchmark_id)
    if name not in BENCHMARKS:
        yield BadInput(f"no benchmark is called {name!r}", field=FIELD, choices=judged_ids())
    elif not judge_name(benchmark_id):
        missing = f"judge {judge!r}" if judge else "published judge"
        yield BadInput(f"{name} has no {missing} here", field=FIELD, choices=judged_ids())


def _entry(name: str) -> BenchmarkEntry:
    if name not in BENCHMARKS:
        raise BadInput(f"no benchmark is called {name!r}", field=FIELD, choices=tuple(BENCHMARKS))
    return BENCHMARKS[name]


def numerics_version(benchmark_id: str) -> int:
    """Version of the rules and the judge behind an id, in one number. Raises BadInput for an unknown benchmark."""
    name, _ = split_id(benchmark_id)
    judge = judge_name(benchmark_id)
    judge_version = JUDGES[judge].numerics_version if judge else 0
    return _entry(name).numerics_version * VERSIONS_PER_RULES + judge_version


def benchmark_class(name: str) -> type[Any]:
    """The class with a benchmark's rules. Raises BadInput for an unknown benchmark."""
    return _load(_entry(name).rules)


def card(benchmark_id: str) -> BenchmarkCard:
    """What a reader of the benchmark's numbers needs to know. Raises BadInput for an unknown benchmark."""
    found: BenchmarkCard = benchmark_class(split_id(benchmark_id)[0]).card
    return found


def open_benchmark(benchmark_id: str, plan: PromptPlan, data: Path | None) -> Benchmark:
    """The rules over the prompts of a plan.

    Args:
        data: folder with the benchmarks' own files; rendered worlds need none.
    Raises: BadInput for an id that cannot be evaluated here; PrerequisiteMissing for absent or altered data.
    """
    for fault in benchmark_faults(benchmark_id):
        raise fault
    name, suffix = split_id(benchmark_id)
    benchmark: Benchmark = benchmark_class(name).open(benchmark_id, plan, data, suffix if suffix == WORLD else "")
    return benchmark


def open_judge(benchmark_id: str) -> Judge:
    """The judge that an id names. Raises BadInput for an id that cannot be evaluated here."""
    for fault in benchmark_faults(benchmark_id):
        raise fault
    judge: Judge = _load(JUDGES[judge_name(benchmark_id)].judge)()
    return judge


def _load(target: str) -> type[Any]:
    module, _, name = target.partition(":")
    loaded: type[Any] = getattr(importlib.import_module(module), name)
    return loaded

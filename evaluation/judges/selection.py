"""Which judges can judge what, the id that a choice gives, and how one is opened. Strings only: torch-free.

A judge of photographs is chosen by ``JudgeSettings``; the judges of rendered worlds and of replies stand in
evaluation/registry.py. Adding one: a file here with ``open(place, settings)``, a line in ``JUDGES``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass

from evaluation.benchmark import Judge
from evaluation.judges.budget import Prices, expected_usage
from evaluation.judges.detector_label import PUBLISHED_SHA256_PREFIX
from evaluation.judges.opening import JudgePlace, judge_suffix, known_hash
from reca_core.contracts.errors import BadInput
from reca_core.contracts.judging import JudgeSettings

FIELD = "judge.judge"


@dataclass(frozen=True)
class JudgeChoice:
    """One judge of photographs."""

    judge: str
    """``package.module:Class``."""
    benchmarks: tuple[str, ...]
    """What it can judge."""
    numerics_version: int
    """Raised by whoever changes an answer of this judge."""


JUDGES: dict[str, JudgeChoice] = {
    "detector": JudgeChoice("evaluation.judges.detector_mask2former:DetectorJudge", ("geneval",), 1),
    "onnx": JudgeChoice("evaluation.judges.onnx:OnnxJudge", ("geneval",), 1),
    "vqa": JudgeChoice("evaluation.judges.vqa:VqaJudge", ("dpg",), 1),
    "openai": JudgeChoice("evaluation.judges.vlm_endpoint:EndpointJudge", ("imgedit", "gedit", "dpg"), 1),
    "local": JudgeChoice("evaluation.judges.local_vlm:LocalVlmJudge", ("imgedit", "gedit", "dpg"), 1),
}
PUBLISHED: dict[str, str] = {"geneval": "detector", "dpg": "vqa", "imgedit": "openai", "gedit": "openai"}
"""Benchmark -> the judge of its paper's number."""


def settled(benchmark: str, settings: JudgeSettings) -> JudgeSettings:
    """The settings with ``published`` replaced by the judge and protocol that it stands for.

    Raises BadInput for a judge that cannot judge the benchmark.
    """
    for fault in choice_faults(benchmark, settings):
        raise fault
    if settings.judge != "published":
        return settings
    judge = PUBLISHED[benchmark]
    protocol = "published" if judge == "openai" else settings.protocol
    return type(settings).model_validate({**settings.model_dump(), "judge": judge, "protocol": protocol})


def choice_faults(benchmark: str, settings: JudgeSettings) -> Iterator[BadInput]:
    """What is wrong with a choice; nothing where it is fine."""
    able = [name for name, choice in JUDGES.items() if benchmark in choice.benchmarks]
    if settings.judge == "published" and benchmark not in PUBLISHED:
        yield BadInput(f"{benchmark} has no published judge here", field=FIELD, choices=able)
    elif settings.judge not in (*able, "published", "shapeworld"):
        yield BadInput(f"{settings.judge} cannot judge {benchmark}", field=FIELD, choices=able)


def judged_id(benchmark: str, settings: JudgeSettings) -> str:
    """The id of the scores: bare for the published judge, with a suffix for any other. Raises BadInput."""
    chosen = settled(benchmark, settings)
    original = chosen.judge == "detector" and known_hash(chosen).startswith(PUBLISHED_SHA256_PREFIX)
    suffix = "" if original else judge_suffix(chosen)
    return f"{benchmark}.{suffix}" if suffix else benchmark


def judge_version(benchmark: str, settings: JudgeSettings) -> int:
    """Numerics version of the chosen judge. Raises BadInput for a choice that cannot be."""
    return JUDGES[settled(benchmark, settings).judge].numerics_version


def open_chosen(place: JudgePlace, settings: JudgeSettings) -> Judge:
    """The chosen judge, ready to answer. Raises what its ``open`` raises, and BadInput for an impossible choice."""
    chosen = settled(place.benchmark, settings)
    module, _, name = JUDGES[chosen.judge].judge.partition(":")
    judge: Judge = getattr(importlib.import_module(module), name).open(place, chosen)
    return judge


def upper_cost(requests: int, text_bytes: int, pictures: int, settings: JudgeSettings) -> float:
    """Dollars that so many requests cost at most, each with so much text and so many pictures and a usual reply.

    For ``--dry-run``. 0 where no prices are set. Raises BadInput for a limit in dollars without prices.
    """
    return requests * Prices.of(settings).dollars(expected_usage(text_bytes, pictures, None))

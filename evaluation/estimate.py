"""How much a judging will ask before it asks: requests at least and at most, and how large they are. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.benchmark import Benchmark
from evaluation.records import Question
from reca_core.contracts.records import Prompt, Sample


@dataclass(frozen=True)
class Estimate:
    """What one judging of all pictures takes."""

    pictures: int
    """Pictures or replies to judge."""
    least: int
    """Requests if every reply can be used and nothing more needs to be asked."""
    most: int
    """Requests if every reply has to be asked for as often as the rules allow."""
    text_bytes: int
    """Of the longest question."""
    pictures_sent: int
    """With the request that sends most."""


def estimate(benchmark: Benchmark) -> Estimate:
    """From the benchmark's own first questions about every prompt."""
    pictures = least = most = text_bytes = pictures_sent = 0
    for prompt in benchmark.prompts():
        first = benchmark.questions(prompt, _unseen(prompt), {})
        seeds = len(prompt.seeds)
        pictures += seeds
        least += seeds * len(first)
        most += seeds * benchmark.most_asks(prompt)
        text_bytes = max([text_bytes, *(len(question.text.encode()) for question in first)])
        pictures_sent = max([pictures_sent, *map(_pictures_in, first)])
    return Estimate(pictures, least, most, text_bytes, pictures_sent)


def _unseen(prompt: Prompt) -> Sample:
    return Sample(prompt_id=prompt.prompt_id, seed=prompt.seeds[0], text=prompt.text, image_path="", sha256="")


def _pictures_in(question: Question) -> int:
    return sum(part != "text" for part in question.parts)

"""Several trainings of one arm against those of another: the difference with a 95% interval over seeds and prompts.

Both factors are resampled at once (crossed bootstrap; Owen 2007, "The pigeonhole bootstrap", Annals of Applied
Statistics 1): trainings with replacement, and prompts within every group as in evaluation/aggregate.py. Both arms share
both draws, training k of one is paired with training k of the other, and an arm that was never trained (the base) is
the same in every repetition. With few trainings the interval rests mostly on the prompts; ``n_seeds`` says how many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from pydantic import FiniteFloat

from evaluation.aggregate import (
    DEFAULT_RESAMPLES,
    DEFAULT_SEED,
    FEWEST_CLUSTERS,
    SEED_BYTES,
    cluster_count,
    interval,
    point_value,
    resampled_values,
)
from evaluation.benchmark import RowData
from evaluation.compare import Measurement, refuse_unequal
from evaluation.registry import benchmark_class, split_id
from reca_core.contracts.base import Record

Resamples = Float[np.ndarray, " resamples"]


class StudyRow(Record):
    """One number of an arm, or one difference between two."""

    value: FiniteFloat | None
    """Mean over the trainings; None where one of them has no value."""
    low: FiniteFloat | None
    """95% interval over trainings and prompts; None where there are too few prompts."""
    high: FiniteFloat | None
    n_seeds: int
    n_scored: int
    """Items per training."""


@dataclass(frozen=True)
class Distribution:
    """A number with its value in every resample: what rows and contrasts of rows are made of."""

    value: float | None
    resamples: Resamples | None
    n_seeds: int
    n_scored: int

    def row(self) -> StudyRow:
        """With its interval."""
        low, high = interval(self.resamples) if self.resamples is not None else (None, None)
        return StudyRow(value=self.value, low=low, high=high, n_seeds=self.n_seeds, n_scored=self.n_scored)

    def plus(self, other: Distribution, mine: float, theirs: float) -> Distribution:
        """``mine`` times this number and ``theirs`` times one that shares its resamples."""
        value = None if self.value is None or other.value is None else mine * self.value + theirs * other.value
        both = None
        if self.resamples is not None and other.resamples is not None:
            both = mine * self.resamples + theirs * other.resamples
        return Distribution(value, both, max(self.n_seeds, other.n_seeds), min(self.n_scored, other.n_scored))

    def __sub__(self, other: Distribution) -> Distribution:
        return self.plus(other, 1, -1)


Distributions = Mapping[str, Distribution]
"""Row name -> number."""


def distributions(
    trainings: Sequence[Measurement], repetitions: int, resamples: int = DEFAULT_RESAMPLES, seed: int = DEFAULT_SEED
) -> dict[str, Distribution]:
    """Every row of an arm.

    Args:
        trainings: one measurement per training in the order of the repetitions; a single one stands for all of them.
        repetitions: how many trainings the study has: arms of one study share the draw of them.

    Raises: ComparisonRefused if the trainings were not measured alike.
    """
    for other in trainings[1:]:
        refuse_unequal(trainings[0], other)
    first = trainings[0].table
    rules = benchmark_class(split_id(first.benchmark)[0])
    rows: list[dict[str, RowData]] = [rules.rows(one.judgments, first.arithmetic) for one in trainings]
    weights = _seed_weights(repetitions, resamples, seed)
    return {name: _distribution([row[name] for row in rows], weights, resamples, seed) for name in rows[0]}


def _distribution(
    rows: Sequence[RowData], weights: Float[np.ndarray, "resamples trainings"], resamples: int, seed: int
) -> Distribution:
    values = [point_value(row) for row in rows]
    known = [value for value in values if value is not None]
    scored = min(row.n_scored for row in rows)
    if len(known) < len(values):
        return Distribution(None, None, len(rows), scored)
    mean = sum(known) / len(known)
    if any(cluster_count(row) < FEWEST_CLUSTERS for row in rows):
        return Distribution(mean, None, len(rows), scored)
    drawn = np.stack([resampled_values(row, resamples, seed) for row in rows], axis=1)
    if len(rows) == 1:
        return Distribution(mean, drawn[:, 0], 1, scored)
    return Distribution(mean, (drawn * weights).sum(axis=1), len(rows), scored)


def _seed_weights(repetitions: int, resamples: int, seed: int) -> Float[np.ndarray, "resamples trainings"]:
    """How much each training counts in each resample; rows sum to 1."""
    digest = hashlib.sha256(f"{seed}/trainings/{repetitions}".encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:SEED_BYTES], "big")))
    return generator.multinomial(repetitions, np.full(repetitions, 1 / repetitions), size=resamples) / repetitions

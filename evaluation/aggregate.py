"""From judgments to numbers with intervals: means of group means, and a bootstrap over prompts.

Pictures of one prompt are not independent, so whole prompts are resampled (cluster bootstrap; Davison & Hinkley 1997,
section 3.8), separately within every group because a benchmark fixes how many prompts each tag has. 95% percentile
interval. The draws depend on the seed, the group's name and its number of prompts only: the same judgments give the
same interval anywhere, and a tag's own row and its part in the overall share their draws.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from evaluation.benchmark import Group, RowData
from evaluation.records import ScoreRow

DEFAULT_RESAMPLES = 2000
DEFAULT_SEED = 0
INTERVAL_PERCENTILES = (2.5, 97.5)
LARGEST_SCORE = 1e100
"""Nothing beyond it is a score: sums of such numbers overflow, and a table holds finite numbers only."""
FEWEST_CLUSTERS = 2
"""With one prompt in all there is nothing to resample: no interval instead of one of width zero."""
SEED_BYTES = 8


@dataclass(frozen=True)
class ClusterSums:
    """A group with its weighted values and its weights summed per prompt, prompts in sorted order."""

    names: tuple[str, ...]
    sums: Float[np.ndarray, " clusters"]
    weights: Float[np.ndarray, " clusters"]


def cluster_sums(group: Group) -> ClusterSums:
    """Sum the values of every prompt of a group."""
    names = sorted(set(group.clusters))  # not np.unique: its fixed-width text takes the longest name for every value
    place = {name: at for at, name in enumerate(names)}
    index = np.fromiter((place[name] for name in group.clusters), dtype=np.int64, count=len(group.clusters))
    values = np.asarray(group.values, dtype=np.float64)
    weights = np.asarray(group.weights or np.ones_like(values), dtype=np.float64)
    sums = np.bincount(index, weights=values * weights, minlength=len(names))
    return ClusterSums(tuple(names), sums, np.bincount(index, weights=weights, minlength=len(names)))


def draw_counts(name: str, clusters: int, resamples: int, seed: int) -> Int[np.ndarray, "resamples clusters"]:
    """How often each prompt of a group occurs in each resample: multinomial rows that sum to ``clusters``."""
    digest = hashlib.sha256(f"{seed}/{name}/{clusters}".encode(errors="surrogatepass")).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:SEED_BYTES], "big")))
    return generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)


def plain_mean(values: Sequence[float]) -> float:
    """Left-to-right sum over the count: what the upstream scripts do, so that their rounding is met as well."""
    total = 0.0
    for value in values:
        total += value
    return total / len(values)


def group_mean(group: Group) -> float | None:
    """The weighted mean of a group, or None where nothing in it has weight."""
    if not group.weights:
        return plain_mean(group.values) if group.values else None
    total = sum(group.weights)
    return sum(map(operator.mul, group.values, group.weights)) / total if total else None


def point_value(row: RowData) -> float | None:
    """The row's number, or None if there is no group or a group without a value: an unknown part is not left out."""
    found = [group_mean(group) for group in row.groups]
    means = [mean for mean in found if mean is not None]
    if not means or len(means) < len(found):
        return None
    if row.decimals is not None:
        means = [round(mean, row.decimals) for mean in means]
    return plain_mean(means) * row.scale


def resampled_values(row: RowData, resamples: int, seed: int) -> Float[np.ndarray, " resamples"]:
    """The row's number in every resample, unrounded; NaN in one that drew nothing with weight. Groups hold values."""
    total = np.zeros(resamples)
    for group in row.groups:
        clusters = cluster_sums(group)
        draws = draw_counts(group.name, len(clusters.names), resamples, seed)
        weights = draws @ clusters.weights
        total += np.divide(draws @ clusters.sums, weights, out=np.full(resamples, np.nan), where=weights > 0)
    return total * (row.scale / len(row.groups))


def score_row(row: RowData, resamples: int = DEFAULT_RESAMPLES, seed: int = DEFAULT_SEED) -> ScoreRow:
    """Value, interval and coverage of one row."""
    value = point_value(row)
    low = high = None
    if value is not None and cluster_count(row) >= FEWEST_CLUSTERS:
        low, high = interval(resampled_values(row, resamples, seed))
    return ScoreRow(value=value, low=low, high=high, n_scored=row.n_scored, n_expected=row.n_expected)


def score_rows(
    rows: Mapping[str, RowData], resamples: int = DEFAULT_RESAMPLES, seed: int = DEFAULT_SEED
) -> dict[str, ScoreRow]:
    """All rows of a table, in their order."""
    return {name: score_row(row, resamples, seed) for name, row in rows.items()}


def cluster_count(row: RowData) -> int:
    """Prompts in all groups together."""
    return sum(len(set(group.clusters)) for group in row.groups)


def interval(values: Float[np.ndarray, " resamples"]) -> tuple[float, float]:
    """The 95% percentile interval over the resamples that have a number; there is at least one."""
    low, high = np.nanpercentile(values, INTERVAL_PERCENTILES)
    return float(low), float(high)

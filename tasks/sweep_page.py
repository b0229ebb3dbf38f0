"""A sweep as files: ``sweep.md`` for people, ``sweep.svg`` to look at, ``sweep.json`` for everything else.

The best setting is the one with the highest value of the row that the first benchmark is quoted by. It was chosen on
the pictures that it is shown with, so the page says what that is worth: its distance to the second, with its interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.study_claims import BASE, OVERALL
from reca_core.contracts.requests import LossTerms
from tasks.arms_page import Arm, arm_json, base_of, costs, gain, interval, signed, svg, table, value, write_files
from tasks.conclude import cell
from tasks.sweep_arms import SweepArm

NAME = "sweep"


@dataclass(frozen=True)
class Sweep:
    """A finished sweep."""

    arms: Sequence[Arm]
    """The base and every setting that was measured."""
    asked: Mapping[str, SweepArm]
    """Name -> setting, also of those that failed."""
    checkpoints: Mapping[str, str]
    """Name -> directory of the trained weights."""
    failed: Mapping[str, str]
    """Name -> why."""
    training_seed: int
    first_seed: int

    @property
    def benchmark(self) -> str:
        """The one that decides: the first."""
        return next(iter(base_of(self.arms).numbers))

    @property
    def row(self) -> str:
        """The row that it is quoted by."""
        rows = base_of(self.arms).numbers[self.benchmark]
        return OVERALL if OVERALL in rows else next(iter(rows))

    def ranked(self) -> list[Arm]:
        """The settings that have a value, the best first; of equal ones the first that was asked for."""
        trained = [arm for arm in self.arms if arm.name != BASE and self._value(arm) is not None]
        return sorted(trained, key=lambda arm: -(self._value(arm) or 0.0))

    def _value(self, arm: Arm) -> float | None:
        return arm.numbers[self.benchmark][self.row].value


def write_sweep(sweep: Sweep, identities: Sequence[str]) -> list[Path]:
    """Page, figure and numbers, in a directory named by what was judged."""
    return write_files(NAME, markdown(sweep), svg(sweep.arms), as_json(sweep), identities)


def as_json(sweep: Sweep) -> dict[str, object]:
    """Every setting with its numbers and differences to the base, the best one, and what failed."""
    ranked, base = sweep.ranked(), base_of(sweep.arms)
    return {
        "benchmark": sweep.benchmark,
        "row": sweep.row,
        "best": ranked[0].name if ranked else "",
        "training_seed": sweep.training_seed,
        "first_seed": sweep.first_seed,
        "failed": dict(sweep.failed),
        "arms": {
            arm.name: {
                **arm_json(arm, base),
                "settings": settings(sweep.asked[arm.name]) if arm.name in sweep.asked else {},
                "checkpoint": sweep.checkpoints.get(arm.name, ""),
            }
            for arm in sweep.arms
        },
    }


def settings(arm: SweepArm) -> dict[str, object]:
    """What makes this setting, under the names of the command line."""
    weights = {f"losses.{name}": weight for name, weight in arm.losses.model_dump().items()}
    return {"training.learning_rate": arm.training.learning_rate, **weights}


def markdown(sweep: Sweep) -> str:
    """The best setting and what it is worth, then one table per benchmark, then what each setting cost."""
    measured, order = len(sweep.arms) - 1, ", ".join(LossTerms.model_fields)
    lines = [
        f"{measured} of {len(sweep.asked)} settings trained and measured, training seed {sweep.training_seed}; "
        f"pictures drawn from seed {sweep.first_seed} on. Intervals: 95%, over prompts. Weights are of {order}.",
        "",
        *_best(sweep),
        *(f"- **{cell(name)} failed**: {cell(reason)}" for name, reason in sweep.failed.items()),
    ]
    for benchmark in base_of(sweep.arms).numbers:
        lines += ["", *table(sweep.arms, benchmark)]
    return "\n".join([*lines, "", *costs(sweep.arms), ""])


def _best(sweep: Sweep) -> list[str]:
    ranked = sweep.ranked()
    if not ranked:
        return [f"No setting has a value of `{sweep.benchmark}` {sweep.row}.", ""]
    best, base = ranked[0], base_of(sweep.arms)
    found = best.numbers[sweep.benchmark][sweep.row].row()
    over_base = gain(best, base, sweep.benchmark, sweep.row).row()
    lines = [
        f"**Best by `{sweep.benchmark}` {sweep.row}: {cell(best.name)}**, {value(found)}, difference to the base "
        f"{signed(over_base)} ({interval(over_base)})."
    ]
    if len(ranked) > 1:
        apart = gain(best, ranked[1], sweep.benchmark, sweep.row).row()
        sure = apart.low is not None and apart.low > 0
        told = "" if sure else "; the two are not told apart"
        lines.append(f"Difference to the second, {cell(ranked[1].name)}: {signed(apart)} ({interval(apart)}){told}.")
    lines.append(
        f"It was chosen among {len(ranked)} on these pictures: measure it with other seeds before it is reported. "
        "Nothing was registered: `reca run post-train` with its settings finds this training and registers it as "
        "challenger; the promotion rule decides about more."
    )
    return [*lines, ""]

"""A study as files: ``study.md`` for people, ``study.svg`` to look at, ``study.json`` for everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.study_claims import ClaimVerdict
from tasks.arms_page import Arm, arm_json, base_of, costs, interval, svg, table, value, write_files

NAME = "study"


@dataclass(frozen=True)
class Study:
    """A finished study."""

    arms: Sequence[Arm]
    verdicts: Sequence[ClaimVerdict]
    steps: int
    repetitions: int
    first_training_seed: int
    first_seed: int

    @property
    def base(self) -> Arm:
        """What the arms are compared with."""
        return base_of(self.arms)


def write_study(study: Study, identities: Sequence[str]) -> list[Path]:
    """Page, figure and numbers, in a directory named by what was judged."""
    return write_files(NAME, markdown(study), svg(study.arms), as_json(study), identities)


def as_json(study: Study) -> dict[str, object]:
    """Every number and every difference to the base."""
    return {
        "steps": study.steps,
        "repetitions": study.repetitions,
        "first_training_seed": study.first_training_seed,
        "first_seed": study.first_seed,
        "claims": [verdict.model_dump() for verdict in study.verdicts],
        "arms": {arm.name: arm_json(arm, study.base) for arm in study.arms},
    }


def markdown(study: Study) -> str:
    """The claims, then one table per benchmark, then what each arm cost."""
    first, last = study.first_training_seed, study.first_training_seed + study.repetitions - 1
    many = f"{study.repetitions} trainings per arm (seeds {first} to {last})"
    trained, over = (
        (many, "trainings and prompts") if last > first else (f"one training per arm (seed {first})", "prompts")
    )
    lines = [
        f"{trained[0].upper()}{trained[1:]}, {study.steps} optimizer steps each; pictures drawn from seed "
        f"{study.first_seed} on. Intervals: 95%, over {over}.",
        "",
        *_claims(study.verdicts),
    ]
    for benchmark in study.base.numbers:
        lines += ["", *table(study.arms, benchmark)]
    return "\n".join([*lines, "", *costs(study.arms), ""])


def _claims(verdicts: Sequence[ClaimVerdict]) -> list[str]:
    rows = ["| | claim | measured | 95% interval | verdict |", "|---|---|---:|---:|---|"]
    for verdict in verdicts:
        found, ends = value(verdict.measured), interval(verdict.measured)
        rows.append(f"| {verdict.letter} | {verdict.claim} | {found} | {ends} | **{verdict.verdict}** |")
    return rows

"""A study as files: ``study.md`` for people, ``study.svg`` to look at, ``study.json`` for everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.study_claims import ClaimVerdict
from reca_core.contracts.hashing import HASH_LENGTH
from reca_core.contracts.requests import CaptionSource, EvaluationPlan, LossTerms, SamplingSettings, TrainingPlan
from reca_core.contracts.study import StudyPlan
from reca_core.contracts.world import FIRST_REPORTING_SEED
from tasks.arms_page import Arm, arm_json, base_of, costs, interval, svg, table, value, write_files
from tasks.conclude import cell

NAME = "study"
SETTINGS = ("study", "losses", "captions", "training", "sampling", "evaluation")
"""Parts of a setting that are written down whole."""
TUNING = "Tuning seeds: settings may be chosen by this page, and it judges nothing."


@dataclass(frozen=True)
class Setting:
    """What all arms of a study have in common, so that its page says which study it is."""

    model: str
    weights_sha256: str
    """Of the base."""
    study: StudyPlan
    losses: LossTerms
    """RecA's; the other arms change one thing of them."""
    captions: CaptionSource
    training: TrainingPlan
    sampling: SamplingSettings
    evaluation: EvaluationPlan

    @property
    def unlike(self) -> str:
        """How its pictures were drawn, where not as the checkpoint says; begins with a comma."""
        guidance = self.sampling.guidance_scale
        return "" if not guidance else ", without guidance" if guidance == 1 else f", guidance {guidance:g}"


@dataclass(frozen=True)
class Study:
    """A finished study."""

    arms: Sequence[Arm]
    verdicts: Sequence[ClaimVerdict]
    failed: Mapping[str, str]
    """Arm -> why it has no numbers."""
    setting: Setting

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
        "model": study.setting.model,
        "weights_sha256": study.setting.weights_sha256,
        **{name: getattr(study.setting, name).model_dump(mode="json") for name in SETTINGS},
        "failed": dict(study.failed),
        "claims": [verdict.model_dump() for verdict in study.verdicts],
        "arms": {arm.name: arm_json(arm, study.base) for arm in study.arms},
    }


def markdown(study: Study) -> str:
    """The claims, then one table per benchmark, then what each arm cost."""
    setting = study.setting
    plan, training, evaluation = setting.study, setting.training, setting.evaluation
    first, last = plan.first_training_seed, plan.first_training_seed + plan.repetitions - 1
    many = f"{plan.repetitions} trainings per arm (seeds {first} to {last})"
    trained, over = (
        (many, "trainings and prompts") if last > first else (f"one training per arm (seed {first})", "prompts")
    )
    weights = ", ".join(f"{name} {weight:g}" for name, weight in setting.losses.model_dump().items() if weight)
    lines = [
        f"{cell(setting.model)} (weights {setting.weights_sha256[:HASH_LENGTH]}), RecA's terms: {weights}. "
        f"{trained[0].upper()}{trained[1:]}, {training.steps} optimizer steps each at {training.learning_rate:g}; "
        f"pictures drawn from seed {evaluation.first_seed} on{setting.unlike}; {evaluation.arithmetic} arithmetic. "
        f"Intervals: 95%, over {over}.",
        "",
        *([] if first >= FIRST_REPORTING_SEED else [TUNING, ""]),
        *(f"- **{cell(name)} failed**: {cell(reason)}" for name, reason in study.failed.items()),
        *([""] if study.failed else []),
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

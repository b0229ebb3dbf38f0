"""Fine-tuning before RecA: the first of the two stages of a chain, in the same tracked run and the same lineage.

Coarse alignment first, fine second: the order of the published two-stage run (arXiv 2509.07295; reference
"reca_recipe", section 2.2). The fine-tuned weights are a model of MLflow's, made by the first training and read by the
second, but no registered version: only the end of the chain is one.
"""

from __future__ import annotations

from reca_core.contracts.records import PreparedData, ResolvedModel
from reca_core.contracts.requests import CaptionSource, FineTuning, TrainingPlan
from tasks import plan, tracking_models
from tasks.results import Trained
from tasks.run import RunContext
from tasks.train import train

STAGE = "fine-tune"


def fine_tune(
    run: RunContext,
    base: ResolvedModel,
    data: PreparedData,
    fine_tuning: FineTuning,
    captions: CaptionSource,
    training: TrainingPlan,
) -> list[Trained]:
    """The fine-tuned checkpoint, or nothing where no fine-tuning is asked for."""
    if not fine_tuning.steps:
        return []
    trained = train(run, base, data, *plan.fine_tuning_parts(fine_tuning, training, captions))
    model_id = tracking_models.logged_model(start(base, [trained]), trained.mlflow_run_id, {"stage": STAGE}, copy=False)
    tracking_models.link_models(trained.mlflow_run_id, makes=model_id, step=trained.checkpoint.step)
    return [trained.model_copy(update={"stage": STAGE})]


def start(base: ResolvedModel, tuned: list[Trained]) -> ResolvedModel:
    """What RecA starts from: the fine-tuned weights where there are some, else the base."""
    return tuned[-1].model(plan.fine_tuned_name(base)) if tuned else base

"""What runs on any two CPU cores: the demonstration, and the study of the tiny models."""

from __future__ import annotations

from deployments.recipes.common import Settings
from reca_core.contracts.requests import (
    CaptionSource,
    EvaluationPlan,
    ImageSource,
    LossTerms,
    ModelChoice,
    SamplingSettings,
    TrainingPlan,
)
from reca_core.contracts.study import UNCONDITIONAL_SHARE, StudyPlan


def demo() -> Settings:
    """The bundled tiny Janus, post-trained on rendered scenes, measured on ``geneval.shapeworld``.

    Source: this project (docs/tiny.md). RecA with replay of questions, without any caption to draw by, and with the
    unconditional term, which no published recipe has; what that does is an arm of ``tiny-study``. Cost: 4 minutes on 2
    CPU cores, a process each. Trained on CPUs wherever it runs, as for docs/tiny.md.
    Expected: whatever the intervals say; a demonstration of the chain, not a claim about the method.
    """
    return {
        "images": ImageSource(source="shapeworld"),
        "model": ModelChoice(source="tiny-janus"),
        "losses": LossTerms(
            reconstruction=1.0, image_to_text=1.0, text_to_image=0.0, text=1.0, unconditional=UNCONDITIONAL_SHARE
        ),
        "captions": CaptionSource(source="shapeworld", rich_fraction=0.1),
        "training": TrainingPlan(
            steps=120, images_per_step=64, learning_rate=3e-4, schedule="cosine", processes=2, device="cpu"
        ),
        "sampling": SamplingSettings(),
        "evaluation": EvaluationPlan(benchmarks=["geneval.shapeworld"], prompts_per_tag=60),
    }


def tiny_study() -> Settings:
    """The claims of the paper on the bundled tiny Janus: the base, RecA and five other ways to spend its steps.

    Source: this project; claims and rules in docs/tiny_protocol.md, results in docs/tiny.md. Every arm takes 150
    steps, from three seeds; drawing (short and dense prompts) and questions about scenes are measured.
    Cost: 18 trainings; wall times are in docs/tiny.md. Expected: the table there.
    """
    return {
        **demo(),
        "losses": LossTerms(reconstruction=1.0, image_to_text=1.0, text_to_image=0.0, text=1.0),
        "training": TrainingPlan(steps=150, images_per_step=64, learning_rate=3e-4, schedule="cosine"),
        "evaluation": EvaluationPlan(
            benchmarks=["geneval.shapeworld", "dpg.shapeworld", "scenes.shapeworld"], prompts_per_tag=60
        ),
        "study": StudyPlan(),
    }

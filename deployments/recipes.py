"""Named settings: one function per run worth repeating, whose docstring gives source, cost and expected score.

``reca run train-then-evaluate --recipe NAME`` starts from one; ``--config`` and ``--set`` change it; ``--dry-run``
prints what it would do. A recipe lists what its run rests on; the rest are the defaults of the settings classes
(reca_core/contracts/requests.py). Published runs of a family are added with the family.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from deployments.settings import unknown
from reca_core.contracts.base import Config
from reca_core.contracts.requests import (
    CaptionSource,
    EvaluationPlan,
    ImageSource,
    LossTerms,
    ModelChoice,
    SamplingSettings,
    TrainingPlan,
)
from reca_core.contracts.study import StudyPlan

Settings = Mapping[str, Config]


def demo() -> Settings:
    """The bundled tiny Janus, post-trained on rendered scenes, measured on ``geneval.shapeworld``.

    Source: this project (docs/tiny.md). Cost: 4 minutes on 2 CPU cores.
    Expected: whatever the intervals say; a demonstration of the chain, not a claim about the method.
    """
    return {
        "images": ImageSource(source="shapeworld"),
        "model": ModelChoice(source="tiny-janus"),
        "losses": LossTerms(reconstruction=1.0, image_to_text=1.0, text_to_image=0.0, text=1.0),
        "captions": CaptionSource(source="shapeworld"),
        "training": TrainingPlan(steps=150, images_per_step=64),
        "sampling": SamplingSettings(),
        "evaluation": EvaluationPlan(benchmarks=["geneval.shapeworld"], prompts_per_tag=25),
    }


def tiny_study() -> Settings:
    """The claims of the paper on the bundled tiny Janus: the base, RecA and five other ways to spend its steps.

    Source: this project; claims and rules in docs/tiny_protocol.md, results in docs/tiny.md. Every arm trains as the
    demo does, from three seeds; drawing and questions about scenes are measured.
    Cost: 18 trainings; wall times are in docs/tiny.md. Expected: the table there.
    """
    return {
        **demo(),
        "evaluation": EvaluationPlan(benchmarks=["geneval.shapeworld", "scenes.shapeworld"], prompts_per_tag=60),
        "study": StudyPlan(),
    }


def janus_1_3b() -> Settings:
    """Janus 1.3B with RecA on 240 thousand Midjourney pictures.

    Source: loss weights (1, 1, 0) of the families that share parameters between understanding and generation
    (arXiv 2509.07295); no code, schedule or score was published for Janus. Learning rate and length are chosen here:
    low, because fine-tuning Janus on text-to-image pairs is reported to lower GenEval (deepseek-ai/Janus issue 216).
    Needs a LLaVA-1.5 mix: ``--set captions.source=FOLDER/llava_v1_5_mix665k.json``.
    Cost: not measured; Harmon-1.5B, of similar size, is quoted at 27 GPU hours. Expected: no published number.
    """
    return _janus("deepseek-ai/Janus-1.3B")


def janus_pro_1b() -> Settings:
    """Janus-Pro 1B; see ``janus_1_3b`` for source, choices and cost. Expected: no published number after RecA."""
    return _janus("deepseek-community/Janus-Pro-1B")


def janus_pro_7b() -> Settings:
    """Janus-Pro 7B; see ``janus_1_3b`` for source and choices.

    Cost: several GPUs of 80 GB, not measured. Expected: above GenEval 0.80 and DPG 84.33, which its authors report
    before any post-training (arXiv 2501.17811); no published number after RecA.
    """
    return _janus("deepseek-community/Janus-Pro-7B")


def _janus(source: str) -> Settings:
    """What the Janus sizes share. For post-train: published scores need benchmarks with their published judges."""
    return {
        "images": ImageSource(source="brivangl/midjourney-v6-llava", kind="datasets"),
        "model": ModelChoice(source=source),
        "losses": LossTerms(reconstruction=1.0, image_to_text=1.0, text_to_image=0.0, text=0.0),
        "captions": CaptionSource(source="llava_v1_5_mix665k.json"),
        "training": TrainingPlan(
            steps=5000,
            images_per_step=32,
            images_per_pass=2,
            learning_rate=2e-6,
            warmup_steps=500,
            weight_decay=0.02,
            precision="bfloat16",
            checkpoint_every_steps=500,
            preview_every_steps=500,
        ),
        "sampling": SamplingSettings(guidance_scale=5.0, images_per_batch=16),
    }


RECIPES: dict[str, Callable[[], Settings]] = {
    "demo": demo,
    "tiny-study": tiny_study,
    "janus-1.3b": janus_1_3b,
    "janus-pro-1b": janus_pro_1b,
    "janus-pro-7b": janus_pro_7b,
}
"""Name -> function."""


FLOWS_OF: Mapping[str, str] = {"tiny-study": "study"}
"""Recipe -> its flow, where that is another than ``DEFAULT_FLOW``."""
DEFAULT_FLOW = "train-then-evaluate"


def flow_of(name: str) -> str:
    """The flow that a recipe is meant for. Raises BadInput with the closest name."""
    find(name)
    return FLOWS_OF.get(name, DEFAULT_FLOW)


def find(name: str) -> Settings:
    """The settings of a recipe. Raises BadInput with the closest name."""
    if name not in RECIPES:
        raise unknown("recipe", name, list(RECIPES))
    return RECIPES[name]()


def card(name: str) -> str:
    """What a recipe's docstring says."""
    return inspect.getdoc(RECIPES[name]) or ""

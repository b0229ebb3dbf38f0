"""Janus: no RecA code, schedule or score was published for it; the choices are ours and said to be so."""

from __future__ import annotations

from deployments.recipes.common import REPLAYED, Settings
from reca_core.contracts.requests import ModelChoice, TrainingPlan


def janus_1_3b() -> Settings:
    """Janus 1.3B with RecA on 240 thousand Midjourney pictures.

    Source: loss weights (1, 1, 0) of the families that share parameters between understanding and generation
    (arXiv 2509.07295); no code, schedule or score was published for Janus. Learning rate and length are chosen here:
    low, because fine-tuning Janus on text-to-image pairs is reported to lower GenEval (deepseek-ai/Janus issue 216).
    Steps: 5000 optimizer steps of 32 pictures, our choice. Precision: bfloat16. Hardware: one GPU of 80 GB.
    Cost: not measured; Harmon-1.5B, of similar size, is quoted at 27 GPU hours. Expected: no published number.
    """
    return _janus("deepseek-ai/Janus-1.3B")


def janus_pro_1b() -> Settings:
    """Janus-Pro 1B with RecA, otherwise as ``janus-1.3b``.

    Source: as janus-1.3b. Steps: 5000 optimizer steps of 32 pictures, our choice. Precision: bfloat16. Hardware: one
    GPU of 80 GB. Cost: not measured. Expected: no published number after RecA; GenEval 0.73 and DPG 82.63 before
    (arXiv 2501.17811).
    """
    return _janus("deepseek-community/Janus-Pro-1B")


def janus_pro_7b() -> Settings:
    """Janus-Pro 7B with RecA, otherwise as ``janus-1.3b``.

    Source: as janus-1.3b. Steps: 5000 optimizer steps of 32 pictures, our choice. Precision: bfloat16. Hardware:
    several GPUs of 80 GB, ``--set training.processes=N --set training.sharding=shard``. Cost: not measured.
    Expected: no published number after RecA; GenEval 0.80 and DPG 84.33 before (arXiv 2501.17811).
    """
    return _janus("deepseek-community/Janus-Pro-7B")


def _janus(source: str) -> Settings:
    return {
        **REPLAYED,
        "model": ModelChoice(source=source, family="janus"),
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
            on_collapse="stop",
        ),
    }

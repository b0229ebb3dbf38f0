"""OpenUni: the published runs. Upstream counts iterations, which are micro-batches of 42 pictures."""

from __future__ import annotations

from deployments.recipes.common import MEASURED, MIDJOURNEY, RECA_ALONE, Settings
from reca_core.contracts.requests import ModelChoice, SamplingSettings, TrainingPlan

PICTURES_PER_ITERATION = 42
ITERATIONS = 5000


def openuni_b() -> Settings:
    """OpenUni B (InternVL3-1B, SANA 0.6B) at 512 pixels.

    Source: HorizonWind2004/reconstruction-alignment, OpenUni/ (reference "reca_recipe", sections 1.7 and 2.1). Base:
    wusize/openuni openuni_b_internvl3_1b_sana_0_6b_512_hf_text2image23m.pth, with OpenGVLab/InternVL3-1B, SANA and
    DC-AE beside it. Schedule: 100 iterations of warm-up, then cosine to zero over ten thousand. Steps: 5000 of
    upstream's iterations, four accumulated: 1250 optimizer steps of 168 pictures. Precision: bfloat16. Hardware: one
    GPU. Cost: not published. Expected: GenEval 56.0 to 70.4, DPG 76.29 to 80.45 (README).
    """
    weights = "openuni_b_internvl3_1b_sana_0_6b_512_hf_text2image23m.pth"
    return _openuni(weights, accumulated=4, schedule=10_000, warmup=100)


def openuni_l() -> Settings:
    """OpenUni L (InternVL3-2B, SANA 1.6B) at 512 pixels: 3.6B altogether.

    Source: as openuni-b. Base: wusize/openuni openuni_l_internvl3_2b_sana_1_6b_512_hf_text2image23m.pth, with
    OpenGVLab/InternVL3-2B, SANA and DC-AE beside it. Schedule: 50 iterations of warm-up, then cosine to zero over 5000.
    Steps: 5000 of upstream's iterations, sixteen accumulated: 312 optimizer steps of 672 pictures. Precision: bfloat16.
    Hardware: one GPU. Cost: not published. Expected: GenEval 61.9 to 74.1, DPG 79.02 to 82.75 (project page).
    """
    weights = "openuni_l_internvl3_2b_sana_1_6b_512_hf_text2image23m.pth"
    return _openuni(weights, accumulated=16, schedule=5000, warmup=50)


def _openuni(weights: str, *, accumulated: int, schedule: int, warmup: int) -> Settings:
    return {
        "images": MIDJOURNEY,
        "model": ModelChoice(source="wusize/openuni", weights=weights, family="openuni"),
        "losses": RECA_ALONE,
        "training": TrainingPlan(
            steps=ITERATIONS // accumulated,
            images_per_step=PICTURES_PER_ITERATION * accumulated,
            images_per_pass=PICTURES_PER_ITERATION,
            learning_rate=1e-5,
            schedule="cosine",
            schedule_steps=schedule // accumulated,
            warmup_steps=warmup // accumulated,
            weight_decay=0.05,
            drop_text=0.0,
            precision="bfloat16",
            checkpoint_every_steps=100,
            preview_every_steps=100,
            on_collapse="stop",
        ),
        "sampling": SamplingSettings(images_per_batch=16),
        "evaluation": MEASURED,
    }

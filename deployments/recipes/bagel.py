"""BAGEL: the published run."""

from __future__ import annotations

from deployments.recipes.common import MEASURED, RECA_ALONE, Settings
from reca_core.contracts.requests import ImageSource, ModelChoice, SamplingSettings, TrainingPlan


def bagel() -> Settings:
    """BAGEL-7B-MoT: understanding at 224 pixels, generation at up to 1024, the generation experts alone are trained.

    Source: HorizonWind2004/reconstruction-alignment, BAGEL/ (reference "reca_recipe", sections 1.7, 2.1 and 3.1). Base:
    ByteDance-Seed/BAGEL-7B-MoT (ema.safetensors, ae.safetensors). Data: the first tar of jackyhate/text-to-image-2M's
    1024-pixel part, about 8000 pictures made by FLUX. Schedule: warm-up over 1000 steps, so the whole run is one linear
    ramp to 4e-5 (B2). Steps: 1000 optimizer steps (upstream's unit too) of 48 pictures, packed to about 33 thousand
    tokens per GPU. The weights themselves are exported, never the average (B1). Precision: bfloat16 with float32
    weights. Hardware: six GPUs of 80 GB (``training.processes``). Cost: 4.5 hours on six A100, 27 GPU hours. Expected:
    GenEval 78.8 to 82.4, DPG 84.03 to 85.29, ImgEdit 3.38 to 3.75, GEdit-EN 6.94 to 7.27 (project page); an independent
    repetition (TorchUMM, arXiv 2604.10784) has GenEval 83.05 and DPG 85.20: our band is GenEval at least 82, DPG at
    least 85.
    """
    return {
        "images": ImageSource(
            source="jackyhate/text-to-image-2M", kind="datasets", files="data_1024_10K/data_000000.tar"
        ),
        "model": ModelChoice(source="ByteDance-Seed/BAGEL-7B-MoT", family="bagel"),
        "losses": RECA_ALONE,
        "training": TrainingPlan(
            steps=1000,
            images_per_step=48,
            images_per_pass=8,
            learning_rate=4e-5,
            warmup_steps=1000,
            epsilon=1e-15,
            drop_text=0.1,
            precision="bfloat16",
            checkpoint_every_steps=250,
            preview_every_steps=250,
            processes=6,
            sharding="shard",
            on_collapse="stop",
        ),
        "sampling": SamplingSettings(images_per_batch=4, precision="bfloat16"),
        "evaluation": MEASURED,
    }

"""Show-o: the four published runs. One GPU each, because upstream's code could use no more; ours can."""

from __future__ import annotations

from typing import Any

from deployments.recipes.common import REPLAYED, Settings
from reca_core.contracts.requests import ModelChoice, TrainingPlan


def showo_512_clip() -> Settings:
    """Show-o at 512 pixels, understanding by CLIP.

    Source: HorizonWind2004/reconstruction-alignment, Show-o/ (reference "reca_recipe", sections 1.7 and 2.1). Base:
    showlab/show-o-w-clip-vit-512x512, with magvitv2, CLIP and Phi-1.5's tokenizer. Schedule: 1000 steps of warm-up,
    then cosine over a million steps, which is all but constant here. Steps: 5000 optimizer steps (upstream's unit too)
    of 2 pictures in 5 accumulated passes. Precision: bfloat16. Hardware: one GPU. Cost: 4 to 9 hours.
    Expected: GenEval 66.2 to 72.3, DPG 82.21 to 84.94 (project page).
    """
    return _showo("showlab/show-o-w-clip-vit-512x512", passes=5)


def showo_256_clip() -> Settings:
    """Show-o at 256 pixels, understanding by CLIP.

    Source: as showo-512-clip. Base: showlab/show-o-w-clip-vit. Schedule: 1000 steps of warm-up, then cosine over ten
    thousand. Steps: 5000 optimizer steps (upstream's unit too) of 4 pictures in 5 accumulated passes. Precision:
    bfloat16. Hardware: one GPU. Cost: 4 to 9 hours. Expected: GenEval 56.6 to 61.9, DPG 70.65 to 75.70 (README).
    """
    return _showo("showlab/show-o-w-clip-vit", passes=5, per_pass=4, schedule_steps=10_000)


def showo_vq_256() -> Settings:
    """Show-o at 512 pixels that looks at its own image codes of the picture at 256: the variant its author prefers.

    Source: as showo-512-clip; the picture must be smaller, the same codes at the same resolution are copied (section
    1.2). Base: showlab/show-o-512x512. Schedule: as showo-512-clip. Steps: 5000 optimizer steps (upstream's unit too)
    of 2 pictures in 20 accumulated passes. Precision: bfloat16. Hardware: one GPU. Cost: 4 to 9 hours.
    Expected: GenEval 68.70 to 70.61, DPG 83.63 to 84.77 (figure 12 of the project page).
    """
    return _showo("showlab/show-o-512x512", passes=20, understanding_downscale=2, understanding_picture="small")


def showo_vq_blur8() -> Settings:
    """Show-o at 512 pixels that looks at its own image codes of the picture blurred eight times.

    Source: as showo-vq-256. Base: showlab/show-o-512x512. Schedule: as showo-512-clip. Steps: 5000 optimizer steps
    (upstream's unit too) of 2 pictures in 5 accumulated passes. Precision: bfloat16. Hardware: one GPU. Cost: 4 to 9
    hours. Expected: GenEval 68.70 to 72.20, DPG 83.63 to 85.12 (figure 12 of the project page), at the price of WISE.
    """
    return _showo("showlab/show-o-512x512", passes=5, understanding_downscale=8, understanding_picture="blurred")


def _showo(source: str, *, passes: int, per_pass: int = 2, schedule_steps: int = 1_000_000, **variant: Any) -> Settings:
    return {
        **REPLAYED,
        "model": ModelChoice(source=source, family="showo"),
        "training": TrainingPlan(
            steps=5000,
            images_per_step=passes * per_pass,
            images_per_pass=per_pass,
            learning_rate=5e-7,
            schedule="cosine",
            schedule_steps=schedule_steps,
            warmup_steps=1000,
            beta2=0.999,
            weight_decay=0.01,
            gradient_clip=0.0,
            drop_text=0.0,
            precision="bfloat16",
            checkpoint_every_steps=500,
            preview_every_steps=500,
            on_collapse="stop",
            **variant,
        ),
    }

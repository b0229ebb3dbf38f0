"""What the published runs share: pictures, question replay, how they are measured. Source: reference "reca_recipe"."""

from __future__ import annotations

from collections.abc import Mapping

from reca_core.contracts.base import Config
from reca_core.contracts.requests import CaptionSource, EvaluationPlan, ImageSource, LossTerms, SamplingSettings

Settings = Mapping[str, Config]

MIDJOURNEY = ImageSource(source="brivangl/midjourney-v6-llava", kind="datasets")
"""240 thousand pictures (MIT); its captions are not read. RecA's data for Show-o, Harmon and OpenUni (section 1.6)."""
LLAVA = CaptionSource(source="home:captions/llava_v1_5_mix665k.json")
"""Question replay: LLaVA-1.5's mix of 665 thousand, with its picture folders beside the file. On the hub as
sanaka87/LLaVA-Instruct-150K (section 1.6)."""
RECA_ALONE = LossTerms(reconstruction=1, image_to_text=0, text_to_image=0, text=0)
"""Families whose understanding has parameters of its own: frozen, nothing to replay (section 1.3)."""
RECA_WITH_REPLAY = LossTerms(reconstruction=1, image_to_text=1, text_to_image=0, text=0)
"""Families that share parameters (section 1.3)."""
MEASURED = EvaluationPlan(benchmarks=["geneval", "dpg"], arithmetic="parity", pictures_per_prompt=4)
"""As published, but for GenEval's 12 pictures per prompt, which DPG-Bench does not have (section 1.8)."""
REPLAYED: Settings = {
    "images": MIDJOURNEY,
    "losses": RECA_WITH_REPLAY,
    "captions": LLAVA,
    "sampling": SamplingSettings(images_per_batch=16),
    "evaluation": MEASURED,
}
"""Families that share parameters, on Midjourney's pictures."""

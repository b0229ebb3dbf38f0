"""How far apart in content the study's seeds are: what is trained on against what is measured.

    python -m tests.evaluation.world_overlaps

The seeds of training, tuning and reporting are disjoint (tests/tasks/test_study.py); the world is small, so contents
can meet all the same. Per split seed: GenEval's prompts, how many of them the first reporting seed has too, how many of
the position and attribute prompts the text replay of a study's first repetition says (as words; nothing is drawn
there), and how many scenes that ``scenes.shapeworld`` asks about are training pictures. Printed for
docs/tiny_protocol.md.
"""

from __future__ import annotations

import sys

from deployments import recipes
from evaluation.benchmarks.geneval.benchmark import WORLD_PROMPTS_PER_TAG
from evaluation.understanding.scenes import WORLD_PICTURES, _objects
from reca_core.contracts.requests import CaptionSource, ImageSource, TrainingPlan
from reca_core.contracts.world import Draws, geneval_metadata
from reca_core.data.captions import ShapeworldCaptions
from reca_core.data.shapeworld import scene_from_seed, scene_of

SPLIT_SEEDS = (1000, 2000, 3000, 4000)
HELD_BACK = ("position", "color_attr")
ANY_SIDE = 16


def prompts(split_seed: int, *tags: str) -> set[str]:
    """GenEval's prompts in this world; all tags unless some are named."""
    records = geneval_metadata(split_seed, WORLD_PROMPTS_PER_TAG)
    return {record["prompt"] for record in records if not tags or record["tag"] in tags}


def said(captions: CaptionSource, positions: int, wanted: set[str]) -> set[str]:
    """Those of ``wanted`` that a question of the text replay holds word for word."""
    source = ShapeworldCaptions(captions, ANY_SIDE)
    questions = [source.told(position).question for position in range(positions)]
    return {prompt for prompt in wanted if any(prompt in question for question in questions)}


def also_trained(images: ImageSource, split_seed: int) -> int:
    """Scenes that are asked about and are training pictures."""
    seeds = range(images.scene_seed, images.scene_seed + images.scenes)
    trained = {scene_from_seed(seed).objects for seed in seeds}
    asked = (scene_of(_objects(Draws(split_seed, f"scenes/{number}"))) for number in range(WORLD_PICTURES))
    return sum(scene.objects in trained for scene in asked)


def main() -> None:
    """Print one row per split seed."""
    settings = recipes.find("tiny-study")
    captions, images, training = (settings[part] for part in ("captions", "images", "training"))
    assert isinstance(captions, CaptionSource)
    assert isinstance(images, ImageSource)
    assert isinstance(training, TrainingPlan)
    lines = ["| split seed | prompts | also of 1000 | held back | of those said | scenes | trained on |"]
    lines += ["|---:|---:|---:|---:|---:|---:|---:|"]
    for split_seed in SPLIT_SEEDS:
        every, held = prompts(split_seed), prompts(split_seed, *HELD_BACK)
        heard = said(captions, training.steps * training.images_per_step, held)
        shared, met = every & prompts(SPLIT_SEEDS[0]), also_trained(images, split_seed)
        numbers = (split_seed, len(every), len(shared), len(held), len(heard), WORLD_PICTURES, met)
        lines.append("| " + " | ".join(map(str, numbers)) + " |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

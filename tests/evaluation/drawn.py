"""Pictures of the rendered world, drawn for real prompts, ready to be judged; and a judge slow enough to be killed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from evaluation.benchmark import JudgeTask, PromptPlan
from evaluation.judges.shapeworld import ShapeworldJudge
from evaluation.records import JudgeRequest, Reply
from evaluation.registry import numerics_version, open_benchmark
from reca_core.contracts.files import append_jsonl, atomic_write_text
from reca_core.contracts.hashing import sha256_file
from reca_core.contracts.records import Prompt, Sample
from reca_core.data.shapeworld import Scene, render, scene_for, scene_from_seed

BENCHMARK = "geneval.shapeworld"
PLAN = PromptPlan(prompts_per_tag=3, pictures_per_prompt=2, first_seed=1000)
PICTURE_PIXELS = 32
ASK_LOG = "RECA_TEST_ASK_LOG"
PAUSE_SECONDS = 0.02


class SlowJudge(ShapeworldJudge):
    """The rendered world's judge, one question at a time with a pause, writing down what it is asked."""

    batch_size = 1

    def answer(self, tasks: Sequence[JudgeTask]) -> Sequence[Reply]:
        for task in tasks:
            with Path(os.environ[ASK_LOG]).open("a") as stream:
                stream.write(f"{task.prompt.prompt_id} {task.sample.seed} {task.question.key}\n")
        time.sleep(PAUSE_SECONDS)
        return super().answer(tasks)


def draw_samples(directory: Path, scene_seed: int, plan: PromptPlan = PLAN, faithful: bool = False) -> None:
    """A samples directory as the sampler leaves it.

    Every second picture, or with ``faithful`` every picture, is what its prompt asks for; the others are any scene.
    """
    benchmark = open_benchmark(BENCHMARK, plan, None)
    prompts = benchmark.prompts()
    metadata = {name.split("/")[0]: json.loads(text) for name, text in benchmark.companions().items()}
    atomic_write_text(directory / "prompts.jsonl", "".join(prompt.model_dump_json() + "\n" for prompt in prompts))
    rows = []
    for number, prompt in enumerate(prompts):
        for k, output in enumerate(prompt.outputs):
            asked = faithful or k % 2 == 0
            draw = scene_seed + 100 * number + k
            scene = scene_for(metadata[prompt.prompt_id], draw) if asked else scene_from_seed(draw)
            rows.append(_draw(directory / output, scene, prompt, k))
    append_jsonl(directory / "samples.jsonl", [row.model_dump() for row in rows])


def _draw(path: Path, scene: Scene, prompt: Prompt, k: int) -> Sample:
    path.parent.mkdir(parents=True, exist_ok=True)
    render(scene, PICTURE_PIXELS).save(path)
    return Sample(
        prompt_id=prompt.prompt_id,
        seed=prompt.seeds[k],
        text=prompt.text,
        image_path=prompt.outputs[k],
        sha256=sha256_file(path),
    )


def request_for(samples: Path, output: Path, plan: PromptPlan = PLAN) -> JudgeRequest:
    """The request of the control plane for a samples directory."""
    return JudgeRequest(
        benchmark=BENCHMARK,
        prompts_sha256=sha256_file(samples / "prompts.jsonl"),
        samples_sha256=sha256_file(samples / "samples.jsonl"),
        prompts_per_tag=plan.prompts_per_tag,
        pictures_per_prompt=plan.pictures_per_prompt,
        first_seed=plan.first_seed,
        resamples=200,
        numerics_version=numerics_version(BENCHMARK),
        prompts_file=str(samples / "prompts.jsonl"),
        samples_directory=str(samples),
        output_directory=str(output),
    )

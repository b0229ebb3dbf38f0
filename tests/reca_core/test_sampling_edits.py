"""The sampler edits pictures where the family does, and says so beforehand where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from evaluation.registry import open_benchmark
from reca_core import sampling
from reca_core.contracts.errors import BadInput
from reca_core.contracts.hashing import sha256_file, sha256_tree
from reca_core.contracts.records import Prompt, ResolvedModel
from reca_core.contracts.registry import FAMILIES
from reca_core.contracts.requests import EvaluationPlan, SampleRequest, SamplingSettings
from reca_core.models.load import adapter_class
from reca_core.models.unified import EditsImages
from tasks.sample import prompt_plan, sampler_task


def request(root: Path, family: str) -> SampleRequest:
    adapter_class(family).smallest(seed=0).save(root / family)
    Image.new("RGB", (24, 16), "red").save(root / "before.png")
    prompts = [
        Prompt(prompt_id=text, text=text, source_image="before.png", seeds=[7], outputs=[f"{text}.png"])
        for text in ("make it blue", "draw a circle")
    ]
    file = root / "prompts.jsonl"
    file.write_text("".join(prompt.model_dump_json() + "\n" for prompt in prompts))
    model = ResolvedModel(name=family, family=family, path=str(root / family), sha256=sha256_tree(root / family))
    return SampleRequest(
        model=model,
        task="edit",
        prompts_file=str(file),
        prompts_sha256=sha256_file(file),
        sampling=SamplingSettings(device="cpu"),
        numerics_version=1,
        output_directory=str(root / "out"),
    )


def test_an_edit_follows_its_instruction_and_keeps_the_aspect(tmp_path: Path) -> None:
    sampling.main(request(tmp_path, "bagel"))
    made = [Image.open(tmp_path / "out" / name) for name in ("make it blue.png", "draw a circle.png")]
    assert made[0].tobytes() != made[1].tobytes()
    assert all(picture.width > picture.height for picture in made)


def test_a_family_that_does_not_edit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not edit"):
        sampling.main(request(tmp_path, "openuni"))


def test_the_registry_says_who_edits() -> None:
    for family, entry in FAMILIES.items():
        assert entry.edits == issubclass(adapter_class(family), EditsImages), family
    opened = open_benchmark("gedit.shapeworld", prompt_plan(EvaluationPlan()), None)
    assert sampler_task(opened, "bagel") == "edit"
    with pytest.raises(BadInput, match="janus cannot make; bagel can"):
        sampler_task(opened, "janus")

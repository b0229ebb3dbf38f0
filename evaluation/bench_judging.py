"""Judged pictures per second, one at a time and batched, in one run: section ``judging`` of ``make bench``.

GenEval's published judge at its published sizes, Mask2Former Swin-S and CLIP ViT-L/14, but with random weights: no
download, and speed does not depend on what is recognised. Class scores are sharpened so that objects are found, masks
made and colours asked for. Pictures are decoded from files as in a real judging, here and in helpers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.benchmark import JudgeTask
from evaluation.benchmarks.geneval.verdict import COLOURS
from evaluation.judges.colours import ColourClassifier
from evaluation.judges.detector import DetectionJudge
from evaluation.judges.detector_convert import PUBLISHED, Layout, configuration
from evaluation.judges.detector_mask2former import Mask2FormerDetector
from evaluation.judges.detector_pictures import PictureReader
from evaluation.judges.detector_sanity import FOLDER, PHOTOGRAPHS
from evaluation.judges.devices import pick_device
from evaluation.records import Finding, JudgeIdentity, Question
from reca_core.contracts.bench import BenchPlace, Figure, rate
from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.records import Prompt, Sample

NAMES = [f"class {index}" for index in range(PUBLISHED.classes)]
ASKED = NAMES[:2]
"""Classes that a prompt asks for: two, as most of GenEval's."""
COLOURED = 1
"""Objects per picture whose colour is asked: the best one of a class."""
SHARPENED = 40.0
"""Random class scores are flat; times this, a query is sure of one class."""
SMALLEST = Layout(
    embed=8,
    depths=(1, 1, 1, 1),
    heads=(1, 2, 2, 2),
    width=32,
    attention_heads=4,
    encoder_layers=1,
    encoder_feedforward=16,
    decoder_layers=1,
    decoder_feedforward=16,
    queries=8,
)
CLIP_LARGE: dict[str, dict[str, int]] = {
    "text": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "vision": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    | {"image_size": 224, "patch_size": 14},
    "joint": {"projection_dim": 768},
}
CLIP_SMALLEST: dict[str, dict[str, int]] = {
    "text": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "vision": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    | {"image_size": 224, "patch_size": 112},
    "joint": {"projection_dim": 16},
}


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    layout: Layout
    clip: dict[str, dict[str, int]]
    pictures: int
    batch: int
    side: int
    helpers: int
    sizes: str


ON_GPU = Scale(PUBLISHED, CLIP_LARGE, 256, 8, 512, 8, "published sizes")
ON_CPU = Scale(PUBLISHED, CLIP_LARGE, 8, 8, 512, 2, "published sizes")
QUICK = Scale(SMALLEST, CLIP_SMALLEST, 2, 2, 64, 1, "smallest sizes")


def judging(place: BenchPlace) -> list[Figure]:
    """Pictures per second of decoding, detector and colour classifier, and of all three together."""
    device = pick_device("auto")
    scale = QUICK if place.quick else (ON_GPU if device == "cuda" else ON_CPU)
    tasks = _tasks(place.folder, scale)
    model, colours = _detector(scale, device), _colours(place.folder, scale, device)
    how = f"{scale.pictures} PNG pictures of {scale.side} pixels, {scale.sizes}, random weights, float32, {device}"
    figures = [_decoding(tasks, helpers, scale) for helpers in (0, scale.helpers)]
    for batch, helpers in ((1, 0), (scale.batch, 0), (scale.batch, scale.helpers)):
        settings = JudgeSettings(judge="detector", pictures_per_batch=batch, decoding_processes=helpers)
        detector = Mask2FormerDetector(model, batch)
        judge = DetectionJudge(detector, JudgeIdentity(name="detector"), NAMES, colours, settings)
        _judge(judge, tasks[:1], 1)
        value = rate(len(tasks), lambda judge=judge, batch=batch: _judge(judge, tasks, batch))  # type: ignore[misc]
        decoded = f"decoded in {helpers} helpers" if helpers else "decoded in the judge's process"
        what = f"judged with objects and colours, batch {batch}, {decoded}"
        figures.append(Figure(what=what, value=value, unit="pictures/s", how=how))
        judge.close()
    return figures


def _decoding(tasks: list[JudgeTask], helpers: int, scale: Scale) -> Figure:
    reader = PictureReader(helpers)
    paths = [task.picture for task in tasks]
    reader.read(paths)
    value = rate(len(paths), lambda: reader.read(paths))
    reader.close()
    how = f"{scale.pictures} PNG pictures of {scale.side} pixels"
    what = f"decoding alone, {helpers} helpers" if helpers else "decoding alone, one process"
    return Figure(what=what, value=value, unit="pictures/s", how=how)


def _judge(judge: DetectionJudge, tasks: list[JudgeTask], batch: int) -> None:
    """Objects of every picture, then the colours of what counts, as the runner asks."""
    for start in range(0, len(tasks), batch):
        window = tasks[start : start + batch]
        replies = judge.answer(window)
        found = [(task, reply.findings[:COLOURED]) for task, reply in zip(window, replies, strict=True)]
        judge.answer(
            [
                JudgeTask(task.prompt, task.sample, task.picture, None, _colour_question(findings))
                for task, findings in found
                if findings
            ]
        )


def _tasks(folder: Path, scale: Scale) -> list[JudgeTask]:
    """The known photographs, squared to the size that models draw."""
    photographs = [Image.open(FOLDER / known.file).convert("RGB") for known in PHOTOGRAPHS]
    question = Question(key="objects", kind="objects", labels=ASKED)
    return [
        _task(folder, number, photographs[number % len(photographs)], question, scale)
        for number in range(scale.pictures)
    ]


def _task(folder: Path, number: int, photograph: Image.Image, question: Question, scale: Scale) -> JudgeTask:
    path = folder / f"{number}.png"
    photograph.resize((scale.side, scale.side)).save(path)
    prompt = Prompt(prompt_id=str(number), text="two things", seeds=[0], outputs=[path.name])
    sample = Sample(prompt_id=prompt.prompt_id, seed=0, text=prompt.text, image_path=path.name, sha256="")
    return JudgeTask(prompt, sample, path, None, question)


def _colour_question(findings: list[Finding]) -> Question:
    return Question(key="colours/0", kind="colours", labels=list(COLOURS), findings=findings)


def _detector(scale: Scale, device: str) -> Any:
    import torch
    from transformers import Mask2FormerForUniversalSegmentation

    torch.manual_seed(0)
    model = Mask2FormerForUniversalSegmentation(configuration(scale.layout))
    with torch.no_grad():
        model.class_predictor.weight.mul_(SHARPENED)
    return model.eval().to(device)


def _colours(folder: Path, scale: Scale, device: str) -> ColourClassifier:
    """CLIP with a tokenizer of letters: how words are cut changes no speed that matters."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789-"]
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    words = {"vocab_size": len(names), "eos_token_id": len(names) - 1, "bos_token_id": len(names) - 2}
    sizes = scale.clip
    wide = sizes["joint"]["projection_dim"]
    config = CLIPConfig(text_config=sizes["text"] | words, vision_config=sizes["vision"], projection_dim=wide)
    (folder / "vocab.json").write_text(json.dumps({name: at for at, name in enumerate(names)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    return ColourClassifier(CLIPModel(config).eval().to(device), CLIPImageProcessorPil(), tokenizer, "random", "")

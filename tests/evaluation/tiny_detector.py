"""Detectors and colour classifiers of a few thousand random weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from evaluation.judges.detector_convert import Layout, shapes
from evaluation.judges.detector_masks import Detection, PackedMask
from evaluation.records import Box

TINY = Layout(
    embed=8,
    depths=(1, 2, 1, 1),
    heads=(1, 2, 2, 2),
    width=32,
    attention_heads=4,
    encoder_layers=1,
    encoder_feedforward=16,
    decoder_layers=2,
    decoder_feedforward=16,
    queries=12,
)


def random_state(layout: Layout = TINY, seed: int = 0) -> dict[str, torch.Tensor]:
    """What mmdetection's file would hold, at random."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.zeros(shape, dtype=torch.long)
        if key.endswith("relative_position_index")
        else torch.randn(shape, generator=generator) * 0.3
        for key, shape in shapes(layout).items()
    }


def tiny_clip(folder: Path) -> Path:
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    letters = [*"abcdefghijklmnopqrstuvwxyz-"]
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": len(names), "eos_token_id": len(names) - 1, "bos_token_id": len(names) - 2},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    model = transformers.CLIPModel(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=1.5)
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({name: at for at, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    return folder


class PlantedDetector:
    """Finds what tests put there, and counts the pictures it was shown."""

    def __init__(self, planted: Sequence[tuple[int, Box, float]]) -> None:
        self.planted = planted
        self.shown = 0

    def detect(self, pictures: Sequence[np.ndarray], wanted: Sequence[frozenset[int]]) -> list[list[Detection]]:
        self.shown += len(pictures)
        return [
            [
                Detection(index, box, score, PackedMask.pack(boxed(picture, box), box))
                for index, box, score in self.planted
                if index in classes
            ]
            for picture, classes in zip(pictures, wanted, strict=True)
        ]


def boxed(picture: Any, box: Box) -> np.ndarray:
    mask = np.zeros(picture.shape[:2], dtype=bool)
    x1, y1, x2, y2 = (int(corner) for corner in box)
    mask[y1:y2, x1:x2] = True
    return mask

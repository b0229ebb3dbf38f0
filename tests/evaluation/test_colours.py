"""The colour classifier follows the published recipe, and a batch changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.benchmarks.geneval.verdict import COLOURS
from evaluation.judges import colours as colours_module
from evaluation.judges.colours import ColourClassifier
from evaluation.judges.detector import colour_settings, open_colours
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.judging import JudgeSettings
from tests.evaluation.tiny_detector import tiny_clip

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def classifier(clip: Path) -> ColourClassifier:
    return ColourClassifier.open(str(clip), "cpu")


def crops() -> list[Image.Image]:
    random = np.random.default_rng(0)
    sizes = [(20, 30), (64, 64), (7, 90), (1, 1), (40, 33)] * 3
    return [Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def test_a_batch_names_the_same_colours_as_one_by_one(
    classifier: ColourClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = crops()
    labels = ["cup", "dog", "tv remote"] * 5
    together = classifier.classify(shown, labels, COLOURS)
    alone = [classifier.classify([crop], [label], COLOURS)[0] for crop, label in zip(shown, labels, strict=True)]
    assert together == alone
    assert len(set(together)) > 1
    monkeypatch.setattr(colours_module, "CROPS_PER_BATCH", 4)
    assert classifier.classify(shown, labels, COLOURS) == alone


def test_the_colour_is_the_closest_mean_of_three_unit_sentences(classifier: ColourClassifier) -> None:
    """Recomputed sentence by sentence."""
    crop, label = crops()[1], "tv remote"

    def words(sentence: str) -> torch.Tensor:
        tokens = classifier._tokenizer([sentence], return_tensors="pt")
        with torch.no_grad():
            found = classifier.model.get_text_features(**tokens).pooler_output[0]
        return found / found.norm()

    pixels = classifier._processor(images=[crop], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        picture = classifier.model.get_image_features(pixel_values=pixels).pooler_output[0]
    scores = {}
    for colour in COLOURS:
        sentences = (f"a photo of a {colour} {label}", f"a photo of a {colour}-colored {label}")
        mean = torch.stack([words(text) for text in (*sentences, f"a photo of a {colour} object")]).mean(0)
        scores[colour] = float(picture / picture.norm() @ (mean / mean.norm()))
    assert classifier.classify([crop], [label], COLOURS) == [max(scores, key=lambda colour: scores[colour])]


def test_nothing_to_name_is_nothing(classifier: ColourClassifier) -> None:
    assert classifier.classify([], [], COLOURS) == []


def test_weights_are_part_of_the_identity(clip: Path) -> None:
    opened = open_colours(JudgeSettings(colour_model=str(clip), device="cpu"), published=False)
    assert opened is not None
    assert len(colour_settings(opened)["colour_sha256"]) == 64
    assert open_colours(JudgeSettings(), published=False) is None
    assert colour_settings(None) == {"colour_model": "none"}


def test_what_is_no_clip_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(BadInput, match="is no model that CLIPModel can load"):
        ColourClassifier.open(str(tmp_path), "cpu")
    with pytest.raises(PrerequisiteMissing, match="no folder"):
        ColourClassifier.open(str(tmp_path / "absent"), "cpu")

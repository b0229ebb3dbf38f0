"""Mask2Former around which upstream's arithmetic is done: what it answers depends on nothing but the picture."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.benchmarks.geneval.verdict import keep
from evaluation.judges import detector_mask2former as mask2former
from evaluation.judges import detector_sanity
from evaluation.judges.detector import NO_COLOURS, DetectionJudge
from evaluation.judges.detector_convert import build
from evaluation.judges.detector_label import CHECKED_LABEL, CONVERSION_LABEL, conversion_label
from evaluation.judges.detector_mask2former import DetectorJudge, Mask2FormerDetector, padded_size, resized_size
from evaluation.judges.detector_masks import Detection, MaskMemory, PackedMask
from evaluation.judges.detector_pictures import PictureReader, upright
from evaluation.judges.detector_sanity import PHOTOGRAPHS, check_original, gate
from evaluation.records import Finding, JudgeIdentity, Question, Reply
from reca_core.contracts.errors import BadInput, PrerequisiteMissing, StageFailed
from reca_core.contracts.judging import JudgeSettings
from tests.evaluation.judging import place, save_picture, task
from tests.evaluation.tiny_detector import TINY, PlantedDetector, boxed, random_state

torch.set_num_threads(1)
EVERYTHING = frozenset(range(80))
NAMES = [f"thing {index}" for index in range(80)]


@pytest.fixture
def small_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask2former, "SHORT_SIDE", 64)
    monkeypatch.setattr(mask2former, "LONG_SIDE", 107)
    monkeypatch.setattr(mask2former, "LEAST_CLASS_SCORE", 0.0)


@pytest.fixture(scope="module")
def model() -> Any:
    return build(random_state(), TINY).eval()


def noise(size: tuple[int, int], seed: int) -> np.ndarray:
    rough = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(rough).resize(size[::-1], Image.Resampling.BICUBIC))


# --- independence of the batch ----------------------------------------------------------------------------------------

MIXED = [(64, 64), (48, 64), (64, 48), (40, 100), (64, 64), (33, 47), (128, 96), (64, 64), (10, 200)]


@pytest.mark.usefixtures("small_side")
def test_a_batch_changes_no_score_and_no_verdict(model: Any) -> None:
    """Mixed sizes: only pictures of equal pre-processed size are looked at together."""
    pictures = [noise(size, seed) for seed, size in enumerate(MIXED)]
    wanted = [EVERYTHING] * len(pictures)
    alone = [Mask2FormerDetector(model, 1).detect([picture], [EVERYTHING])[0] for picture in pictures]
    together = Mask2FormerDetector(model, 4).detect(pictures, wanted)
    assert sum(map(len, alone)) > 100
    for one, other in zip(alone, together, strict=True):
        assert [item.index for item in one] == [item.index for item in other]
        assert np.allclose([item.score for item in one], [item.score for item in other], atol=1e-4, rtol=0)
        assert verdict(one) == verdict(other)


def verdict(items: list[Detection]) -> dict[str, list[int]]:
    found: dict[str, list[Finding]] = {}
    for item in items:
        found.setdefault(NAMES[item.index], []).append(Finding(label="x", box=item.box, score=item.score))
    return keep(found, "two_object")


@pytest.mark.parametrize(
    ("size", "resized", "padded"),
    [
        ((1024, 1024), (800, 800), (800, 800)),
        ((256, 256), (800, 800), (800, 800)),
        ((480, 640), (800, 1067), (800, 1088)),
        ((640, 480), (1067, 800), (1088, 800)),
        ((500, 2000), (333, 1333), (352, 1344)),
        ((1, 4000), (1, 1333), (32, 1344)),
    ],
)
def test_pictures_fit_into_1333_by_800_and_are_padded_not_stretched(
    size: tuple[int, int], resized: tuple[int, int], padded: tuple[int, int]
) -> None:
    assert resized_size(size) == resized
    assert padded_size(resized) == padded


def test_padding_is_zero_after_normalising(model: Any) -> None:
    grey = np.full((480, 640, 3), 124, dtype=np.uint8)
    prepared = Mask2FormerDetector(model, 1)._prepared(grey)
    assert prepared.shape == (3, 800, 1088)
    assert bool((prepared[:, :, 1067:] == 0).all())
    expected = (124 - torch.tensor(mask2former.MEAN)) / torch.tensor(mask2former.STANDARD_DEVIATION)
    assert torch.allclose(prepared[:, 0, 0], expected)


# --- post-processing --------------------------------------------------------------------------------------------------


class Said:
    """A model that answers with given logits."""

    device = torch.device("cpu")

    def __init__(self, classes: torch.Tensor, masks: torch.Tensor) -> None:
        self.answer = SimpleNamespace(class_queries_logits=classes[None], masks_queries_logits=masks[None])

    def __call__(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        return self.answer


def looked(classes: torch.Tensor, masks: torch.Tensor, wanted: frozenset[int] = EVERYTHING) -> list[Detection]:
    picture = np.zeros((64, 64, 3), dtype=np.uint8)
    said: Any = Said(classes, masks)
    return Mask2FormerDetector(said, 1).detect([picture], [wanted])[0]


@pytest.mark.usefixtures("small_side")
def test_score_is_class_probability_times_mean_probability_inside_the_mask() -> None:
    classes = torch.full((1, 81), -20.0)
    classes[0, [7, 9, 80]] = torch.tensor([2.0, 1.0, 1.5])
    masks = torch.full((1, 16, 16), -3.0)
    masks[0, 4:8, 2:12] = 3.0
    found = {item.index: item for item in looked(classes, masks, frozenset([7, 9, 33]))}
    assert found.keys() == {7, 9, 33}, "one query may yield several classes"
    logits = torch.nn.functional.interpolate(masks[None], size=(64, 64), mode="bilinear", align_corners=False)[0, 0]
    inside = logits > 0
    mean = float(logits[inside].sigmoid().mean())
    probability = classes[0].softmax(-1)
    assert found[7].score == pytest.approx(float(probability[7]) * mean, abs=1e-6)
    assert found[9].score == pytest.approx(float(probability[9]) * mean, abs=1e-6)
    rows, columns = torch.where(inside)
    corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert found[7].box == tuple(float(corner) for corner in corners), "the far corner is exclusive"
    mask = found[7].mask
    assert mask is not None
    assert np.array_equal(mask.unpack(), inside.numpy())


@pytest.mark.usefixtures("small_side")
def test_only_the_hundred_best_pairs_of_all_classes_count() -> None:
    """Ten queries with fifteen likely classes each: 150 pairs, of which the weakest 50 are cut before classes are."""
    classes = torch.full((10, 81), -20.0)
    for query in range(10):
        classes[query, :15] = 2.0 - 0.01 * query
        classes[query, 80] = 2.0 + 0.1 * query
    masks = torch.full((10, 16, 16), 2.0)
    assert len(looked(classes, masks)) == 100
    assert len(looked(classes, masks, frozenset([3]))) < 10


@pytest.mark.usefixtures("small_side")
def test_an_empty_mask_is_no_object() -> None:
    classes = torch.full((2, 81), -20.0)
    classes[:, 5] = 5.0
    masks = torch.full((2, 16, 16), -1.0)
    masks[1] = 1.0
    (found,) = looked(classes, masks, frozenset([5]))
    assert found.box == (0.0, 0.0, 64.0, 64.0)


def test_large_pictures_are_masked_in_parts(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask2former, "SHORT_SIDE", 64)
    monkeypatch.setattr(mask2former, "LONG_SIDE", 107)
    monkeypatch.setattr(mask2former, "LEAST_CLASS_SCORE", 0.0)
    detector, picture = Mask2FormerDetector(model, 1), noise((64, 64), 3)
    whole = detector.detect([picture], [EVERYTHING])
    monkeypatch.setattr(mask2former, "MASK_VALUES", 1)
    in_parts = detector.detect([picture], [EVERYTHING])
    assert [(item.index, item.box) for item in whole[0]] == [(item.index, item.box) for item in in_parts[0]]


def test_a_packed_mask_is_the_mask() -> None:
    mask = np.random.default_rng(0).random((31, 17)) > 0.7
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    assert np.array_equal(PackedMask.pack(mask, box).unpack(), mask)


# --- the judge --------------------------------------------------------------------------------------------------------

IDENTITY = JudgeIdentity(name="detector")
CUP = (41, (2.0, 1.0, 6.0, 5.0), 0.9)


class NamesByPixel:
    """A colour classifier that names the colour of the middle pixel, grey where it is the backdrop."""

    name, sha256 = "by pixel", "0"

    def classify(self, crops: list[Image.Image], labels: list[str], candidates: tuple[str, ...]) -> list[str]:
        known = {(255, 0, 0): "red", (0, 0, 255): "blue", (153, 153, 153): "grey"}
        assert len(crops) == len(labels)
        pixels = [crop.getpixel((crop.width // 2, crop.height // 2)) for crop in crops]
        return [known[pixel] for pixel in pixels if isinstance(pixel, tuple)]


def judge(detector: PlantedDetector, colours: Any = None, **settings: Any) -> DetectionJudge:
    return DetectionJudge(
        detector, IDENTITY, NAMES, colours or NamesByPixel(), JudgeSettings(decoding_processes=0, **settings)
    )


def objects(*labels: str) -> Question:
    return Question(key="objects", kind="objects", labels=list(labels))


def colours_of(*findings: Finding) -> Question:
    return Question(key="colours/0", kind="colours", labels=["red", "blue"], findings=list(findings))


def test_objects_come_under_geneval_names_best_first(tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "a.png", size=(20, 20))
    planted = PlantedDetector([(3, (0.0, 0.0, 4.0, 4.0), 0.4), CUP, (3, (8.0, 8.0, 12.0, 12.0), 0.8)])
    (reply,) = judge(planted).answer([task(picture, objects("thing 3", "thing 5"))])
    assert [(found.label, found.score) for found in reply.findings] == [("thing 3", 0.8), ("thing 3", 0.4)]


def test_colours_are_those_of_the_objects_asked_for(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    image = Image.new("RGB", (20, 20), "red")
    image.paste("blue", (10, 10, 20, 20))
    image.save(picture)
    first, second = (0.0, 0.0, 8.0, 8.0), (12.0, 12.0, 20.0, 20.0)
    asked = judge(PlantedDetector([(3, first, 0.8), (3, second, 0.7), (4, second, 0.9)]))
    (seen,) = asked.answer([task(picture, objects("thing 3"))])
    questions = [colours_of(seen.findings[1]), colours_of(*seen.findings), colours_of()]
    replies = asked.answer([task(picture, question) for question in questions])
    assert [reply.labels for reply in replies] == [["blue"], ["red", "blue"], []]


def test_a_restarted_judge_finds_the_same_objects_again_for_their_colours(tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "a.png", "blue", (20, 20))
    detector = PlantedDetector([(3, (0.0, 0.0, 8.0, 8.0), 0.8)])
    (seen,) = judge(detector).answer([task(picture, objects("thing 3"))])
    again = judge(detector)
    assert again.answer([task(picture, colours_of(*seen.findings))])[0].labels == ["blue"]
    assert detector.shown == 2
    elsewhere = Finding(label="thing 3", box=(10.0, 10.0, 18.0, 18.0), score=0.8)
    (reply,) = again.answer([task(picture, colours_of(elsewhere))])
    assert "same objects" in reply.error


def test_without_a_classifier_colours_stay_unanswered(tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "a.png")
    asked = DetectionJudge(PlantedDetector([CUP]), IDENTITY, NAMES, None, JudgeSettings(decoding_processes=0))
    finding = Finding(label=NAMES[41], box=CUP[1], score=0.9)
    assert asked.answer([task(picture, colours_of(finding))]) == [Reply(error=NO_COLOURS)]
    assert asked.answer([task(picture, objects(NAMES[41]))])[0].findings


def test_an_unreadable_picture_is_no_reply_and_harms_no_other(tmp_path: Path) -> None:
    good, bad = save_picture(tmp_path / "a.png", size=(20, 20)), tmp_path / "b.png"
    bad.write_bytes(good.read_bytes()[:40])
    question = objects(NAMES[41])
    replies = judge(PlantedDetector([CUP])).answer([task(path, question) for path in (good, bad, good)])
    assert [bool(reply.error) for reply in replies] == [False, True, False]
    finding = Finding(label=NAMES[41], box=CUP[1], score=0.9)
    (reply,) = judge(PlantedDetector([CUP])).answer([task(bad, colours_of(finding))])
    assert "cannot be decoded" in reply.error


def test_a_class_that_is_not_of_coco_and_a_question_in_words_stop(tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "a.png")
    with pytest.raises(StageFailed, match="a unicorn"):
        judge(PlantedDetector([])).answer([task(picture, objects("a unicorn"))])
    with pytest.raises(StageFailed, match="how many"):
        judge(PlantedDetector([])).answer([task(picture, Question(key="q", kind="text", text="how many?"))])


def test_helper_processes_decode_the_same_pictures_in_the_same_order(tmp_path: Path) -> None:
    paths = [save_picture(tmp_path / f"{colour}.png", colour) for colour in ("red", "blue", "green")]
    paths.insert(1, tmp_path / "absent.png")
    reader = PictureReader(1)
    here, there = PictureReader().read(paths), reader.read(paths)
    reader.close()
    assert here[1] == there[1]
    assert "absent.png cannot be decoded" in str(here[1])
    assert all(np.array_equal(a, b) for a, b in zip(here, there, strict=True) if not isinstance(a, str))


def test_pictures_are_upright_rgb_whatever_they_are(tmp_path: Path) -> None:
    wide = Image.new("RGB", (6, 2), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    wide.save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(np.full((2, 2), 0x8000, dtype=np.uint16)).save(tmp_path / "deep.png")
    wide.convert("RGBA").save(tmp_path / "alpha.png")
    assert upright(tmp_path / "turned.jpg").size == (2, 6)
    assert upright(tmp_path / "deep.png").getpixel((0, 0)) == (128, 128, 128)
    assert upright(tmp_path / "alpha.png").mode == "RGB"


def test_the_longest_untouched_picture_is_forgotten_first() -> None:
    memory = MaskMemory(pictures=2)
    finding = Finding(label="x", box=CUP[1], score=0.9)
    for name in "abc":
        memory.remember(Path(name), [Detection(*CUP)])
    assert memory.find(Path("a"), 41, finding) is None
    assert memory.find(Path("c"), 41, finding) is not None


# --- the gate ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_side")
def test_a_detector_that_sees_nothing_is_refused(model: Any) -> None:
    with pytest.raises(StageFailed, match="does not find what is on known photographs"):
        gate(Mask2FormerDetector(model, 1), "random weights")


def test_one_unseen_photograph_is_enough_to_be_refused() -> None:
    everywhere = (0.0, 0.0, 9.0, 9.0)
    gate(PlantedDetector([(known.index, everywhere, 0.31) for known in PHOTOGRAPHS]), "sees")
    seen = [(known.index, everywhere, 0.9) for known in PHOTOGRAPHS[:-1]]
    with pytest.raises(StageFailed, match=r"cup 0\.30"):
        gate(PlantedDetector([*seen, (PHOTOGRAPHS[-1].index, everywhere, 0.3)]), "half blind")


def test_results_say_that_a_conversion_was_not_checked_until_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "original.pth"
    torch.save({"meta": {}, "state_dict": random_state()}, path)
    sha256 = detector_sanity.sha256_file(path)
    assert conversion_label(tmp_path, sha256) == CONVERSION_LABEL
    with pytest.raises(StageFailed, match="not 743b7d99"):
        check_original(path, tmp_path, "cpu")
    monkeypatch.setattr(detector_sanity, "PUBLISHED_SHA256_PREFIX", sha256[:8])
    monkeypatch.setattr("evaluation.judges.detector_convert.load_original", lambda path: build(random_state(), TINY))
    with pytest.raises(StageFailed, match="known photographs"):
        check_original(path, tmp_path, "cpu")
    assert conversion_label(tmp_path, sha256) == CONVERSION_LABEL
    monkeypatch.setattr(detector_sanity, "COUNTED_SCORE", -1.0)
    assert check_original(path, tmp_path, "cpu")[0] == f"SHA-256 {sha256}"
    assert conversion_label(tmp_path, sha256) == CHECKED_LABEL


# --- opening ----------------------------------------------------------------------------------------------------------


@pytest.mark.benchmark_data
def test_a_folder_of_weights_opens_with_its_hash_in_the_identity(
    tmp_path: Path, benchmark_data: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path / "weights")
    monkeypatch.setattr(mask2former, "gate", lambda detector, name: None)
    monkeypatch.setattr(mask2former, "open_colours", lambda settings, published: None)
    settings = JudgeSettings(judge="detector", weights=str(tmp_path / "weights"), device="cpu")
    identity = DetectorJudge.open(place(tmp_path, "geneval", benchmark_data), settings).identity
    assert (identity.model, len(identity.sha256)) == ("weights", 64)
    assert identity.settings["conversion"] == "none"
    monkeypatch.setattr(mask2former, "gate", gate)
    with pytest.raises(StageFailed, match="known photographs"):
        DetectorJudge.open(place(tmp_path, "geneval", benchmark_data), settings)


@pytest.mark.benchmark_data
def test_what_cannot_be_opened_says_why(tmp_path: Path, benchmark_data: Path) -> None:
    here = place(tmp_path, "geneval", benchmark_data)
    with pytest.raises(PrerequisiteMissing, match="743b7d99"):
        DetectorJudge.open(here, JudgeSettings(judge="detector"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(BadInput, match="Mask2FormerForUniversalSegmentation"):
        DetectorJudge.open(here, JudgeSettings(judge="detector", weights=str(tmp_path / "empty")))
    with pytest.raises(BadInput, match="asks in words"):
        DetectorJudge.open(place(tmp_path, "gedit"), JudgeSettings(judge="detector"))
    with pytest.raises(PrerequisiteMissing, match=r"object_names\.txt"):
        DetectorJudge.open(place(tmp_path, "geneval"), JudgeSettings(judge="detector"))


def test_boxed_masks_of_these_tests_are_what_they_say() -> None:
    assert boxed(np.zeros((9, 9, 3)), CUP[1]).sum() == 16

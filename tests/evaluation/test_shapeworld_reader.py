"""The reader sees exactly what clean pictures show, and its findings pass GenEval's rules where they should."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmark import JudgeTask
from evaluation.benchmarks.geneval.geometry import relative_position
from evaluation.benchmarks.geneval.requirement import Requirement
from evaluation.benchmarks.geneval.verdict import ColourQuery, score_picture
from evaluation.judges.shapeworld import ShapeworldJudge, read_picture
from evaluation.records import Finding, Question
from reca_core.contracts.errors import StageFailed
from reca_core.contracts.records import Prompt, Sample
from reca_core.contracts.world import BACKGROUND, COLOURS, RELATIONS, SHAPES, TAGS, all_records, relation_holds
from reca_core.data.shapeworld import Scene, Thing, render, scene_for, scene_from_seed

COUNTING_THRESHOLD = 0.9


def seen(image: Image.Image) -> list[tuple[str, str]]:
    return [(found.label, found.colour) for found in read_picture(image) if found.score > COUNTING_THRESHOLD]


def correct(record: dict[str, object], image: Image.Image) -> bool:
    findings = read_picture(image)
    detections = {label: [found for found in findings if found.label == label] for label in SHAPES}

    def colours(query: ColourQuery) -> list[str]:
        return [detections[query.label][index].colour for index in query.indices]

    return score_picture(Requirement.model_validate(record), detections, colours).values["correct"] == 1


@pytest.mark.parametrize("size", [16, 24, 32, 64])
def test_clean_pictures_are_read_exactly(size: int) -> None:
    for seed in range(400):
        scene = scene_from_seed(seed)
        picture = render(scene, size)
        assert seen(picture) == [(thing.shape, thing.colour) for thing in scene.objects]
        assert len(read_picture(picture)) == len(scene.objects)


@pytest.mark.parametrize("size", [17, 48, 100])
def test_sizes_that_do_not_divide_are_read_too(size: int) -> None:
    for seed in range(60):
        scene = scene_from_seed(seed)
        assert seen(render(scene, size)) == [(thing.shape, thing.colour) for thing in scene.objects]


@pytest.mark.parametrize("size", [16, 24, 64])
def test_boxes_lie_within_a_sixteenth_of_the_objects(size: int) -> None:
    for shape, cell in itertools.product(SHAPES, range(4)):
        picture = render(Scene((Thing(shape, "black", cell),)), size)
        (found,) = read_picture(picture)
        dark = np.asarray(picture, dtype=int).sum(axis=2) < sum(BACKGROUND) / 2
        ys, xs = np.nonzero(dark)
        bounds = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert np.abs(np.subtract(found.box, bounds)).max() <= size / 16


def test_relations_of_cells_are_those_of_genevals_rule_on_boxes() -> None:
    for (subject, reference), (a, b) in itertools.product(
        itertools.permutations(SHAPES, 2), itertools.permutations(range(4), 2)
    ):
        found = {one.label: one.box for one in read_picture(_pair(subject, a, reference, b))}
        expected = [name for name in RELATIONS if relation_holds(name, a, b)]
        assert sorted(relative_position(found[subject], found[reference])) == sorted(expected)


def _pair(subject: str, a: int, reference: str, b: int) -> Image.Image:
    return render(Scene((Thing(subject, "red", a), Thing(reference, "blue", b))), 16)


@pytest.mark.parametrize("tag", TAGS)
def test_scenes_made_for_a_prompt_pass_and_others_fail(tag: str) -> None:
    records = all_records(tag)[:: max(1, len(all_records(tag)) // 40)]
    for seed, record in enumerate(records):
        assert correct(record, render(scene_for(record, seed), 16))
        assert not correct(record, render(Scene(()), 16))


def test_each_kind_of_wrong_picture_fails_its_prompt() -> None:
    two, count, colour, place, both = (all_records(tag)[0] for tag in TAGS[1:])
    (a, b), lone = (clause["class"] for clause in two["include"]), count["include"][0]["class"]
    ink = colour["include"][0]["color"]
    other = next(name for name in COLOURS if name != ink)
    reference, subject = (clause["class"] for clause in place["include"])
    inks = [clause["color"] for clause in both["include"]]
    shapes = [clause["class"] for clause in both["include"]]
    wrong = [
        (two, (Thing(a, "red", 0), Thing(a, "blue", 1))),
        (count, (Thing(lone, "red", 0),)),
        (count, tuple(Thing(lone, "red", cell) for cell in range(3))),
        (colour, (Thing(colour["include"][0]["class"], other, 0),)),
        (place, (Thing(reference, "red", 0), Thing(subject, "red", 1))),
        (both, (Thing(shapes[0], inks[1], 0), Thing(shapes[1], inks[0], 1))),
    ]
    assert place["include"][1]["position"][0] == "left of"
    assert b != a
    assert [correct(record, render(Scene(things), 16)) for record, things in wrong] == [False] * len(wrong)


@pytest.mark.parametrize("size", [(16, 24), (7, 7), (1, 1)])
def test_a_picture_of_another_form_shows_nothing(size: tuple[int, int]) -> None:
    assert read_picture(Image.new("RGB", size, "red")) == []


@pytest.mark.parametrize("colour", [*COLOURS, "white", "grey"])
def test_a_plain_picture_shows_nothing_that_counts(colour: str) -> None:
    assert seen(Image.new("RGB", (16, 16), COLOURS.get(colour, colour))) == []


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_any_mode_of_picture_is_read(mode: str) -> None:
    picture = render(Scene((Thing("ring", "black", 0),)), 32).convert(mode)
    assert [found.label for found in read_picture(picture)] == ["ring"]


def test_a_faint_object_counts_less_the_fainter_it_is() -> None:
    picture = np.asarray(render(Scene((Thing("ring", "red", 2),)), 16), dtype=float)
    ground = np.array(BACKGROUND)
    faded = [ground + strength * (picture - ground) for strength in (1, 0.2, 0.1, 0.05)]
    scores = [read_picture(Image.fromarray(np.rint(pixels).astype(np.uint8)))[0].score for pixels in faded]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > COUNTING_THRESHOLD > scores[1]
    assert scores[-1] < 0.3


def test_a_thousand_pictures_are_read_in_seconds() -> None:
    pictures = [render(scene_from_seed(seed), 64) for seed in range(100)]
    begin = time.process_time()
    for picture in pictures:
        read_picture(picture)
    assert time.process_time() - begin < 1.0


def _task(folder: Path, question: Question) -> JudgeTask:
    sample = Sample(prompt_id="0", seed=0, text="", image_path="0.png", sha256="")
    prompt = Prompt(prompt_id="0", text="", seeds=[0], outputs=["0.png"])
    return JudgeTask(prompt, sample, folder / "0.png", None, question)


def test_the_judge_answers_boxes_first_and_their_colours_next(tmp_path: Path) -> None:
    render(Scene((Thing("ring", "red", 0), Thing("bar", "blue", 1), Thing("ring", "pink", 3))), 16).save(
        tmp_path / "0.png"
    )
    judge = ShapeworldJudge()
    (objects,) = judge.answer([_task(tmp_path, Question(key="objects", kind="objects", labels=["ring"]))])
    assert [found.label for found in objects.findings] == ["ring", "ring"]
    question = Question(key="colours", kind="colours", labels=list(COLOURS), findings=objects.findings[::-1])
    (colours,) = judge.answer([_task(tmp_path, question)])
    assert colours.labels == ["pink", "red"]


def test_the_judge_refuses_boxes_it_did_not_find(tmp_path: Path) -> None:
    render(Scene(()), 16).save(tmp_path / "0.png")
    strange = Finding(label="ring", box=(0, 0, 8, 8), score=1)
    question = Question(key="colours", kind="colours", findings=[strange])
    with pytest.raises(StageFailed, match="no ring"):
        ShapeworldJudge().answer([_task(tmp_path, question)])

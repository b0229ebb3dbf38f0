"""The rendered world: pictures, captions and questions say the same, in the words of the vocabulary."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter

import numpy as np
import pytest

from reca_core.contracts.errors import BadInput
from reca_core.contracts.world import (
    BACKGROUND,
    COLOURS,
    DESCRIBE_QUESTION,
    FIRST_REPORTING_SEED,
    RELATIONS,
    SHAPES,
    TAGS,
    VOCABULARY,
    WORLD_TEMPLATES,
    all_records,
    attributes_meaning,
    geneval_metadata,
    held_back_meanings,
    meaning_of,
    relation_meaning,
    words_of,
)
from reca_core.data.shapeworld import (
    Scene,
    Thing,
    description,
    drawing_caption,
    questions,
    render,
    scene_for,
    scene_from_seed,
    text_questions,
)

SEEDS = range(500)
LONGEST_ANSWER = 4
SAMPLING_STEPS = 12
"""Of 255: what different sample points can make of a curved edge."""
PICTURES_SHA256 = "0cd75935e4722aa9bb65906ebeff8c854abce2908a5c0cd1ca549ef9b7202f11"
"""Of eight clean pictures at 16 pixels: pictures are equal on every machine and change only with WORLD_VERSION."""


def all_texts(seed: int) -> list[str]:
    scene = scene_from_seed(seed)
    pairs = questions(scene, seed) + text_questions(scene, seed)
    captions = [drawing_caption(scene, seed, rich) for rich in (False, True)]
    return [*itertools.chain.from_iterable(pairs), *captions, description(scene)]


def test_pictures_are_the_same_bytes_on_every_machine() -> None:
    pixels = b"".join(render(scene_from_seed(seed), 16).tobytes() for seed in range(8))
    assert hashlib.sha256(pixels).hexdigest() == PICTURES_SHA256


def test_different_scenes_have_different_pictures() -> None:
    scenes = {scene_from_seed(seed) for seed in SEEDS}
    assert len({render(scene, 16).tobytes() for scene in scenes}) == len(scenes)


@pytest.mark.parametrize("factor", [2, 4])
def test_a_large_picture_averaged_down_is_the_small_one(factor: int) -> None:
    for seed in range(50):
        small = np.asarray(render(scene_from_seed(seed), 16), dtype=float)
        large = np.asarray(render(scene_from_seed(seed), 16 * factor), dtype=float)
        averaged = large.reshape(16, factor, 16, factor, 3).mean((1, 3))
        # both round, and the curved edges are sampled at different points
        assert np.abs(averaged - small).max() <= SAMPLING_STEPS


def test_an_empty_scene_is_plain_ground() -> None:
    assert (np.asarray(render(Scene(()), 16)) == BACKGROUND).all()


def test_random_scenes_show_every_count_shape_and_colour() -> None:
    scenes = [scene_from_seed(seed) for seed in SEEDS]
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3, 4}
    assert {thing.shape for scene in scenes for thing in scene.objects} == set(SHAPES)
    assert {thing.colour for scene in scenes for thing in scene.objects} == set(COLOURS)


@pytest.mark.parametrize(
    "things",
    [
        (Thing("circle", "red", 0),),
        (Thing("ring", "orange", 0),),
        (Thing("ring", "red", 4),),
        (Thing("ring", "red", 0), Thing("bar", "red", 0)),
    ],
)
def test_scenes_that_this_world_does_not_have_are_refused(things: tuple[Thing, ...]) -> None:
    with pytest.raises(BadInput):
        Scene(things)


def test_a_picture_too_small_for_shapes_is_refused() -> None:
    with pytest.raises(BadInput, match="8 or more"):
        render(scene_from_seed(0), 7)


def test_every_word_of_every_text_is_in_the_vocabulary() -> None:
    texts = [text for seed in SEEDS for text in all_texts(seed)] + [*WORLD_TEMPLATES, DESCRIBE_QUESTION]
    texts += [record["prompt"] for tag in TAGS for record in all_records(tag)]
    assert {word for text in texts for word in words_of(text)} <= set(VOCABULARY)
    assert list(VOCABULARY) == sorted(set(VOCABULARY))


def test_no_noun_or_colour_needs_the_article_an() -> None:
    assert not [word for word in (*SHAPES, *COLOURS) if word[0] in "aeiou"]


def test_texts_depend_on_the_seed_alone() -> None:
    assert [all_texts(seed) for seed in range(20)] == [all_texts(seed) for seed in range(20)]


def test_plain_captions_name_every_shape_and_nothing_else() -> None:
    for seed in SEEDS:
        scene = scene_from_seed(seed)
        words = words_of(drawing_caption(scene, seed, rich=False))
        assert not set(words) & {*COLOURS, *RELATIONS, "two", "three", "four", "in"}
        counts = Counter(thing.shape for thing in scene.objects)
        assert {shape for shape, count in counts.items() if count == 1} == set(words) & set(SHAPES)


def test_rich_captions_say_more_than_plain_ones() -> None:
    for seed in SEEDS:
        words = set(words_of(drawing_caption(scene_from_seed(seed), seed, rich=True)))
        assert words & {*COLOURS, "two", "three", "four", "in", "left", "right", "above", "below"}


def test_answers_are_short() -> None:
    answers = [answer for seed in SEEDS for _, answer in questions(scene_from_seed(seed), seed)]
    assert max(len(words_of(answer)) for answer in answers) <= LONGEST_ANSWER


def test_yes_is_as_frequent_as_no() -> None:
    answers = Counter(answer for seed in range(2000) for _, answer in questions(scene_from_seed(seed), seed))
    assert 0.9 < answers["yes"] / answers["no"] < 1.1


def test_questions_about_captions_carry_the_caption() -> None:
    for seed in SEEDS:
        for question, _ in text_questions(scene_from_seed(seed), seed):
            assert re.fullmatch(r"the picture shows .+\. .+\?", question)


def test_every_tag_has_prompts_without_duplicates() -> None:
    counts = {"single_object": 6, "two_object": 30, "counting": 18, "colors": 48, "position": 60, "color_attr": 840}
    records = geneval_metadata(FIRST_REPORTING_SEED, 10_000)
    assert Counter(record["tag"] for record in records) == counts
    assert len({record["prompt"] for record in records}) == len(records)
    assert list(dict.fromkeys(record["tag"] for record in records)) == list(TAGS)


def test_prompts_depend_on_the_split_seed_alone() -> None:
    assert geneval_metadata(3, 20) == geneval_metadata(3, 20)
    assert geneval_metadata(3, 20) != geneval_metadata(4, 20)


def test_counting_excludes_one_more_as_geneval_does() -> None:
    for record in all_records("counting"):
        (wanted,), (excluded,) = record["include"], record["exclude"]
        assert excluded == {"class": wanted["class"], "count": wanted["count"] + 1}
        assert wanted["count"] in (2, 3, 4)


def test_tuning_and_reporting_share_no_position_and_no_attribute_meaning() -> None:
    def meanings(seed: int) -> set[str]:
        return {meaning_of(record) for record in geneval_metadata(seed, 10_000) if record["tag"] in TAGS[4:]}

    assert not meanings(FIRST_REPORTING_SEED - 1) & meanings(FIRST_REPORTING_SEED)


def test_no_drawing_caption_says_what_only_reporting_asks_for() -> None:
    said = [drawing_caption(scene_from_seed(seed), seed, rich=True) for seed in range(4000)]
    pair = re.compile(r"a (\w+) (\w+) and a (\w+) (\w+)")
    relation = re.compile(rf"a (?:(\w+) )?(\w+) ({'|'.join(RELATIONS)}) a (?:(\w+) )?(\w+)")
    meanings = [attributes_meaning([m.groups()[:2], m.groups()[2:]]) for text in said if (m := pair.fullmatch(text))]
    relations = [m.groups() for text in said if (m := relation.fullmatch(text))]
    meanings += [relation_meaning(subject, name, other) for _, subject, name, _, other in relations]
    meanings += [attributes_meaning([(ink, a), (other, b)]) for ink, a, _, other, b in relations if ink]
    assert len(set(meanings)) > 100
    assert not held_back_meanings() & set(meanings)


def test_a_scene_for_a_prompt_is_keyed_by_its_seed() -> None:
    record = all_records("position")[0]
    assert scene_for(record, 1) == scene_for(record, 1)
    assert len({scene_for(record, seed) for seed in range(20)}) > 10


def test_unknown_tags_and_senseless_splits_are_refused() -> None:
    with pytest.raises(BadInput, match="single_object"):
        all_records("colour")
    with pytest.raises(BadInput):
        geneval_metadata(0, 0)

"""Where the replay terms' questions and captions come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reca_core.contracts.errors import BadInput
from reca_core.contracts.requests import CaptionSource, LossTerms
from reca_core.contracts.world import DESCRIBE_QUESTION, VOCABULARY
from reca_core.data.captions import open_captions
from tests.reca_core.tiny_janus import tiny_pictures

REPLAY = LossTerms(reconstruction=0, image_to_text=1, text_to_image=1, text=1)


def words(text: str) -> set[str]:
    return set(text.replace("?", " ? ").replace(",", " , ").replace(".", " . ").replace(":", " : ").split())


def test_the_rendered_world_gives_the_same_sample_at_the_same_position() -> None:
    first, again = (open_captions(CaptionSource(), 16, REPLAY) for _ in range(2))
    for position in (9, 2, 9):
        assert first.asked(position).picture.tobytes() == again.asked(position).picture.tobytes()
        assert first.asked(position).question == again.asked(position).question
        assert first.drawn(position).caption == again.drawn(position).caption
        assert first.told(position) == again.told(position)
    assert first.asked(1).picture.tobytes() != first.asked(2).picture.tobytes()


def test_the_worlds_captions_stay_inside_its_vocabulary() -> None:
    captions = open_captions(CaptionSource(rich_fraction=0.5), 16, REPLAY)
    said = [captions.told(position).question for position in range(50)]
    said += [captions.drawn(position).caption for position in range(50)] + captions.prompts(8)
    assert set.union(*map(words, said)) <= set(VOCABULARY)


def test_rich_captions_come_as_often_as_asked() -> None:
    plain, rich = (open_captions(CaptionSource(rich_fraction=rate), 16, REPLAY) for rate in (0.0, 1.0))
    lengths = [sum(len(source.drawn(position).caption) for position in range(60)) for source in (plain, rich)]
    assert lengths[1] > 1.5 * lengths[0]


def test_preview_prompts_are_not_in_the_stream() -> None:
    source = CaptionSource(seed=100)
    captions = open_captions(source, 16, REPLAY)
    before = open_captions(CaptionSource(seed=92, rich_fraction=1.0), 16, REPLAY)
    assert captions.prompts(8) == [before.drawn(position).caption for position in range(8)]


def llava(folder: Path, rows: list[object]) -> CaptionSource:
    file = folder / "captions.json"
    file.write_text(json.dumps(rows))
    return CaptionSource(source=str(file))


def conversation(*turns: str, image: str | None = None) -> dict[str, object]:
    speakers = ("human", "gpt") * len(turns)
    row: dict[str, object] = {
        "conversations": [{"from": who, "value": text} for who, text in zip(speakers, turns, strict=False)]
    }
    return row | ({"image": image} if image else {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, picture in enumerate(tiny_pictures(2)):
        picture.save(tmp_path / f"{number}.png")
    return tmp_path


def test_a_llava_file_serves_each_term_with_its_own_rows(folder: Path) -> None:
    source = llava(
        folder,
        [
            conversation("<image>\nwhat is it?", "a cat", "what colour?", "red", image="0.png"),
            conversation("draw a dog", "<image>", image="1.png"),
            conversation("two and two?", "four"),
        ],
    )
    captions = open_captions(source, 16, REPLAY)
    asked = {(captions.asked(position).question, captions.asked(position).answer) for position in range(30)}
    assert asked == {("what is it?", "a cat"), ("what colour?", "red")}
    assert captions.drawn(5).caption == "draw a dog"
    assert captions.drawn(5).picture.size == (16, 16)
    assert (captions.told(3).question, captions.told(3).answer) == ("two and two?", "four")
    assert captions.prompts(4) == ["draw a dog"]


def test_a_term_with_weight_but_without_rows_is_refused(folder: Path) -> None:
    source = llava(folder, [conversation("<image> what?", "a cat", image="0.png")])
    open_captions(source, 16, LossTerms(image_to_text=1, text=0))
    with pytest.raises(BadInput, match=r"losses\.text to 0"):
        open_captions(source, 16, LossTerms(image_to_text=1, text=1))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"image": "0.png"}], "row 0 is no LLaVA conversation"),
        ([conversation("<image> a", "b", "c", image="0.png")], "row 0 does not alternate"),
        ([conversation("<image> a", "b", image="../../etc/passwd")], "lies outside"),
        ([conversation("<image> a", "b", image="/etc/passwd")], "lies outside"),
        ([], "no list of conversations"),
        ([7], "row 0 is no LLaVA conversation"),
    ],
)
def test_a_file_that_is_not_in_the_format_is_refused_by_row(folder: Path, rows: list[object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        open_captions(llava(folder, rows), 16, LossTerms(text=0))


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(BadInput, match="cannot be read as a JSON list"):
        open_captions(CaptionSource(source=str(tmp_path / "x.json")), 16, REPLAY)


def test_finding_questions_come_as_often_as_asked() -> None:
    source = CaptionSource(described_fraction=0, finding_fraction=1)
    captions = open_captions(source, 16, REPLAY)
    asked = [captions.asked(position).question for position in range(60)]
    finding = [
        question for question in asked if question.startswith(("what colour is the ", "where is the ", "is the "))
    ]
    lone_free = len(asked) - len(finding)
    assert len(finding) > lone_free
    usual = open_captions(source.model_copy(update={"finding_fraction": 0.0}), 16, REPLAY)
    assert any(usual.asked(position).question.startswith("how many") for position in range(60))


def test_descriptions_come_as_often_as_asked() -> None:
    whole = open_captions(CaptionSource(described_fraction=1), 16, REPLAY)
    assert {whole.asked(position).question for position in range(20)} == {DESCRIBE_QUESTION}
    never = open_captions(CaptionSource(described_fraction=0), 16, REPLAY)
    assert DESCRIBE_QUESTION not in {never.asked(position).question for position in range(60)}

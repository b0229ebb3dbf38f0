"""Where the replay terms' questions and captions come from."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import pytest

from reca_core.contracts.errors import BadInput, StageFailed
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.requests import CaptionSource, LossTerms
from reca_core.contracts.world import DESCRIBE_QUESTION, VOCABULARY
from reca_core.data import captions as captions_module
from reca_core.data.caption_pictures import LeftOut, examine
from reca_core.data.captions import LlavaCaptions, open_captions
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


def conversation(*turns: object, image: str | None = None) -> dict[str, object]:
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
        ([conversation("<image>\nwhat colour?", "red")], "row 0 says <image>, but names no picture"),
        ([conversation("what colour?\n<image>", "red")], "row 0 says <image>, but names no picture"),
        ([conversation("draw a cat", "<image>")], "row 0 says <image>, but names no picture"),
        ([conversation("hi", "ho", "draw a cat", "<image>")], "row 0 says <image>, but names no picture"),
        ([conversation("<image> a", "b") | {"image": None}], "row 0 says <image>, but names no picture"),
        ([conversation("<image> a", "b") | {"image": ""}], "row 0 names its picture as ''"),
        ([conversation("<image> a", "b") | {"image": ["0.png", "1.png"]}], "row 0 names its picture as \\['0.png'"),
        ([conversation("<image> a", "b") | {"image": "a\0.png"}], "row 0 names the picture 'a.*cannot be looked for"),
        ([conversation("hi", "ho", "draw a cat", "<image>", image="0.png")], "row 0 answers with <image> beside"),
        ([conversation("draw a cat", "<image>", "hi", "ho", image="0.png")], "row 0 answers with <image> beside"),
        ([conversation("draw a cat", "Here it is: <image>", image="0.png")], "row 0 answers with <image> beside"),
        ([conversation("<image> make it blue", "<image>", image="0.png")], "row 0 answers with <image> beside"),
        ([conversation("<image> a", None, image="0.png")], "row 0 has a turn that is no text: None"),
        ([conversation("<image> a", 7, image="0.png")], "row 0 has a turn that is no text: 7"),
        ([conversation("a", "half \ud83d")], "row 0 has a turn that is no text: 'half"),
    ],
)
def test_a_file_that_is_not_in_the_format_is_refused_by_row(folder: Path, rows: list[object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        open_captions(llava(folder, rows), 16, LossTerms(text=0))


def test_text_alone_may_quote_the_token_between_its_words(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    feed = "what is wrong with <rss><image></rss> here?"
    source = llava(folder, [conversation(feed, "close <image> too, please"), conversation("hi", "ho")])
    captions = open_captions(source, 16, LossTerms(image_to_text=0, text_to_image=0, text=1))
    told = {(captions.told(position).question, captions.told(position).answer) for position in range(20)}
    assert told == {(feed, "close <image> too, please"), ("hi", "ho")}
    assert "1 rows of" in caplog.text


def test_a_picture_is_asked_about_with_and_without_the_token(folder: Path) -> None:
    rows = [
        conversation("what?", "a cat", image="0.png"),
        conversation("who is in <image> now?", "a dog", image="1.png"),
    ]
    captions = open_captions(llava(folder, rows), 16, LossTerms(image_to_text=1, text=0))
    assert {captions.asked(position).question for position in range(20)} == {"what?", "who is in  now?"}


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_a_file_that_is_not_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
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


def test_rendered_pictures_in_memory_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions_module, "KEPT_BYTES", 3 * 4 * 16 * 16)
    captions = open_captions(CaptionSource(), 16, REPLAY)
    first = [captions.asked(position).picture for position in range(3)]
    assert [captions.drawn(position).picture for position in range(3)] == first
    assert all(captions.drawn(position).picture is first[position] for position in range(3))
    for position in range(3, 50):
        captions.asked(position)
    kept = weakref.ref(first.pop(0))
    del first
    gc.collect()
    assert kept() is None
    large = open_captions(CaptionSource(), 48, REPLAY)
    assert large.asked(0).picture is large.drawn(0).picture


MIXED = LossTerms(reconstruction=0, image_to_text=1, text_to_image=1, text=0)


def examined(source: CaptionSource, folder: Path, losses: LossTerms = MIXED) -> tuple[LlavaCaptions, LeftOut]:
    captions = open_captions(source, 16, losses)
    assert isinstance(captions, LlavaCaptions)
    left_out = examine(captions, losses, folder / "left_out.jsonl", lambda progress: None)
    captions.leave_out(left_out.rows)
    return captions, left_out


def test_rows_whose_pictures_cannot_be_used_are_left_out_counted_and_listed(folder: Path) -> None:
    (folder / "text.png").write_text("no picture")
    (folder / "folder.png").mkdir()
    (folder / "head.png").write_bytes((folder / "0.png").read_bytes()[:20])
    names = ["0.png", "gone.png", "1.png", "text.png", "0.png", "1.png"]
    rows = [conversation(f"<image> question {number}", "yes", image=name) for number, name in enumerate(names)]
    rows += [conversation("draw 6", "<image>", image="0.png"), conversation("draw 7", "<image>", image="folder.png")]
    rows += [conversation("draw 8", "<image>", image="head.png"), conversation("draw 9", "<image>", image="1.png")]
    captions, left_out = examined(llava(folder, rows), folder)
    assert left_out.rows == {1, 3, 7, 8}
    assert captions.left_out == 4
    asked = {captions.asked(position).question for position in range(40)}
    assert asked == {"question 0", "question 2", "question 4", "question 5"}
    assert {captions.drawn(position).caption for position in range(40)} == {"draw 6", "draw 9"}
    listed = [(row["row"], Path(row["image"]).name, row["kind"]) for row in read_jsonl(folder / "left_out.jsonl")]
    assert listed[:2] == [(1, "gone.png", "missing"), (3, "text.png", "not_a_picture")]
    assert [row[:2] for row in listed[2:]] == [(7, "folder.png"), (8, "head.png")]


def test_a_missing_picture_whose_name_is_not_utf8_is_listed(folder: Path) -> None:
    rows = [conversation("what?", "it", image=name) for name in ("0.png", "1.png", "\udcff.png")]
    _, left_out = examined(llava(folder, rows), folder, LossTerms(image_to_text=1, text=0))
    assert left_out.rows == {2}
    [listed] = read_jsonl(folder / "left_out.jsonl")
    assert Path(listed["image"]).name == "\\xff.png"


def test_pictures_of_terms_without_weight_are_not_looked_at(folder: Path) -> None:
    rows = [conversation("<image> a", "b", image="0.png"), conversation("draw", "<image>", image="gone.png")]
    assert not examined(llava(folder, rows), folder, LossTerms(image_to_text=1, text=0))[1].rows


def test_a_file_most_of_whose_pictures_are_missing_is_refused_at_once(folder: Path) -> None:
    rows = [conversation("<image> a", "b", image=name) for name in ("0.png", "x/0.png", "x/1.png")]
    with pytest.raises(BadInput) as refused:
        examined(llava(folder, rows), folder, LossTerms(image_to_text=1, text=0))
    said = str(refused.value)
    assert f"captions.source ({folder / 'captions.json'}): 2 of 3 rows for the loss term image_to_text" in said
    assert "2 missing" in said
    assert "row 1" in said
    assert f"count from {folder}" in said
    assert refused.value.choices


def test_a_picture_that_turns_out_damaged_is_named_with_its_row(folder: Path) -> None:
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    source = llava(folder, [conversation("hi", "ho"), conversation("<image> a", "b", image="1.png")])
    captions, left_out = examined(source, folder, LossTerms(image_to_text=1, text=0))
    assert not left_out.rows
    with pytest.raises(StageFailed, match=r"(?s)captions\.source.*row 1.*1\.png.*truncated.*remedy: put a whole"):
        captions.asked(0)

"""What is sent per benchmark, to the letter: order, texts, picture bytes, limits; and what becomes of the reply."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmark import JudgeTask
from evaluation.judges.opening import judge_suffix, weights_sha256
from evaluation.judges.vlm import STYLES, YES_NO_REQUEST, content, reply, style_of
from evaluation.judges.vlm_endpoint import KEY_VARIABLE, EndpointJudge
from evaluation.records import Reply
from reca_core.contracts.errors import BadInput
from reca_core.contracts.judging import JudgeSettings
from tests.evaluation.judging import place, task, text_question
from tests.evaluation.serving import Request, served

ORIENTATION_TAG = 0x0112
QUARTER_TURN = 6


def gradient(size: tuple[int, int]) -> Image.Image:
    across = np.linspace(0, 255, size[0])[None, :, None] + np.zeros((size[1], 1, 3))
    return Image.fromarray(across.astype(np.uint8))


@pytest.fixture
def edit(tmp_path: Path) -> JudgeTask:
    """A JPEG source of 40x30 lying on its side, and an edited PNG of another size with alpha."""
    source, edited = tmp_path / "source.jpg", tmp_path / "edited.png"
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = QUARTER_TURN
    gradient((40, 30)).save(source, exif=exif)
    gradient((64, 64)).convert("RGBA").save(edited)
    return task(edited, text_question("judge this"), source)


def parts_of(given: JudgeTask, benchmark: str) -> list[Any]:
    """Texts as they are, pictures as (media type, bytes)."""
    sent = content(given, STYLES[benchmark])
    assert isinstance(sent, list)
    found: list[Any] = []
    for part in sent:
        if part["type"] == "text":
            found.append(part["text"])
            continue
        head, _, data = part["image_url"]["url"].partition(";base64,")
        found.append((head.removeprefix("data:"), base64.b64decode(data)))
    return found


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_imgedit_sends_words_then_both_files_as_stored_announced_as_png(edit: JudgeTask) -> None:
    assert edit.source is not None
    assert parts_of(edit, "imgedit") == [
        "judge this",
        ("image/png", edit.source.read_bytes()),
        ("image/png", edit.picture.read_bytes()),
    ]


def test_gedit_sends_upright_jpegs_and_the_edited_one_in_the_size_of_its_source(edit: JudgeTask) -> None:
    """Upstream resizes to the size in which the source is stored, before it turns the source upright."""
    words, (source_type, source), (edited_type, edited) = parts_of(edit, "gedit")
    assert words == "judge this"
    assert {source_type, edited_type} == {"image/jpeg"}
    assert [(opened(data).format, opened(data).mode) for data in (source, edited)] == [("JPEG", "RGB")] * 2
    assert opened(source).size == (30, 40)
    assert opened(edited).size == (40, 30)
    with Image.open(edit.picture) as picture:
        expected = io.BytesIO()
        picture.convert("RGB").resize((40, 30)).save(expected, "JPEG")
    assert edited == expected.getvalue()


def test_the_quality_call_of_gedit_sends_the_edited_picture_alone(edit: JudgeTask) -> None:
    quality = task(edit.picture, text_question("quality", ("text", "sample")), edit.source)
    words, (media_type, data) = parts_of(quality, "gedit")
    assert (words, media_type, opened(data).size) == ("quality", "image/jpeg", (40, 30))


def test_dpg_sends_the_picture_then_the_question_with_the_form_of_the_answer(edit: JudgeTask) -> None:
    question = task(edit.picture, text_question("Is it red?", ("sample", "text")))
    assert parts_of(question, "dpg") == [("image/png", edit.picture.read_bytes()), f"Is it red? {YES_NO_REQUEST}"]


@pytest.mark.parametrize("benchmark", ["gedit", "imgedit"])
def test_a_missing_source_is_the_benchmarks_mistake(edit: JudgeTask, benchmark: str) -> None:
    with pytest.raises(BadInput, match="no source picture"):
        content(task(edit.picture, text_question("x")), STYLES[benchmark])


def test_a_picture_that_cannot_be_shown_is_no_reply(edit: JudgeTask, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(edit.picture.read_bytes()[:60])
    found = content(task(broken, text_question("x"), edit.source), STYLES["gedit"])
    assert isinstance(found, Reply)
    assert "broken.png cannot be shown" in found.error


@pytest.mark.parametrize(
    ("benchmark", "protocol", "expected"),
    [
        ("imgedit", "published", {"model": "gpt-4o-2024-08-06"}),
        ("gedit", "published", {"model": "gpt-4.1-2025-04-14", "max_tokens": 1400}),
        ("imgedit", "default", {"model": "m", "temperature": 0.0}),
        ("gedit", "default", {"model": "m", "temperature": 0.0, "max_tokens": 1400}),
        ("dpg", "default", {"model": "m", "temperature": 0.0, "max_tokens": 16}),
    ],
)
def test_nothing_else_is_sent(
    edit: JudgeTask,
    tmp_path: Path,
    benchmark: str,
    protocol: str,
    expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "k")

    def handle(request: Request) -> None:
        message = {"role": "assistant", "content": "yes"}
        answer = {"model": expected["model"], "choices": [{"index": 0, "message": message}]}
        request.reply(200, json.dumps(answer).encode())

    with served(handle) as server:
        given = {"url": f"{server.url}/v1", "protocol": protocol, "model": expected["model"]}
        judge = EndpointJudge.open(place(tmp_path, benchmark), JudgeSettings.model_validate(given))
        assert judge.answer([edit])[0].text == "yes"
    sent = json.loads(server.bodies[0])
    (message,) = sent.pop("messages")
    assert sent == expected
    assert message == {"role": "user", "content": content(edit, STYLES[benchmark])}
    assert server.paths == ["/v1/chat/completions"]


def test_another_model_than_the_papers_is_no_published_judge(
    edit: JudgeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "k")
    answer = {"model": "gpt-4o-mini", "choices": [{"index": 0, "message": {"content": "4"}}]}
    with served(lambda request: request.reply(200, json.dumps(answer).encode())) as server:
        settings = JudgeSettings(url=f"{server.url}/v1", protocol="published")
        judge = EndpointJudge.open(place(tmp_path, "imgedit"), settings)
        with pytest.raises(Exception, match="answered as 'gpt-4o-mini'"):
            judge.answer([edit])


@pytest.mark.parametrize(
    ("said", "heard"),
    [("yes", "yes"), ("Yes.", "yes"), (" **No**", "no"), ("NO, there is none", "no"), ("yes - it is", "yes")],
)
def test_a_yes_or_no_is_heard(said: str, heard: str) -> None:
    assert reply(said, STYLES["dpg"]) == Reply(text=heard)


@pytest.mark.parametrize("said", ["I'm sorry, no", "nothing there", "yesterday", "The picture shows", "1"])
def test_what_is_neither_is_no_answer_and_never_a_no(said: str) -> None:
    found = reply(said, STYLES["dpg"])
    assert found.text == ""
    assert said in found.error


def test_scores_are_not_touched() -> None:
    assert reply("Yes: 4\n", STYLES["gedit"]) == Reply(text="Yes: 4\n")


def test_a_benchmark_of_boxes_is_not_asked_in_words() -> None:
    with pytest.raises(BadInput, match="detector"):
        style_of("geneval", "openai")


@pytest.mark.parametrize(
    ("settings", "suffix"),
    [
        ({}, ""),
        ({"judge": "shapeworld"}, "shapeworld"),
        ({"judge": "onnx", "weights": "/w/YOLOv8m.onnx"}, "yolov8m"),
        ({"judge": "detector"}, ""),
        (
            {"judge": "detector", "model": "facebook/mask2former-swin-small-coco-instance"},
            "mask2former-swin-small-coco-instance",
        ),
        ({"judge": "local", "model": "Qwen/Qwen3-VL-8B-Instruct"}, "qwen3-vl-8b-instruct"),
        ({"judge": "openai", "model": "gpt-4.1-2025-04-14"}, "gpt-4.1-2025-04-14"),
        ({"judge": "openai", "protocol": "published"}, ""),
        ({"judge": "openai"}, "openai"),
        ({"judge": "vqa"}, ""),
    ],
)
def test_only_the_published_judge_leaves_an_id_bare(settings: dict[str, str], suffix: str) -> None:
    assert judge_suffix(JudgeSettings.model_validate(settings)) == suffix


def test_weights_are_known_by_content(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "w").write_bytes(b"x")
    file, folder = weights_sha256(str(tmp_path / "a.onnx")), weights_sha256(str(tmp_path / "folder"))
    assert len({file, folder, weights_sha256("")}) == 3
    with pytest.raises(BadInput, match="not there"):
        weights_sha256(str(tmp_path / "absent"))

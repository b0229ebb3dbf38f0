"""A model in this process answers for pictures of any kind, the same every time, in the order upstream asks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from evaluation.judges import local_vlm
from evaluation.judges.local_vlm import LocalVlmJudge, ordered
from evaluation.judges.vlm import IMGEDIT_JUDGE_PIXELS, STYLES, Style
from evaluation.judges.weights import load_pickle, local_folder
from evaluation.records import Reply
from reca_core.contracts.errors import BadInput, PrerequisiteMissing, StageFailed
from reca_core.contracts.judging import JudgeSettings, SettledJudge
from tests.evaluation.judging import place, save_picture, task, text_question
from tests.evaluation.tiny_vlm import TINY

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=sorted(TINY))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(autouse=True)
def _few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights never stop by themselves."""
    short = {
        name: Style(style.encode, style.look, style.local_order, 4, 4, "", style.yes_no)
        for name, style in STYLES.items()
    }
    monkeypatch.setattr("evaluation.judges.vlm.STYLES", short)


def opened(folder: Path, checkpoint: Path, benchmark: str) -> LocalVlmJudge:
    settings = JudgeSettings(judge="local", weights=str(checkpoint), device="cpu")
    return LocalVlmJudge.open(place(folder, benchmark), settings)


@pytest.mark.parametrize("benchmark", ["imgedit", "gedit"])
def test_a_model_answers_for_two_pictures_and_does_so_again(tmp_path: Path, checkpoint: Path, benchmark: str) -> None:
    sample, source = save_picture(tmp_path / "a.png", "red", (40, 30)), save_picture(tmp_path / "b.png", "blue")
    asked = [task(sample, text_question("rate this"), source), task(source, text_question("rate this"), sample)]
    judge = opened(tmp_path, checkpoint, benchmark)
    replies = judge.answer(asked)
    assert not [reply.error for reply in replies if reply.error]
    assert all(reply.text for reply in replies)
    assert opened(tmp_path, checkpoint, benchmark).answer(asked[::-1]) == replies[::-1]


def test_a_yes_or_no_is_heard_or_there_is_no_answer(tmp_path: Path, checkpoint: Path) -> None:
    sample = save_picture(tmp_path / "a.png")
    (reply,) = opened(tmp_path, checkpoint, "dpg").answer(
        [task(sample, text_question("is it red?", ("sample", "text")))]
    )
    assert reply.text in ("yes", "no") or "neither yes nor no" in reply.error


def test_a_picture_that_the_model_cannot_take_is_no_reply(tmp_path: Path, checkpoint: Path) -> None:
    """Qwen refuses aspect ratios above 200; a broken file is refused by all."""
    sample = save_picture(tmp_path / "a.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(sample.read_bytes()[:50])
    (reply,) = opened(tmp_path, checkpoint, "imgedit").answer([task(broken, text_question("x"), sample)])
    assert reply == Reply(error=reply.error)
    assert "cannot look at the picture" in reply.error


def test_the_weights_are_part_of_the_identity(tmp_path: Path, checkpoint: Path) -> None:
    identity = opened(tmp_path, checkpoint, "gedit").identity
    assert len(identity.sha256) == 64
    changed = SettledJudge(judge="local", weights=str(checkpoint), weights_sha256="0" * 64)
    with pytest.raises(BadInput, match="has hash"):
        LocalVlmJudge.open(place(tmp_path, "gedit"), changed)


def test_pictures_come_first_where_upstream_put_them_first() -> None:
    asked = ["text", "source", "sample"]
    assert ordered(asked, STYLES["gedit"]) == ["source", "sample", "text"]
    assert ordered(asked, STYLES["imgedit"]) == asked


def test_imgedits_picture_sizes_reach_a_qwen_model(tmp_path: Path) -> None:
    _, processor = local_vlm.load(TINY["qwen2.5-vl"](tmp_path / "m"), "cpu")
    local_vlm._set_pixels(processor, STYLES["imgedit"])
    (_, height, width) = processor.image_processor([Image.new("RGB", (60, 40))])["image_grid_thw"][0]
    patch = processor.image_processor.patch_size
    assert IMGEDIT_JUDGE_PIXELS[0] <= height * width * patch**2 <= IMGEDIT_JUDGE_PIXELS[1]


@pytest.mark.parametrize(
    "files", [{}, {"config.json": "{}"}, {"config.json": "{"}, {"config.json": '{"model_type": "bert"}'}]
)
def test_a_folder_that_is_no_such_model_is_bad_input(tmp_path: Path, files: dict[str, str]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "other").write_text("x")
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(BadInput, match="is no model that AutoModelForImageTextToText can load"):
        opened(tmp_path, folder, "gedit")


def test_no_model_and_an_absent_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="names no model"):
        LocalVlmJudge.open(place(tmp_path, "gedit"), JudgeSettings(judge="local"))
    with pytest.raises(PrerequisiteMissing, match="no folder"):
        local_folder(str(tmp_path / "absent"), "judge.model")


class Malice:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


def test_a_malicious_pickle_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": Malice(tmp_path / "ran")}, path)
    with pytest.raises(StageFailed, match="cannot be loaded as weights alone"):
        load_pickle(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 half a zip"])
def test_a_damaged_weights_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(StageFailed, match=r"w\.pth"):
        load_pickle(path)

"""Captions that a training leaves out stay out over its resumes: which row a position means depends on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reca_core.contracts.errors import CheckpointRefused, StageFailed
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.hashing import sha256_file
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.lifeline import StopRequest
from reca_core.contracts.requests import LossTerms, TrainRequest
from reca_core.training.run import Training
from tests.reca_core.test_resume import interrupt
from tests.reca_core.tiny_janus import tiny_pictures
from tests.reca_core.training_rig import ONE_PROCESS, request, train, weights

CAPTIONED = LossTerms(reconstruction=0, image_to_text=1, text_to_image=0, text=0)


def captioned(root: Path, run: str = "run", **settings: Any) -> TrainRequest:
    """Eight questions about a picture each; those of rows 2 and 5 are missing."""
    asked = request(root, run=run, losses=CAPTIONED, **settings)
    folder = root / "captions"
    if not folder.exists():
        folder.mkdir()
        rows = []
        for number, picture in enumerate(tiny_pictures(8)):
            picture.save((root if number in (2, 5) else folder) / f"{number}.png")
            turns = [("human", "<image> how many?"), ("gpt", ("one", "two")[number % 2])]
            rows.append({"image": f"{number}.png", "conversations": [{"from": a, "value": b} for a, b in turns]})
        (folder / "llava.json").write_text(json.dumps(rows))
    file = folder / "llava.json"
    captions = asked.captions.model_copy(update={"source": str(file)})
    return asked.model_copy(update={"captions": captions, "captions_sha256": sha256_file(file)})


def test_captions_left_out_stay_out_when_their_pictures_come_back(tmp_path: Path) -> None:
    straight, asked = captioned(tmp_path, "straight"), captioned(tmp_path)
    assert train(straight).left_out_captions == 2
    interrupt(asked, 3)
    for number in (2, 5):
        (tmp_path / f"{number}.png").rename(tmp_path / "captions" / f"{number}.png")
    resumed = train(asked)
    assert (resumed.resumed_from_step, resumed.left_out_captions) == (3, 2)
    assert weights(asked) == weights(straight)
    listed = read_jsonl(RunDirectory(Path(asked.run_directory)).left_out_captions)
    assert [(row["row"], row["kind"]) for row in listed] == [(2, "missing"), (5, "missing")]


def test_without_a_checkpoint_captions_are_examined_anew(tmp_path: Path) -> None:
    asked = captioned(tmp_path, steps=2)
    Training(asked, ONE_PROCESS, StopRequest())
    (tmp_path / "2.png").rename(tmp_path / "captions" / "2.png")
    assert train(asked).left_out_captions == 1


def test_a_list_of_left_out_captions_that_is_not_the_checkpoints_is_refused(tmp_path: Path) -> None:
    asked = captioned(tmp_path)
    interrupt(asked, 3)
    listing = RunDirectory(Path(asked.run_directory)).left_out_captions
    listing.write_bytes(listing.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(CheckpointRefused, match=r"left_out_captions\.jsonl.*step-00000003.*was changed"):
        train(asked)
    listing.unlink()
    with pytest.raises(CheckpointRefused, match=r"left_out_captions\.jsonl.*step-00000003.*is gone"):
        train(asked)


def test_a_damaged_caption_picture_can_be_replaced_and_the_run_goes_on(tmp_path: Path) -> None:
    asked = captioned(tmp_path)
    interrupt(asked, 2)
    whole = {file: file.read_bytes() for file in (tmp_path / "captions").glob("*.png")}
    for file, content in whole.items():
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(StageFailed, match=r"(?s)the picture of row \d.*truncated.*goes on from the last checkpoint"):
        train(asked)
    for file, content in whole.items():
        file.write_bytes(content)
    assert train(asked).resumed_from_step == 2

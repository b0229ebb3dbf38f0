"""`reca generate`, `reconstruct`, `describe`: the sampler's records in the folder a person named, and no harm done."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from deployments.cli import main
from deployments.commands.sampling import read_folder
from reca_core.contracts.errors import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_INCOMPLETE,
    EXIT_PREREQUISITE,
    BadInput,
)
from tasks.report_sheet import HEADINGS, wrapped, write_sheet
from tests.reca_core.tiny_janus import save_tiny_janus, tiny_pictures

PHOTOGRAPH_SIZE = (90, 60)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_janus(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A person's directory. The command line changes directory and environment; both are put back."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    before = dict(os.environ)
    yield here
    os.environ.clear()
    os.environ.update(before)


def call(capsys: pytest.CaptureFixture[str], place: Path, *words: str) -> tuple[int, dict[str, object]]:
    status = main(["--json", "--home", str(place.parent / "home"), *words])
    said = capsys.readouterr()
    assert said.out.count("\n") == 1, said.err
    return status, json.loads(said.out)


def test_generate_resumes_in_its_folder_and_touches_no_other(
    model: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "--model", str(model), "--prompt", "a red circle", "--seeds", "0-1", "--output"]
    status, made = call(capsys, place, *words, "out")
    assert status == EXIT_DONE, made
    assert made["run_directory"] == str(place / "out")
    pictures = {path.name: path.read_bytes() for path in (place / "out").glob("*.png")}
    assert sorted(pictures) == ["00000-0.png", "00000-1.png"]
    (place / "out" / "00000-1.png").unlink()
    again, _ = call(capsys, place, *words, str(place / "out"))
    assert again == EXIT_DONE
    assert {path.name: path.read_bytes() for path in (place / "out").glob("*.png")} == pictures
    other = [word if word != "a red circle" else "a blue circle" for word in words]
    assert call(capsys, place, *other, str(place / "out"))[0] == EXIT_BAD_INPUT
    theirs = place / "theirs"
    theirs.mkdir()
    (theirs / "00000-0.png").write_text("a person's file")
    assert call(capsys, place, *words, str(theirs))[0] == EXIT_BAD_INPUT
    assert (theirs / "00000-0.png").read_text() == "a person's file"
    assert not (place.parent / "home" / "prefect" / "prefect.db").exists()


def test_reconstruct_makes_a_sheet_and_says_what_it_could_not_read(
    model: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = place / "photos" / "nested"
    photos.mkdir(parents=True)
    for number, picture in enumerate(tiny_pictures(2)):
        picture.resize(PHOTOGRAPH_SIZE).save(photos / f"{number}.png")
    (photos / "broken.jpg").write_bytes(b"rubbish")
    status, made = call(capsys, place, "reconstruct", "--model", str(model), "--images", "photos", "--output", "out")
    assert status == EXIT_INCOMPLETE
    assert [row["prompt_id"] for row in made["unmade"]] == ["nested/broken.jpg"]  # type: ignore[attr-defined, index]
    with Image.open(place / "out" / "sheet.png") as sheet:
        assert sheet.width > sheet.height / 2
    assert len(list((place / "out").rglob("pictures/nested/*.png"))) == 2 * 2


def test_describe_prints_the_reply_under_the_home(model: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_pictures(1)[0].save(place / "one.png")
    status, made = call(
        capsys, place, "describe", "--model", str(model), "--image", "one.png", "--question", "what is this ?"
    )
    assert status == EXIT_DONE
    assert isinstance(made["reply"], str)
    assert Path(str(made["run_directory"])).is_relative_to(place.parent / "home" / "samples")


@pytest.mark.parametrize(
    ("name", "status"),
    [("no-such-name", EXIT_BAD_INPUT), ("./nowhere", EXIT_PREREQUISITE), ("models:/x", EXIT_BAD_INPUT)],
)
def test_a_model_that_is_none_is_refused_before_anything_is_made(
    name: str, status: int, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, place, "generate", "--model", name, "--prompt", "x", "--output", "out")[0] == status
    assert not (place / "out").exists()


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BadInput, match="no picture"):
        read_folder(tmp_path)


def test_the_sheet_has_four_headed_columns_and_keeps_every_pixel_hard(tmp_path: Path) -> None:
    from reca_core.data.png import STRIP_PIXELS, strip

    checker = Image.new("RGB", (2, 2), "white")
    checker.putpixel((0, 0), (0, 0, 0))
    path = tmp_path / "strip.png"
    strip([checker] * len(HEADINGS)).save(path)
    with Image.open(write_sheet([path], "a caption", tmp_path / "sheet.png")) as sheet:
        colours = sheet.crop((24, 52, 24 + STRIP_PIXELS, 52 + STRIP_PIXELS)).getcolors()
    assert sorted(colour for _, colour in colours or []) == [(0, 0, 0), (255, 255, 255)]


def test_long_captions_are_wrapped_between_words() -> None:
    assert wrapped("one two three", 7) == ["one two", "three"]
    assert wrapped("unbreakable", 3) == ["unbreakable"]

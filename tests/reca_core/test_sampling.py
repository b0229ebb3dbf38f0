"""Prompts in, pictures and rows out: each made once, where its prompt says, whatever interrupts."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reca_core import sampling
from reca_core.contracts.errors import BadInput, StageFailed
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.hashing import sha256_file
from reca_core.contracts.lifeline import Interrupted, StopRequest
from reca_core.contracts.progress import parse_progress
from reca_core.contracts.records import Prompt, SampleResult
from reca_core.contracts.requests import SampleRequest, SamplingSettings
from reca_core.data.png import STRIP_PIXELS
from reca_core.sampling import Sampling, plan_jobs, read_prompts
from tests.reca_core.children import launch, launch_and_die, start
from tests.reca_core.tiny_janus import tiny_pictures
from tests.reca_core.training_rig import base_model

TEXTS = ("a red ring", "two blue squares", "a moon")


def prompts(count: int = 3, seeds: int = 2, **fields: Any) -> list[Prompt]:
    return [
        Prompt(
            prompt_id=f"p{number}",
            text=TEXTS[number % len(TEXTS)],
            seeds=list(range(seeds)),
            outputs=[f"{number:05d}/samples/{seed:05d}.png" for seed in range(seeds)],
            **fields,
        )
        for number in range(count)
    ]


def request(root: Path, rows: list[Prompt], task: str = "draw", output: str = "out", **settings: Any) -> SampleRequest:
    file = root / "prompts.jsonl"
    file.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    return SampleRequest(
        model=base_model(root / "base"),
        task=task,
        prompts_file=str(file),
        prompts_sha256=sha256_file(file),
        sampling=SamplingSettings(device="cpu", images_per_batch=4, max_reply_tokens=6, **settings),
        numerics_version=1,
        output_directory=str(root / output),
    )


def rows(directory: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(directory / "samples.jsonl"))


def result(directory: Path) -> SampleResult:
    return SampleResult.model_validate_json((directory / "DONE.json").read_bytes())


def pictures(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*.png"))}


def test_every_prompt_and_seed_gets_its_picture_where_the_prompt_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sampling.main(request(tmp_path, prompts()))
    out = tmp_path / "out"
    assert [(row["prompt_id"], row["seed"]) for row in rows(out)] == [(f"p{n}", s) for n in range(3) for s in range(2)]
    for row in rows(out):
        with Image.open(out / row["image_path"]) as picture:
            assert (picture.size, picture.mode) == ((16, 16), "RGB")
        assert sha256_file(out / row["image_path"]) == row["sha256"]
    assert (result(out).samples, result(out).made, result(out).unmade) == (6, 6, [])
    last = [found for line in capsys.readouterr().out.splitlines() if (found := parse_progress(line))][-1]
    assert (last.stage, last.done, last.total, last.unit) == ("sample", 6, 6, "picture")


def test_a_finished_sampling_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(tmp_path, prompts())
    sampling.main(asked)
    before = (tmp_path / "out" / "DONE.json").read_bytes()
    monkeypatch.setattr(sampling, "load_adapter", lambda *arguments: pytest.fail("nothing is left to make"))
    sampling.main(asked)
    assert (tmp_path / "out" / "DONE.json").read_bytes() == before


def test_only_what_is_missing_or_damaged_is_made_again(tmp_path: Path) -> None:
    asked = request(tmp_path, prompts())
    sampling.main(asked)
    out = tmp_path / "out"
    whole = pictures(out)
    listed = rows(out)
    (out / "DONE.json").unlink()
    (out / listed[1]["image_path"]).unlink()
    (out / listed[4]["image_path"]).write_bytes(b"torn")
    with (out / "samples.jsonl").open("a") as stream:
        stream.write('{"prompt_id": "p')
    untouched = out / listed[0]["image_path"]
    stamp = untouched.stat().st_mtime_ns
    sampling.main(asked)
    assert pictures(out) == whole
    assert rows(out) == listed
    assert result(out).made == 2
    assert untouched.stat().st_mtime_ns == stamp


def test_killed_at_any_write_it_makes_the_rest_and_nothing_twice(tmp_path: Path) -> None:
    sampling.main(request(tmp_path, prompts(), output="straight"))
    asked = request(tmp_path, prompts(), output="broken")
    path = tmp_path / "broken" / "request.json"
    path.parent.mkdir()
    path.write_text(asked.model_dump_json())
    for call in (3, 6, 9):
        child = start(launch_and_die, "sample", path, call)
        child.join()
        assert child.exitcode == -signal.SIGKILL
    child = start(launch, "sample", path)
    child.join()
    assert child.exitcode == 0
    assert pictures(tmp_path / "broken") == pictures(tmp_path / "straight")
    assert rows(tmp_path / "broken") == rows(tmp_path / "straight")
    assert not list((tmp_path / "broken").rglob("*.tmp"))


def test_asked_to_stop_it_keeps_what_is_made(tmp_path: Path) -> None:
    asked = request(tmp_path, prompts())
    stop = StopRequest()
    stop.requested = True
    run = sampling.RunDirectory(tmp_path / "out")
    jobs = plan_jobs(read_prompts(asked), asked, run.path)
    with pytest.raises(Interrupted, match="after 1 of 6 samples"):
        Sampling(asked, run, stop).complete(jobs)
    assert len(rows(run.path)) == 1
    sampling.main(asked)
    assert (result(run.path).samples, result(run.path).made) == (6, 5)


def test_a_picture_depends_on_its_prompt_and_seed_only(tmp_path: Path) -> None:
    sampling.main(request(tmp_path, prompts(3), output="many"))
    sampling.main(request(tmp_path, prompts(1), output="few"))
    many, few = pictures(tmp_path / "many"), pictures(tmp_path / "few")
    assert few.items() <= many.items()
    assert len(set(many.values())) == len(many), "other prompts and seeds are other pictures"


def sources(root: Path, count: int = 2) -> list[Prompt]:
    found = []
    for number, picture in enumerate(tiny_pictures(count, side=40)):
        picture.save(root / f"photo{number}.png")
        outputs = [f"photo{number}.png"]
        found.append(
            Prompt(prompt_id=f"s{number}", text="", source_image=f"photo{number}.png", seeds=[0], outputs=outputs)
        )
    return found


def test_reconstructing_also_shows_photograph_view_and_ceiling(tmp_path: Path) -> None:
    sampling.main(request(tmp_path, sources(tmp_path), "reconstruct"))
    with Image.open(tmp_path / "out" / "photo1.png") as picture:
        assert picture.size == (16, 16)
    with Image.open(tmp_path / "out" / "columns" / "photo1.png") as columns:
        assert columns.height == STRIP_PIXELS
        assert columns.width > 4 * STRIP_PIXELS
    assert [row["image_path"] for row in rows(tmp_path / "out")] == ["photo0.png", "photo1.png"]


@pytest.mark.parametrize("task", ["view", "ceiling"])
def test_what_was_seen_and_the_tokenizers_ceiling_are_pictures_too(tmp_path: Path, task: str) -> None:
    sampling.main(request(tmp_path, sources(tmp_path), task))
    with Image.open(tmp_path / "out" / "photo0.png") as picture:
        assert picture.size == (16, 16)
    assert result(tmp_path / "out").samples == 2


def test_a_question_gets_a_reply_and_no_picture(tmp_path: Path) -> None:
    asked = [row.model_copy(update={"text": "what is in the picture ?", "outputs": []}) for row in sources(tmp_path)]
    sampling.main(request(tmp_path, asked, "describe"))
    assert [row["image_path"] for row in rows(tmp_path / "out")] == ["", ""]
    assert all(isinstance(row["reply"], str) for row in rows(tmp_path / "out"))
    (tmp_path / "out" / "DONE.json").unlink()
    sampling.main(request(tmp_path, asked, "describe"))
    assert result(tmp_path / "out").made == 0


def test_a_source_that_cannot_be_decoded_is_listed_and_the_others_are_made(tmp_path: Path) -> None:
    listed = sources(tmp_path, 3)
    (tmp_path / "photo1.png").write_bytes(b"no picture")
    sampling.main(request(tmp_path, listed, "reconstruct"))
    found = result(tmp_path / "out")
    assert (found.samples, [unmade.prompt_id for unmade in found.unmade]) == (2, ["s1"])
    assert "photo1.png" in found.unmade[0].reason


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("../outside.png", "not a plain relative path"),
        ("a/../../outside.png", "not a plain relative path"),
        ("/tmp/outside.png", "not a plain relative path"),
        ("nul\0.png", "not a plain relative path"),
        ("picture.jpg", r"must end in \.png"),
        ("samples.jsonl", r"must end in \.png"),
        ("columns/x.png", "not begin with columns"),
        ("link/outside.png", "through a link"),
    ],
)
def test_no_output_leaves_the_folder(tmp_path: Path, output: str, said: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    row = Prompt(prompt_id="p", text="a ring", seeds=[0], outputs=[output])
    with pytest.raises(BadInput, match=said):
        sampling.main(request(tmp_path, [row]))
    assert not (tmp_path / "outside.png").exists()


@pytest.mark.parametrize(
    ("changes", "task", "said"),
    [
        ({"outputs": ["a.png"]}, "draw", "2 seeds and 1 outputs"),
        ({"outputs": ["a.png", "a.png"]}, "draw", "a.png comes twice"),
        ({"seeds": [1, 1]}, "draw", "comes twice"),
        ({"text": " "}, "draw", "has no text"),
        ({}, "reconstruct", "has no source image"),
    ],
)
def test_prompts_that_make_no_sense_are_refused(tmp_path: Path, changes: dict, task: str, said: str) -> None:
    (row,) = prompts(1)
    with pytest.raises(BadInput, match=said):
        sampling.main(request(tmp_path, [row.model_copy(update=changes)], task))


def test_the_prompts_must_be_those_of_the_request(tmp_path: Path) -> None:
    asked = request(tmp_path, prompts())
    Path(asked.prompts_file).write_text("")
    with pytest.raises(BadInput, match="the request was made for"):
        sampling.main(asked)


def test_a_row_that_is_no_prompt_is_refused(tmp_path: Path) -> None:
    asked = request(tmp_path, prompts())
    file = Path(asked.prompts_file)
    file.write_text(json.dumps({"prompt_id": "x", "<script>": 1}) + "\n")
    with pytest.raises(BadInput, match="is no prompts file"):
        sampling.main(asked.model_copy(update={"prompts_sha256": sha256_file(file)}))


def test_damaged_rows_are_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    asked = request(tmp_path, prompts())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "samples.jsonl").write_text("not json\n")
    with pytest.raises(StageFailed, match="is damaged"):
        sampling.main(asked)

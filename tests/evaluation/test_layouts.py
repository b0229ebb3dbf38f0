"""Pictures from elsewhere: every community layout is found, gaps and doubles are named, other people's are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from evaluation import collect, runner
from evaluation.benchmark import PromptPlan
from evaluation.layouts import match_pictures, missing_pictures, slots
from evaluation.records import CollectRequest, CollectResult, JudgeRequest, JudgeResult
from evaluation.registry import numerics_version, open_benchmark
from reca_core.contracts.errors import BadInput
from reca_core.contracts.hashing import sha256_file
from reca_core.contracts.records import Prompt
from reca_core.contracts.world_edits import GEDIT_TYPES, IMGEDIT_TYPES, edit_items, parse_instruction
from reca_core.contracts.world_tasks import dense_items
from reca_core.data.shapeworld import Scene, edited, render, scene_for, scene_of

PER_TAG = 3
SEED = 1000
SIZE = 32


def prompts_of(benchmark_id: str) -> list[Prompt]:
    return list(open_benchmark(benchmark_id, PromptPlan(PER_TAG, 1, SEED), None).prompts())


# --- names ------------------------------------------------------------------------------------------------------------

GENEVAL = [Prompt(prompt_id=f"{n:05d}", text="t", seeds=[0], outputs=[f"{n:05d}/samples/00000.png"]) for n in range(3)]
DPG = [Prompt(prompt_id=name, text="t", seeds=[0], outputs=[f"{name}_0.png"]) for name in ("midjourney1", "x_2")]
GEDIT = [
    Prompt(
        prompt_id=f"fullset/{task}/en/k1",
        text="t",
        source_image=f"fullset/{task}/en/k1_SRCIMG.png",
        seeds=[0],
        outputs=[f"fullset/{task}/en/k1.png"],
    )
    for task in ("subject-remove", "subject-replace")
]


@pytest.mark.parametrize("folder, file", [(5, 5), (4, 4), (5, 1), (4, 5)])
def test_geneval_folders_and_pictures_may_have_any_number_of_digits(folder: int, file: int) -> None:
    files = [f"{n:0{folder}d}/samples/{k:0{file}d}.png" for n in range(3) for k in range(12)]
    found = match_pictures("geneval", GENEVAL, [*files, "0/grid.png", "summary.txt", "00000/metadata.jsonl"])
    assert found.per_prompt == 12
    assert [place.number for place in found.pictures["00002"]] == list(range(12))
    assert not missing_pictures("geneval", found)
    assert found.unused == []


def test_gaps_are_named_as_the_files_beside_them_are() -> None:
    files = [f"{n:04d}/samples/{k:03d}.png" for n in range(2) for k in range(4)]
    files.remove("0001/samples/002.png")
    found = match_pictures("geneval", GENEVAL, files)
    names = list(missing_pictures("geneval", found).values())
    assert names == ["0001/samples/002.png", *[f"0002/samples/{k:03d}.png" for k in range(4)]]
    assert [place and place.number for place in slots(found)["00001"]] == [0, 1, None, 3]


def test_both_layouts_of_dpg_give_four_pictures_per_item() -> None:
    grids = match_pictures("dpg", DPG, ["midjourney1.png", "x_2.jpg"])
    apart = match_pictures("dpg", DPG, [f"{name}_{k}.jpg" for name in ("midjourney1", "x_2") for k in range(4)])
    assert grids.per_prompt == apart.per_prompt == 4
    assert [place.quadrant for place in grids.pictures["x_2"]] == [0, 1, 2, 3]
    assert {place.quadrant for place in apart.pictures["x_2"]} == {-1}
    single = match_pictures("dpg", DPG, ["midjourney1.png", "x_2.jpg"], "single")
    assert (single.per_prompt, single.pictures["x_2"][0].quadrant) == (1, -1)


def test_a_missing_grid_is_one_name_for_four_pictures() -> None:
    found = match_pictures("dpg", DPG, ["midjourney1.png"])
    assert set(missing_pictures("dpg", found).values()) == {"x_2.png"}
    assert len(missing_pictures("dpg", found)) == 4
    apart = match_pictures("dpg", DPG, ["midjourney1_0.jpg", "midjourney1_1.jpg", "x_2_0.jpg"])
    assert list(missing_pictures("dpg", apart).values()) == ["x_2_1.jpg"]


@pytest.mark.parametrize("root", ["", "fullset/", "reca/fullset/"])
def test_gedits_tree_may_be_named_at_any_of_its_roots(root: str) -> None:
    tails = [prompt.prompt_id.removeprefix("fullset/") for prompt in GEDIT]
    files = [f"{root}{tail}{end}" for tail in tails for end in (".png", "_SRCIMG.png")]
    found = match_pictures("gedit", GEDIT, files)
    assert not missing_pictures("gedit", found)
    assert found.unused == []
    assert found.sources == {f"fullset/{tail}_SRCIMG.png": f"{root}{tail}_SRCIMG.png" for tail in tails}


def test_pictures_of_two_methods_are_refused_with_both_names() -> None:
    tail = GEDIT[0].prompt_id
    with pytest.raises(BadInput) as error:
        match_pictures("gedit", GEDIT, [f"a/{tail}.png", f"b/{tail}.png"])
    assert error.value.choices == ("a/fullset", "b/fullset")


@pytest.mark.parametrize(
    "benchmark_id, prompts, files",
    [
        ("geneval", GENEVAL, ["00001/samples/0000.png", "00001/samples/00000.png"]),
        ("geneval", GENEVAL, ["0001/samples/0000.png", "00001/samples/0001.png"]),
        ("geneval", GENEVAL, ["00001/samples/0000.png", "00001/samples/0000.jpg"]),
        ("dpg", DPG, ["midjourney1.png", "midjourney1.jpg"]),
        ("dpg", DPG, ["midjourney1.png", "midjourney1_0.png"]),
        ("imgedit", DPG, ["midjourney1.png", "midjourney1.webp"]),
    ],
)
def test_two_files_for_one_picture_are_refused_by_name(
    benchmark_id: str, prompts: list[Prompt], files: list[str]
) -> None:
    with pytest.raises(BadInput, match="several"):
        match_pictures(benchmark_id, prompts, files)


def test_what_belongs_to_no_prompt_is_listed_and_benchmarks_without_pictures_are_refused() -> None:
    found = match_pictures("imgedit", DPG, ["midjourney1.png", "other.png", "deeper/x_2.png", "notes.txt"])
    assert found.unused == ["deeper/x_2.png", "other.png"]
    assert list(missing_pictures("imgedit", found).values()) == ["x_2.png"]
    with pytest.raises(BadInput) as error:
        match_pictures("pope", DPG, [])
    assert "geneval" in error.value.choices


# --- folders ----------------------------------------------------------------------------------------------------------

Paint = Callable[[Path, Prompt], None]


def save(scene: Scene, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    render(scene, SIZE).save(path, quality=95)


def geneval_folder(folder: Path, prompts: list[Prompt]) -> None:
    benchmark = open_benchmark("geneval.shapeworld", PromptPlan(PER_TAG, 1, SEED), None)
    for name, text in benchmark.companions().items():
        number = int(name.split("/")[0])
        for k in range(2):
            save(scene_for(json.loads(text), number), folder / f"{number:04d}" / "samples" / f"{k:04d}.png")
        (folder / f"{number:04d}" / "metadata.jsonl").write_text(text)


def dense_scenes() -> dict[str, Scene]:
    return {
        item.item_id: scene_of({cell: (shape, colour) for cell, shape, colour in item.objects})
        for item in dense_items(SEED, PER_TAG)
    }


def dpg_grids(folder: Path, prompts: list[Prompt]) -> None:
    """The right picture everywhere but in the bottom left of the first item's grid."""
    for number, (name, scene) in enumerate(dense_scenes().items()):
        grid = Image.new("RGB", (2 * SIZE, 2 * SIZE), (236, 236, 236))
        for k in range(4):
            if (number, k) != (0, 2):
                grid.paste(render(scene, SIZE), ((k % 2) * SIZE, (k // 2) * SIZE))
        folder.mkdir(parents=True, exist_ok=True)
        grid.save(folder / f"{name}.png")


def dpg_apart(folder: Path, prompts: list[Prompt]) -> None:
    for name, scene in dense_scenes().items():
        for k in range(2):
            save(scene, folder / f"{name}_{k}.png")


def imgedit_folder(folder: Path, prompts: list[Prompt]) -> None:
    for item in edit_items(IMGEDIT_TYPES, SEED, PER_TAG):
        save(edited(scene_of(item.objects()), parse_instruction(item.instruction)), folder / f"{item.key}.png")


def gedit_folder(folder: Path, prompts: list[Prompt]) -> None:
    for item in edit_items(GEDIT_TYPES, SEED, PER_TAG):
        path = folder / "ours" / "fullset" / item.edit_type / "en" / f"{item.key}.png"
        save(edited(scene_of(item.objects()), parse_instruction(item.instruction)), path)
        save(scene_of(item.objects()), path.with_name(f"{item.key}_SRCIMG.png"))


FOLDERS: dict[str, tuple[str, Callable[[Path, list[Prompt]], None], int, float]] = {
    "geneval": ("geneval.shapeworld", geneval_folder, 2, 1.0),
    "dpg grids": ("dpg.shapeworld", dpg_grids, 4, 100 * (PER_TAG - 0.25) / PER_TAG),
    "dpg apart": ("dpg.shapeworld", dpg_apart, 2, 100.0),
    "imgedit": ("imgedit.shapeworld", imgedit_folder, 1, 5.0),
    "gedit": ("gedit.shapeworld", gedit_folder, 1, 10.0),
}


def request_for(benchmark_id: str, folder: Path, output: Path, tolerant: bool = False) -> CollectRequest:
    return CollectRequest(
        benchmark=benchmark_id,
        pictures_from=str(folder),
        pictures_missing="unscored" if tolerant else "refuse",
        prompts_per_tag=PER_TAG,
        first_seed=SEED,
        numerics_version=numerics_version(benchmark_id),
        output_directory=str(output),
    )


def judge(benchmark_id: str, samples: Path, collected: CollectResult, output: Path) -> JudgeResult:
    return runner.main(
        JudgeRequest(
            benchmark=benchmark_id,
            prompts_sha256=sha256_file(samples / "prompts.jsonl"),
            samples_sha256=sha256_file(samples / "samples.jsonl"),
            prompts_per_tag=PER_TAG,
            pictures_per_prompt=collected.pictures_per_prompt,
            first_seed=SEED,
            resamples=100,
            numerics_version=numerics_version(benchmark_id),
            prompts_file=str(samples / "prompts.jsonl"),
            samples_directory=str(samples),
            output_directory=str(output),
        )
    )


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_in_each_layout_is_judged_as_it_is_and_nothing_in_it_changes(name: str, tmp_path: Path) -> None:
    benchmark_id, make, per_prompt, expected = FOLDERS[name]
    folder = tmp_path / "theirs"
    make(folder, prompts_of(benchmark_id))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    collected = collect.main(request_for(benchmark_id, folder, tmp_path / "samples"))
    assert (collected.pictures_per_prompt, collected.unmade, collected.unused) == (per_prompt, [], [])
    assert collected.grids == (PER_TAG if name == "dpg grids" else 0)
    result = judge(benchmark_id, tmp_path / "samples", collected, tmp_path / "answers")
    assert result.unscored == 0
    assert result.tables["corrected"].rows["overall"].value == pytest.approx(expected)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("name", FOLDERS)
def test_missing_and_unreadable_files_are_named_at_once_before_anything_is_judged(name: str, tmp_path: Path) -> None:
    benchmark_id, make, *_ = FOLDERS[name]
    folder = tmp_path / "theirs"
    make(folder, prompts_of(benchmark_id))
    pictures = sorted(path for path in folder.rglob("*.png") if "_SRCIMG" not in path.name)
    pictures[1].write_bytes(pictures[1].read_bytes()[:70])
    pictures[0].rename(tmp_path / "aside.png")
    gone = pictures[0].relative_to(folder).as_posix().removeprefix("ours/fullset/")
    with pytest.raises(BadInput, match=r"1 missing: .*; 1 unreadable: ") as error:
        collect.main(request_for(benchmark_id, folder, tmp_path / "samples"))
    assert gone in error.value.fact
    assert f"{pictures[1].relative_to(folder).as_posix()} (cannot be decoded" in error.value.fact
    assert not (tmp_path / "samples" / "DONE.json").exists()
    assert not (tmp_path / "samples" / "samples.jsonl").exists()


@pytest.mark.parametrize("name", FOLDERS)
def test_what_there_is_can_be_judged_and_the_rest_is_unscored_by_name(name: str, tmp_path: Path) -> None:
    benchmark_id, make, *_ = FOLDERS[name]
    folder = tmp_path / "theirs"
    make(folder, prompts_of(benchmark_id))
    pictures = sorted(path for path in folder.rglob("*.png") if "_SRCIMG" not in path.name)
    whole = collect.main(request_for(benchmark_id, folder, tmp_path / "whole"))
    pictures[-1].write_bytes(b"no picture")
    pictures[-2].unlink()
    collected = collect.main(request_for(benchmark_id, folder, tmp_path / "samples", tolerant=True))
    lost = 8 if name == "dpg grids" else 2
    assert collected.samples == whole.samples - lost == whole.samples - len(collected.unmade)
    reasons = " ".join(row.reason for row in collected.unmade)
    assert pictures[-1].name in reasons
    assert pictures[-2].stem in reasons
    result = judge(benchmark_id, tmp_path / "samples", collected, tmp_path / "answers")
    row = result.tables["corrected"].rows["overall"]
    assert row.n_expected - row.n_scored == lost
    assert result.unscored == lost


def test_a_second_look_decodes_nothing_and_a_changed_folder_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "theirs"
    imgedit_folder(folder, [])
    request = request_for("imgedit.shapeworld", folder, tmp_path / "samples")
    collect.main(request)
    first = (tmp_path / "samples" / "samples.jsonl").read_bytes()
    decoded: list[Path] = []
    monkeypatch.setattr(collect, "undecodable", lambda path: decoded.append(path) or "")
    collect.main(request)
    assert decoded == []
    assert (tmp_path / "samples" / "samples.jsonl").read_bytes() == first
    changed = next(folder.glob("*.png"))
    render(scene_of({}), SIZE).save(changed)
    collect.main(request)
    assert decoded == [changed]
    assert (tmp_path / "samples" / "samples.jsonl").read_bytes() != first


def test_pictures_that_were_drawn_for_other_prompts_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    geneval_folder(folder, [])
    record = folder / "0003" / "metadata.jsonl"
    record.write_text(json.dumps({**json.loads(record.read_text()), "prompt": "a long photo of it"}))
    with pytest.raises(BadInput, match="a long photo of it"):
        collect.main(request_for("geneval.shapeworld", folder, tmp_path / "samples"))


def test_a_folder_without_anything_of_the_benchmark_says_what_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    save(scene_of({}), tmp_path / "theirs" / "holiday.png")
    with pytest.raises(BadInput) as error:
        collect.main(request_for("geneval.shapeworld", tmp_path / "theirs", tmp_path / "samples"))
    assert "holiday.png" in error.value.fact
    assert "00000/samples/00000.png" in error.value.remedy
    with pytest.raises(BadInput, match="is no folder"):
        collect.main(request_for("geneval.shapeworld", tmp_path / "nowhere", tmp_path / "samples"))


def test_a_grid_that_cannot_be_cut_in_two_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    dpg_grids(folder, [])
    Image.new("RGB", (63, 64)).save(folder / "world1.png")
    with pytest.raises(BadInput, match=r"world1\.png \(63 x 64 pixels"):
        collect.main(request_for("dpg.shapeworld", folder, tmp_path / "samples"))

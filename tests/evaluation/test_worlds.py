"""DPG, ImgEdit and GEdit in the rendered world: right pictures score full, known wrong ones lose in the right row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from evaluation import runner
from evaluation.benchmark import PromptPlan
from evaluation.benchmarks.dpg.benchmark import DpgBench, world_table
from evaluation.benchmarks.dpg.table import read_table
from evaluation.prompt_files import PROMPTS_FILE, prompts_text, write_prompt_files
from evaluation.records import JudgeRequest, JudgeResult
from evaluation.registry import numerics_version, open_benchmark
from reca_core.contracts.errors import PrerequisiteMissing
from reca_core.contracts.files import append_jsonl
from reca_core.contracts.hashing import sha256_file
from reca_core.contracts.records import Prompt, Sample
from reca_core.contracts.world_edits import GEDIT_TYPES, IMGEDIT_TYPES, EditItem, edit_items, parse_instruction
from reca_core.contracts.world_tasks import DenseItem, dense_items
from reca_core.data.shapeworld import Scene, edited, render, scene_of

PLAN = PromptPlan(prompts_per_tag=4, pictures_per_prompt=2)
SIZE = 32
Draw = Callable[[str, int], Scene]
"""Prompt id and number of the picture -> what it shows."""


def judged(benchmark_id: str, folder: Path, draw: Draw, plan: PromptPlan = PLAN) -> JudgeResult:
    """Scores of pictures that are rendered as ``draw`` says, through prompts file, samples and runner."""
    benchmark = open_benchmark(benchmark_id, plan, None)
    samples, output = folder / "samples", folder / "answers"
    write_prompt_files(samples, benchmark)
    rows = [
        _drawn(samples, prompt, k, draw(prompt.prompt_id, k))
        for prompt in benchmark.prompts()
        for k in range(len(prompt.seeds))
    ]
    append_jsonl(samples / "samples.jsonl", [row.model_dump() for row in rows])
    return runner.main(
        JudgeRequest(
            benchmark=benchmark_id,
            prompts_sha256=sha256_file(samples / PROMPTS_FILE),
            samples_sha256=sha256_file(samples / "samples.jsonl"),
            prompts_per_tag=plan.prompts_per_tag,
            pictures_per_prompt=plan.pictures_per_prompt,
            first_seed=plan.first_seed,
            resamples=200,
            numerics_version=numerics_version(benchmark_id),
            prompts_file=str(samples / PROMPTS_FILE),
            samples_directory=str(samples),
            output_directory=str(output),
        )
    )


def _drawn(samples: Path, prompt: Prompt, k: int, scene: Scene) -> Sample:
    path = samples / prompt.outputs[k]
    path.parent.mkdir(parents=True, exist_ok=True)
    render(scene, SIZE).save(path)
    seed, output = prompt.seeds[k], prompt.outputs[k]
    return Sample(prompt_id=prompt.prompt_id, seed=seed, text=prompt.text, image_path=output, sha256=sha256_file(path))


def values(result: JudgeResult, arithmetic: str = "corrected") -> dict[str, float | None]:
    return {name: row.value for name, row in result.tables[arithmetic].rows.items()}  # type: ignore[index]


# --- DPG --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dense() -> dict[str, DenseItem]:
    return {item.item_id: item for item in dense_items(PLAN.first_seed, 4)}


def dense_scene(item: DenseItem, recolour: str = "", without: int = -1) -> Scene:
    objects = {cell: (shape, recolour or colour) for cell, shape, colour in item.objects if cell != without}
    return scene_of(objects)


def test_dense_pictures_that_are_as_described_score_100_in_every_row(
    dense: dict[str, DenseItem], tmp_path: Path
) -> None:
    result = judged("dpg.shapeworld", tmp_path, lambda item, k: dense_scene(dense[item]))
    assert set(values(result).values()) == {100.0}
    assert set(values(result)) >= {"overall", "l1/entity", "l1/attribute", "l1/relation", "l2/attribute - color"}
    assert result.tables["corrected"].complete()


def test_upstreams_lost_first_row_takes_the_first_item_with_it_in_parity_only(
    dense: dict[str, DenseItem], tmp_path: Path
) -> None:
    result = judged("dpg.shapeworld", tmp_path, lambda item, k: dense_scene(dense[item]))
    parity, corrected = (result.tables[name].rows["overall"] for name in ("parity", "corrected"))
    assert (corrected.n_scored, corrected.n_expected) == (8, 8)
    assert (parity.n_scored, parity.n_expected) == (6, 8)


def test_a_wrong_colour_costs_colour_questions_only(dense: dict[str, DenseItem], tmp_path: Path) -> None:
    item = next(item for item in dense.values() if all(colour != "red" for _, _, colour in item.objects))
    result = judged(
        "dpg.shapeworld",
        tmp_path,
        lambda name, k: dense_scene(dense[name], recolour="red" if name == item.item_id else ""),
    )
    found = values(result)
    wrong = {name for name, value in found.items() if value != 100.0}
    colour_rows = {f"{level}{suffix}" for level in ("l1", "l2") for suffix in ("", "_zeroed")}
    assert wrong == {"overall"} | {
        f"{row}/{'attribute' if row.startswith('l1') else 'attribute - color'}" for row in colour_rows
    }
    colours = sum(row.category_detailed == "color" for row in item.rows)
    score = (len(item.rows) - colours) / len(item.rows)
    assert found["overall"] == pytest.approx(100 * (3 + score) / 4)


def test_a_missing_object_takes_its_dependent_questions_with_it(dense: dict[str, DenseItem], tmp_path: Path) -> None:
    cell, shape, _ = next(iter(dense["world0"].objects))
    assert sum(name == shape for _, name, _ in dense["world0"].objects) == 1
    result = judged(
        "dpg.shapeworld",
        tmp_path,
        lambda name, k: dense_scene(dense[name], without=cell if name == "world0" and k == 1 else -1),
    )
    entity = next(row for row in dense["world0"].rows if row.category_detailed == "whole" and shape in row.tuple)
    lost = [row for row in dense["world0"].rows if row is entity or entity.proposition_id in row.dependency]
    assert len(lost) > 2
    share = 1 - len(lost) / len(dense["world0"].rows)
    assert values(result)["overall"] == pytest.approx(100 * (3 + (1 + share) / 2) / 4)


def test_the_question_table_of_the_world_reads_back_as_it_was_written(dense: dict[str, DenseItem]) -> None:
    table = read_table(world_table(list(dense.values())), "t")
    assert list(table) == list(dense)
    for item in dense.values():
        questions = table[item.item_id]
        assert [(q.text, q.parents, q.category) for q in questions.values()] == [
            (row.question, row.dependency, row.tuple.split("(")[0].strip()) for row in item.rows
        ]
        assert list(questions) == [row.proposition_id for row in item.rows]


def test_reporting_and_tuning_seeds_have_other_dense_prompts() -> None:
    first, second = (DpgBench.open("x", PromptPlan(first_seed=seed), None, "shapeworld") for seed in (0, 1000))
    assert not {prompt.text for prompt in first.prompts()} & {prompt.text for prompt in second.prompts()}
    assert len(second.prompts()) == 128


# --- edits ------------------------------------------------------------------------------------------------------------

EDITED = {
    "imgedit.shapeworld": {item.key: item for item in edit_items(IMGEDIT_TYPES, PLAN.first_seed, 4)},
    "gedit.shapeworld": {
        f"fullset/{item.edit_type}/en/{item.key}": item for item in edit_items(GEDIT_TYPES, PLAN.first_seed, 4)
    },
}


def right(item: EditItem) -> Scene:
    return edited(scene_of(item.objects()), parse_instruction(item.instruction))


def test_right_edits_get_full_marks_of_imgedit_in_every_type_of_the_world(tmp_path: Path) -> None:
    items = EDITED["imgedit.shapeworld"]
    found = values(judged("imgedit.shapeworld", tmp_path, lambda key, k: right(items[key])))
    assert set(found) == {"overall", "overall_micro", "overall_macro", *IMGEDIT_TYPES}
    assert set(found.values()) == {5.0}


def test_a_picture_left_as_it_was_gets_the_lowest_marks_in_its_type_alone(tmp_path: Path) -> None:
    items = EDITED["imgedit.shapeworld"]

    def draw(key: str, k: int) -> Scene:
        return scene_of(items[key].objects()) if items[key].edit_type == "remove" else right(items[key])

    found = values(judged("imgedit.shapeworld", tmp_path, draw))
    assert found["remove"] == 1.0
    assert {value for name, value in found.items() if name in IMGEDIT_TYPES and name != "remove"} == {5.0}
    assert found["overall_macro"] == pytest.approx((5 * (len(IMGEDIT_TYPES) - 1) + 1) / len(IMGEDIT_TYPES))


def test_gedit_in_the_world_scores_ten_for_right_edits_and_zero_for_none(tmp_path: Path) -> None:
    items = EDITED["gedit.shapeworld"]

    def draw(path: str, k: int) -> Scene:
        return scene_of(items[path].objects()) if items[path].edit_type == "color_alter" else right(items[path])

    found = values(judged("gedit.shapeworld", tmp_path, draw))
    for task in GEDIT_TYPES:
        assert found[f"en/o_full/{task}"] == (0.0 if task == "color_alter" else 10.0)
        assert found[f"en/pq_full/{task}"] == 10.0
    assert found["overall"] == pytest.approx(8.0)


# --- prompt files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("benchmark_id", EDITED)
def test_prompt_files_are_equal_wherever_they_are_written_and_sources_lie_where_they_say(
    benchmark_id: str, tmp_path: Path
) -> None:
    benchmark = open_benchmark(benchmark_id, PLAN, None)
    for place in ("one", "another/folder"):
        write_prompt_files(tmp_path / place, benchmark)
        write_prompt_files(tmp_path / place, benchmark)
        assert (tmp_path / place / PROMPTS_FILE).read_text() == prompts_text(benchmark)
        for prompt in benchmark.prompts():
            item = EDITED[benchmark_id][prompt.prompt_id]
            with Image.open(tmp_path / place / prompt.source_image) as picture:
                assert picture.tobytes() == render(scene_of(item.objects()), picture.width).tobytes()


@pytest.mark.benchmark_data
def test_published_prompts_name_no_place_of_this_machine_and_link_to_the_pictures(
    benchmark_data: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("imgedit", "gedit"):
        (data / name).mkdir()
        for file in (benchmark_data / name).iterdir():
            (data / name / file.name).write_bytes(file.read_bytes())
        benchmark = _open_published(name, data)
        assert prompts_text(benchmark) == prompts_text(_open_published(name, benchmark_data))
        assert str(tmp_path) not in prompts_text(benchmark)
        with pytest.raises(PrerequisiteMissing, match="source pictures of"):
            write_prompt_files(tmp_path / name, benchmark)
        for source in benchmark.sources().values():
            assert source.file is not None
            source.file.parent.mkdir(parents=True, exist_ok=True)
            source.file.write_bytes(b"picture")
        write_prompt_files(tmp_path / name, benchmark)
        assert all((tmp_path / name / prompt.source_image).read_bytes() == b"picture" for prompt in benchmark.prompts())


def _open_published(name: str, data: Path):  # type: ignore[no-untyped-def]
    from evaluation.registry import benchmark_class

    return benchmark_class(name).open(name, PromptPlan(prompts_per_tag=1), data)

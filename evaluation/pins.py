"""Where every file of the benchmarks comes from, at which revision, and what it must be byte for byte.

Hashes stand on the benchmarks' cards; here stand the addresses, and the files that judges need besides. Most are single
files of a git repository; a few are made from one (``recipe``), and what is made is what is checked. Nothing of it is
part of this repository: it is fetched by ``reca fetch BENCHMARK`` (evaluation/fetch.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from evaluation.benchmark import PinnedFile
from evaluation.registry import BENCHMARKS, card
from reca_core.contracts.errors import BadInput

GENEVAL = "djghosh13/geneval/af4902f24d3ca90ebbb446dd9891a59e0f82725f"
ELLA = "TencentQQGYLab/ELLA/3c228f1dc6c4d3cad0a47493816151a419f14db3"
IMGEDIT = "PKU-YuanGroup/ImgEdit/547185d12c08267a862b94248576e1746e479937/Benchmark"
RECA = "HorizonWind2004/reconstruction-alignment/b250aa1c60f0/Benchmark"
STEP1X = "stepfun-ai/Step1X-Edit/570eba6ebda0c45c013983a483afbf2fd12bfcbc"
UNIWORLD = "PKU-YuanGroup/UniWorld-V1/8403e86505e2"
POPE = "AoiDragon/POPE/7ef3026faa9a89ed11fd508385fad652fdc6349f/output/coco"
"""owner/repository/commit/folder; GitHub resolves the two abbreviated commits."""

Recipe = Literal["file", "texts", "constants"]
"""file: as it lies there. texts: all ``*.txt`` of a folder as JSON lines {item_id, text}, in natural order of their
names. constants: string constants of a Python module, joined by newlines; the module is parsed and never run."""


@dataclass(frozen=True)
class Origin:
    """How one file is had."""

    recipe: Recipe
    addresses: tuple[str, ...]
    """owner/repository/commit/path; for texts the repository alone. Further ones are copies, byte for byte."""
    parts: tuple[str, ...] = ()
    """For constants: their names, in order. For texts: the folder."""


@dataclass(frozen=True)
class Pictures:
    """Source pictures of a benchmark: a data set of the Hugging Face hub.

    No revision is pinned, because none could be looked up when this was written. The first fetch resolves ``main`` to
    a commit, checks every file against the hashes that the hub lists for that commit, and records both in
    ``origin.json``; later fetches into the same folder keep to that record.
    """

    dataset: str
    """owner/name."""
    files: str
    """Regular expression for the paths that are needed."""
    unpack: Literal["tar", "table", "files"]
    """files: they lie in the benchmark's layout already."""
    folder: str
    """For tar: which folder of it is wanted; it is unpacked under its last name."""


@dataclass(frozen=True)
class Listed:
    """Files of questions at a pinned commit, whose lines name pictures of another server.

    Their hashes could not be looked up when this was written: the first fetch records those of all files, and every
    later look holds the files against that record.
    """

    questions: tuple[str, ...]
    """owner/repository/commit/path."""
    pictures: str
    """Folder on the pictures' server, and in the benchmark's own folder."""


OBJECT_NAMES = PinnedFile("object_names.txt", sha256="608f6a0e5c8ca1c7a92b818430141fe268c85b7930b50f4160f1d65893b5bacd")
"""GenEval's names of the 80 COCO classes, in the index order of every COCO detector."""
EXTRA_FILES: dict[str, tuple[PinnedFile, ...]] = {"geneval": (OBJECT_NAMES,)}
"""Files that no card names because only judges need them."""

_CONTEXT = "_context_no_delimit"
_JUDGE_TEXTS = f"{STEP1X}/GEdit-Bench/viescore/vie_prompts.py"
_ORIGINS: dict[str, dict[str, Origin]] = {
    "geneval": {
        "evaluation_metadata.jsonl": Origin("file", (f"{GENEVAL}/prompts/evaluation_metadata.jsonl",)),
        "object_names.txt": Origin("file", (f"{GENEVAL}/evaluation/object_names.txt",)),
    },
    "dpg": {
        "dpg_prompts.jsonl": Origin("texts", (ELLA,), ("dpg_bench/prompts",)),
        "dpg_bench.csv": Origin("file", (f"{ELLA}/dpg_bench/dpg_bench.csv",)),
    },
    "imgedit": {
        "basic_edit.json": Origin("file", (f"{IMGEDIT}/Basic/basic_edit.json", f"{RECA}/imgedit/singleturn.json")),
        "prompts.json": Origin("file", (f"{IMGEDIT}/Basic/prompts.json", f"{RECA}/imgedit/judge_prompt.json")),
    },
    "gedit": {
        "gedit_en_instructions.json": Origin("file", (f"{UNIWORLD}/univa/eval/gedit/gedit_edit.json",)),
        "judge_sc_template.txt": Origin(
            "constants",
            (_JUDGE_TEXTS,),
            (_CONTEXT, "_prompts_0shot_two_image_edit_rule", "_prompts_0shot_tie_rule_SC"),
        ),
        "judge_pq_prompt.txt": Origin("constants", (_JUDGE_TEXTS,), (_CONTEXT, "_prompts_0shot_rule_PQ")),
    },
}
PICTURES: dict[str, Pictures] = {
    "imgedit": Pictures("sysuyy/ImgEdit", r"Benchmark\.tar", "tar", "Benchmark/singleturn"),
    "gedit": Pictures("stepfun-ai/GEdit-Bench", r".*\.(arrow|parquet)", "table", "fullset"),
    "mmvp": Pictures("MMVP/MMVP", r"Questions\.csv|MMVP Images/\d+\.jpg", "files", ""),
}
LISTED: dict[str, Listed] = {
    "pope": Listed(
        tuple(f"{POPE}/coco_pope_{split}.json" for split in ("random", "popular", "adversarial")), "val2014"
    ),
}


def files_of(benchmark: str) -> Iterator[tuple[PinnedFile, Origin]]:
    """Every file that a benchmark or its judges need. Raises BadInput for an unknown benchmark."""
    if benchmark not in BENCHMARKS:
        raise BadInput(f"no benchmark is called {benchmark!r}", field="BENCHMARK", choices=tuple(BENCHMARKS))
    for pin in (*card(benchmark).files, *EXTRA_FILES.get(benchmark, ())):
        yield pin, _ORIGINS[benchmark][pin.path]

"""Pictures from elsewhere become a samples directory: found by the community's layout, complete, and each decoded once.

``samples/<hash>/``: ``prompts.jsonl`` as for drawn pictures, ``pictures`` a link to the folder, ``samples.jsonl`` with
the names that the files have there and their hashes. DPG grids are cut into ``quadrants/``. Nothing in the folder
changes. It is looked at anew every time; a file that was decoded before with the same hash is only hashed.
"""

from __future__ import annotations

import io
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from evaluation.benchmark import Benchmark, PromptPlan, SourcePicture
from evaluation.layouts import FIELD, Matched, Place, match_pictures, missing_pictures, named, slots
from evaluation.prompt_files import PROMPTS_FILE, link, place_sources, prompts_text
from evaluation.records import CollectRequest, CollectResult
from evaluation.registry import open_benchmark
from evaluation.subjects import SAMPLES_FILE, undecodable
from reca_core.contracts.errors import BadInput
from reca_core.contracts.files import atomic_write_bytes, atomic_write_text, write_json
from reca_core.contracts.hashing import sha256_file
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.lifeline import Interrupted, StopRequest, stop_requests, turn
from reca_core.contracts.progress import Progress, report_progress
from reca_core.contracts.records import Sample, UnmadeSample

log = logging.getLogger(__name__)

STAGE = "collect"
LINK = "pictures"
QUADRANT_FOLDER = "quadrants"
DECODED_FILE = "decoded.json"
"""Hash of a file -> why it cannot be used, empty where it can: what earlier looks found out."""
HASH_IN_NAMES = 16
PER_SIDE = 2
REMEDY = "complete the folder, or judge what there is: --set evaluation.pictures_missing=unscored"
REPORT_EVERY = 16


@dataclass(frozen=True)
class Slot:
    """One picture that a prompt asks for."""

    prompt_id: str
    seed: int
    text: str
    place: Place | None
    missing: str
    """Name of the file that is not there; empty where it is."""


def main(request: CollectRequest) -> CollectResult:
    """Look at a folder of pictures and write the samples directory.

    Returns: the result, which is also DONE.json.
    Raises: BadInput naming missing or unreadable files unless the request tolerates them, and for a folder that cannot
        be read as the benchmark's layout; PrerequisiteMissing for absent benchmark data; Interrupted when asked to
        stop.
    """
    directory = RunDirectory(Path(request.output_directory))
    with stop_requests() as stop, turn(directory.lock, stop):
        return _collect(request, directory, stop)


def _collect(request: CollectRequest, directory: RunDirectory, stop: StopRequest) -> CollectResult:
    began = time.monotonic()
    folder = Path(request.pictures_from)
    matched = _match(request, folder)
    benchmark = _open(request, matched.per_prompt)
    _check_prompts(folder, benchmark, matched)
    wanted = list(_slots(benchmark, matched))
    files = list(dict.fromkeys(slot.place.file for slot in wanted if slot.place))
    grids = {slot.place.file for slot in wanted if slot.place and slot.place.quadrant >= 0}
    looked = _look(folder, files, grids, directory.path / DECODED_FILE, stop)
    unmade = _unmade(wanted, {file: fault for file, (_, fault) in looked.items()})
    if request.pictures_missing == "refuse":
        unreadable = [f"{file} ({fault})" for file, (_, fault) in looked.items() if fault]
        _refuse(list(dict.fromkeys(slot.missing for slot in wanted if slot.missing)), unreadable)
    _write_prompts(directory.path, folder, benchmark, matched)
    usable = [slot for slot in wanted if slot.place and not looked[slot.place.file][1]]
    hashes = {file: digest for file, (digest, _) in looked.items()}
    rows = [_sample(slot, directory.path, folder, hashes) for slot in usable]
    atomic_write_text(directory.path / SAMPLES_FILE, "".join(row.model_dump_json() + "\n" for row in rows))
    result = CollectResult(
        samples=len(rows),
        pictures_per_prompt=matched.per_prompt,
        grids=len(grids),
        unmade=unmade,
        unused=matched.unused,
        seconds=time.monotonic() - began,
    )
    write_json(directory.done, result.model_dump(mode="json"))
    return result


# --- finding ----------------------------------------------------------------------------------------------------------


def list_files(folder: Path) -> list[str]:
    """Every file below a folder as a relative POSIX path, sorted."""
    found = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _open(request: CollectRequest, pictures_per_prompt: int) -> Benchmark:
    data = Path(request.benchmark_data) if request.benchmark_data else None
    plan = PromptPlan(request.prompts_per_tag, pictures_per_prompt, request.first_seed)
    return open_benchmark(request.benchmark, plan, data)


def _match(request: CollectRequest, folder: Path) -> Matched:
    """What is where. Raises BadInput where nothing is."""
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder", field=FIELD)
    prompts = _open(request, 1).prompts()
    matched = match_pictures(request.benchmark, prompts, list_files(folder), request.dpg_files)
    if not matched.per_prompt:
        raise BadInput(
            f"{folder} holds no picture in the layout of {request.benchmark}; "
            f"pictures with other names: {named(matched.unused) or 'none'}",
            field=FIELD,
            remedy=f"the first picture would be {prompts[0].outputs[0]}; docs/benchmarks.md has all layouts",
        )
    return matched


def _check_prompts(folder: Path, benchmark: Benchmark, matched: Matched) -> None:
    """A folder that says what it was drawn for must say what the benchmark asks for. Raises BadInput naming both."""
    for name, content in benchmark.companions().items():
        prompt_id, _, file = name.partition("/")
        theirs = folder / matched.folders.get(prompt_id, prompt_id) / file
        said, asked = _prompt_in(theirs), json.loads(content)["prompt"]
        if said is not None and said != asked:
            raise BadInput(
                f"{theirs} says {said!r}, {benchmark.id} asks for {asked!r}",
                field=FIELD,
                remedy="judge with the benchmark, prompts per tag and first seed that the pictures were made for",
            )


def _prompt_in(path: Path) -> str | None:
    """The prompt of a GenEval metadata file, or None where there is none that can be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return None
    return str(record["prompt"]) if isinstance(record, dict) and "prompt" in record else None


def _slots(benchmark: Benchmark, matched: Matched) -> Iterator[Slot]:
    places, missing = slots(matched), missing_pictures(benchmark.id, matched)
    for prompt in benchmark.prompts():
        for index, (seed, place) in enumerate(zip(prompt.seeds, places[prompt.prompt_id], strict=True)):
            yield Slot(prompt.prompt_id, seed, prompt.text, place, missing.get((prompt.prompt_id, index), ""))


# --- looking ----------------------------------------------------------------------------------------------------------


def _look(
    folder: Path, files: Sequence[str], grids: set[str], decoded: Path, stop: StopRequest
) -> dict[str, tuple[str, str]]:
    """File -> its hash and why it cannot be used, empty where it can. Known content is not decoded again."""
    known: dict[str, str] = json.loads(decoded.read_text(encoding="utf-8")) if decoded.is_file() else {}
    looked: dict[str, tuple[str, str]] = {}
    for number, file in enumerate(files, 1):
        if stop.requested:
            write_json(decoded, known)
            raise Interrupted(f"asked to stop after {number - 1} of {len(files)} files", field=str(folder))
        digest = sha256_file(folder / file)
        key = f"{digest} grid" if file in grids else digest
        if key not in known:
            known[key] = undecodable(folder / file) or (_uncuttable(folder / file) if file in grids else "")
        looked[file] = digest, known[key]
        if number % REPORT_EVERY == 0 or number == len(files):
            report_progress(Progress(stage=STAGE, done=number, total=len(files), unit="picture"))
    write_json(decoded, known)
    return looked


def _uncuttable(path: Path) -> str:
    with Image.open(path) as picture:
        width, height = picture.size
    fits = width % PER_SIDE == 0 and height % PER_SIDE == 0
    return "" if fits else f"{width} x {height} pixels cannot be a grid of two by two equal pictures"


def _refuse(missing: Sequence[str], unreadable: Sequence[str]) -> None:
    """Raises BadInput naming everything that stands in the way, at once."""
    facts = [f"{len(missing)} missing: {named(missing)}"] if missing else []
    facts += [f"{len(unreadable)} unreadable: {named(unreadable)}"] if unreadable else []
    if facts:
        raise BadInput("; ".join(facts), field=FIELD, remedy=REMEDY)


def _unmade(wanted: Sequence[Slot], faults: Mapping[str, str]) -> list[UnmadeSample]:
    """What the benchmark wants and there is not, by name."""
    rows = [
        (slot, f"{slot.missing} is missing" if slot.place is None else f"{slot.place.file}: {fault}")
        for slot in wanted
        if slot.place is None or (fault := faults[slot.place.file])
    ]
    return [UnmadeSample(prompt_id=slot.prompt_id, seed=slot.seed, reason=reason) for slot, reason in rows]


# --- writing ----------------------------------------------------------------------------------------------------------


def _write_prompts(directory: Path, folder: Path, benchmark: Benchmark, matched: Matched) -> None:
    """Prompts and source pictures; sources that the benchmark's data lack may lie in the folder itself."""
    atomic_write_text(directory / PROMPTS_FILE, prompts_text(benchmark))
    link(directory / LINK, folder)
    sources = dict(benchmark.sources())
    for name, source in sources.items():
        if source.file is not None and not source.file.is_file() and name in matched.sources:
            sources[name] = SourcePicture(file=folder / matched.sources[name])
    place_sources(directory, sources, benchmark.id)


def _sample(slot: Slot, directory: Path, folder: Path, hashes: Mapping[str, str]) -> Sample:
    """The row of a picture; a quarter of a grid is written as a file of its own."""
    assert slot.place is not None  # only usable slots come here
    file, digest = slot.place.file, hashes[slot.place.file]
    path = f"{LINK}/{file}"
    if slot.place.quadrant >= 0:
        path = f"{QUADRANT_FOLDER}/{digest[:HASH_IN_NAMES]}/{PurePosixPath(file).stem}_{slot.place.quadrant}.png"
        if not (directory / path).is_file():
            atomic_write_bytes(directory / path, quadrant(folder / file, slot.place.quadrant))
        digest = sha256_file(directory / path)
    return Sample(prompt_id=slot.prompt_id, seed=slot.seed, text=slot.text, image_path=path, sha256=digest)


def quadrant(path: Path, place: int) -> bytes:
    """One quarter of a grid as a PNG, in upstream's order: top left, top right, bottom left, bottom right."""
    row, column = divmod(place, PER_SIDE)
    with Image.open(path) as picture:
        width, height = picture.width // PER_SIDE, picture.height // PER_SIDE
        box = (column * width, row * height, (column + 1) * width, (row + 1) * height)
        part = picture.convert("RGB").crop(box)
    stream = io.BytesIO()
    part.save(stream, "PNG")
    return stream.getvalue()

"""Community layouts: which file in a folder of pictures is which prompt's. Pure: knows names, opens nothing.

GenEval: ``<digits>/samples/<digits>.png``, four or five digits. DPG-Bench: ``<item>.png``, a 2 x 2 grid of four
pictures (upstream), or ``<item>_<k>.png``, one each (RecA's copy). ImgEdit: ``<key>.png``. GEdit:
``<task>/<language>/<key>.png`` below ``fullset/`` or ``<method>/fullset/``, the picture before the edit beside it as
``<key>_SRCIMG.png``. PNG, JPEG and WebP are accepted everywhere.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from evaluation.registry import split_id
from reca_core.contracts.errors import BadInput
from reca_core.contracts.records import Prompt
from reca_core.contracts.requests import DpgFiles

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
"""Upstream's order in a DPG grid."""
FIELD = "--images"
SOURCE_MARK = "_SRCIMG"
NAMED = 20
"""Files that an error names; all of them are in the folder's listing."""
_GENEVAL = re.compile(r"(?P<folder>\d+)/samples/(?P<number>\d+)\.[a-z]+", re.IGNORECASE)
_NUMBERED = re.compile(r"(?P<item>.+)_(?P<number>\d+)")


@dataclass(frozen=True)
class Place:
    """One picture: a file, or a quarter of one."""

    file: str
    """Relative to the folder."""
    number: int
    """Which of its prompt's pictures, as the name says it."""
    quadrant: int = -1
    """Place in QUADRANTS; -1 for the whole file."""


@dataclass(frozen=True)
class Matched:
    """What a folder holds of a benchmark."""

    pictures: dict[str, list[Place]]
    """Prompt id -> its pictures in order; every prompt is there, also with none."""
    sources: dict[str, str] = field(default_factory=dict)
    """Source picture as the prompts name it -> file in the folder, where the layout has those too."""
    folders: dict[str, str] = field(default_factory=dict)
    """Prompt id -> its own folder, where the layout has one."""
    unused: list[str] = field(default_factory=list)
    """Pictures that belong to none of the prompts."""

    @property
    def per_prompt(self) -> int:
        """Pictures of the prompt that has most."""
        return max(map(len, self.pictures.values()), default=0)


def match_pictures(
    benchmark_id: str, prompts: Sequence[Prompt], files: Iterable[str], dpg_files: DpgFiles = "grids"
) -> Matched:
    """Find the prompts' pictures among the files of a folder.

    Args:
        files: relative POSIX paths.
        dpg_files: what DPG files are that are named by their item alone.
    Raises: BadInput for a benchmark without pictures, two files for one picture, or pictures of several methods.
    """
    matchers: Mapping[str, Callable[[_Search], Matched]] = {
        "geneval": _geneval,
        "dpg": _dpg,
        "imgedit": _imgedit,
        "gedit": _gedit,
    }
    name = split_id(benchmark_id)[0]
    if name not in matchers:
        raise BadInput(f"{name} judges no pictures", field=FIELD, choices=tuple(matchers))
    known = {prompt.prompt_id: prompt for prompt in prompts}
    pictures = sorted(file for file in files if PurePosixPath(file).suffix.lower() in SUFFIXES)
    matched = matchers[name](_Search(known, pictures, dpg_files))
    _refuse_doubles(matched)
    ordered = {name: sorted(matched.pictures.get(name, []), key=lambda place: place.number) for name in known}
    return Matched(ordered, matched.sources, matched.folders, matched.unused)


def slots(matched: Matched) -> dict[str, list[Place | None]]:
    """Prompt id -> as many places as the prompt with most pictures has, in order; None where the picture is missing."""
    numbers = _usual_numbers(matched)
    found: dict[str, list[Place | None]] = {}
    for prompt_id, places in matched.pictures.items():
        by_number = {place.number: place for place in places}
        if by_number.keys() <= set(numbers):
            found[prompt_id] = [by_number.get(number) for number in numbers]
        else:
            found[prompt_id] = [*places, *[None] * (len(numbers) - len(places))]
    return found


def missing_pictures(benchmark_id: str, matched: Matched) -> dict[tuple[str, int], str]:
    """Prompt id and place in ``slots`` -> name of the file that is not there. A grid stands for several places."""
    numbers = _usual_numbers(matched)
    return {
        (prompt_id, index): _name(benchmark_id, prompt_id, numbers[index], matched)
        for prompt_id, places in slots(matched).items()
        for index, place in enumerate(places)
        if place is None
    }


def _usual_numbers(matched: Matched) -> list[int]:
    """The numbers that the most prompts with all their pictures have."""
    expected = max(matched.per_prompt, 1)
    whole = Counter(
        tuple(place.number for place in places) for places in matched.pictures.values() if len(places) == expected
    )
    return list(whole.most_common(1)[0][0]) if whole else list(range(expected))


def _name(benchmark_id: str, prompt_id: str, number: int, matched: Matched) -> str:
    """What a picture's file would be called, in the manner of those that are there."""
    name = split_id(benchmark_id)[0]
    shown = next((place for places in matched.pictures.values() for place in places), None)
    suffix = PurePosixPath(shown.file).suffix if shown else SUFFIXES[0]
    if name == "geneval":
        width = len(PurePosixPath(shown.file).stem) if shown else len(prompt_id)
        wide = max((len(folder) for folder in matched.folders.values()), default=len(prompt_id))
        return f"{matched.folders.get(prompt_id, f'{int(prompt_id):0{wide}d}')}/samples/{number:0{width}d}{suffix}"
    whole = name != "dpg" or (shown is not None and not _NUMBERED.fullmatch(PurePosixPath(shown.file).stem))
    return f"{prompt_id}{suffix}" if whole else f"{prompt_id}_{number}{suffix}"


@dataclass(frozen=True)
class _Search:
    prompts: Mapping[str, Prompt]
    files: Sequence[str]
    dpg_files: DpgFiles


def _matched(found: Mapping[str, list[Place]], search: _Search, also: Iterable[str] = ()) -> Matched:
    used = {place.file for places in found.values() for place in places} | set(also)
    return Matched(dict(found), unused=[file for file in search.files if file not in used])


def _geneval(search: _Search) -> Matched:
    by_number = {int(prompt_id): prompt_id for prompt_id in search.prompts}
    found: dict[str, list[Place]] = defaultdict(list)
    folders: dict[str, set[str]] = defaultdict(set)
    for file in search.files:
        match = _GENEVAL.fullmatch(file)
        prompt_id = by_number.get(int(match["folder"])) if match else None
        if match and prompt_id:
            found[prompt_id].append(Place(file, int(match["number"])))
            folders[prompt_id].add(match["folder"])
    for prompt_id, names in folders.items():
        if len(names) > 1:
            raise BadInput(f"prompt {int(prompt_id)} has several folders: {', '.join(sorted(names))}", field=FIELD)
    matched = _matched(found, search)
    unused = [file for file in matched.unused if PurePosixPath(file).stem != "grid"]
    return Matched(matched.pictures, {}, {prompt_id: min(names) for prompt_id, names in folders.items()}, unused)


def _dpg(search: _Search) -> Matched:
    """Files directly in the folder; ``<item>_<k>`` is always one picture."""
    quadrants = range(len(QUADRANTS)) if search.dpg_files == "grids" else ()
    found: dict[str, list[Place]] = defaultdict(list)
    for file in search.files:
        stem = PurePosixPath(file).stem
        numbered = _NUMBERED.fullmatch(stem)
        if "/" in file:
            continue
        if stem in search.prompts:
            found[stem] += [Place(file, k, k) for k in quadrants] or [Place(file, 0)]
        elif numbered and numbered["item"] in search.prompts:
            found[numbered["item"]].append(Place(file, int(numbered["number"])))
    return _matched(found, search)


def _imgedit(search: _Search) -> Matched:
    found: dict[str, list[Place]] = defaultdict(list)
    for file in search.files:
        if "/" not in file and (key := PurePosixPath(file).stem) in search.prompts:
            found[key].append(Place(file, 0))
    return _matched(found, search)


def _gedit(search: _Search) -> Matched:
    """Prompt ids are ``fullset/<task>/<language>/<key>``; what stands before the task is the same for all pictures."""
    by_tail = {tuple(prompt_id.split("/")[1:]): prompt_id for prompt_id in search.prompts}
    found: dict[str, list[Place]] = defaultdict(list)
    sources: dict[str, str] = {}
    roots: set[str] = set()
    for file in search.files:
        *root, task, language, name = ("", "", *file.split("/"))
        stem = PurePosixPath(name).stem
        prompt_id = by_tail.get((task, language, stem.removesuffix(SOURCE_MARK)))
        if not prompt_id:
            continue
        if stem.endswith(SOURCE_MARK):
            sources[search.prompts[prompt_id].source_image] = file
            continue
        roots.add("/".join(part for part in root if part) or ".")
        found[prompt_id].append(Place(file, 0))
    if len(roots) > 1:
        raise BadInput(
            "the folder holds pictures of several methods",
            field=FIELD,
            choices=sorted(roots),
            remedy="name the folder of one of them",
        )
    matched = _matched(found, search, also=sources.values())
    unused = [file for file in matched.unused if SOURCE_MARK not in file]
    return Matched(matched.pictures, sources, {}, unused)


def _refuse_doubles(matched: Matched) -> None:
    for prompt_id, places in matched.pictures.items():
        numbers = Counter(place.number for place in places)
        twice = [place.file for place in places if numbers[place.number] > 1]
        if twice:
            names = ", ".join(dict.fromkeys(twice))
            raise BadInput(f"several files for one picture of {prompt_id}: {names}", field=FIELD)


def named(files: Sequence[str]) -> str:
    """The first of some files by name, and how many more there are."""
    rest = len(files) - NAMED
    return ", ".join(files[:NAMED]) + (f" and {rest} more" if rest > 0 else "")

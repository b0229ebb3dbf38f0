"""How the reader of the rendered world behaves on damaged pictures: makes the tables of docs/shapeworld.md.

``python -m tests.evaluation.shapeworld_study --write`` measures (about a minute on one core) and replaces the part of
the document between the two marks; without ``--write`` the tables go to standard output. It lives among the tests
because it needs both the renderer and the reader, which do not know each other.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from evaluation.judges.shapeworld_reader import read_picture
from evaluation.records import Finding
from reca_core.contracts.files import atomic_write_text
from reca_core.contracts.world import BACKGROUND, COLOURS, GRID, SHAPES, Draws
from reca_core.contracts.world_raster import SAMPLES, coverage
from reca_core.data.shapeworld import Scene, Thing, render, scene_from_seed

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "shapeworld.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
SCENES = 2000
FIRST_SEED = 3_000_000
"""No other part of the project draws scenes from here on."""
SIZE = 16
THRESHOLDS = (0.3, 0.9)
"""GenEval's: for counting, and for everything else."""
BANDS = (0.05, 0.3, 0.5, 0.7, 0.9, 1.0)
NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]

Pixels = np.ndarray
Damage = Callable[[Scene, Pixels, int], Pixels]
"""(scene, its clean picture, seed) -> damaged picture."""


# --- damage -----------------------------------------------------------------------------------------------------------


def noise(sigma: float) -> Damage:
    """Normal noise in every channel."""

    def damage(scene: Scene, pixels: Pixels, seed: int) -> Pixels:
        drawn = np.random.default_rng(seed).normal(0, sigma, pixels.shape)
        return np.clip(np.rint(pixels + drawn), 0, 255).astype(np.uint8)

    return damage


def blur(radius: float) -> Damage:
    """Gaussian blur."""

    def damage(scene: Scene, pixels: Pixels, seed: int) -> Pixels:
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))

    return damage


def shift(by: int) -> Damage:
    """The whole picture moved by so many pixels into one of eight directions; ground follows."""

    def damage(scene: Scene, pixels: Pixels, seed: int) -> Pixels:
        dy, dx = Draws(seed, "shift").choice(NEIGHBOURS)
        padded = np.pad(pixels, ((by, by), (by, by), (0, 0)))
        padded[:by], padded[-by:], padded[:, :by], padded[:, -by:] = (BACKGROUND,) * 4
        side = len(pixels)
        return padded[by + by * dy : by + by * dy + side, by + by * dx : by + by * dx + side]

    return damage


def towards_next_colour(share: float) -> Damage:
    """Every object mixed with the colour that follows its own in the palette."""

    def damage(scene: Scene, pixels: Pixels, seed: int) -> Pixels:
        names = tuple(COLOURS)
        following = {name: names[(index + 1) % len(names)] for index, name in enumerate(names)}
        things = tuple(Thing(thing.shape, following[thing.colour], thing.cell) for thing in scene.objects)
        other = np.asarray(render(Scene(things), SIZE), dtype=np.float64)
        return np.rint((1 - share) * pixels + share * other).astype(np.uint8)

    return damage


def missing(quarters: int) -> Damage:
    """One quarter, or one half, of every cell turned into ground."""

    def damage(scene: Scene, pixels: Pixels, seed: int) -> Pixels:
        draws, left = Draws(seed, "missing"), pixels.copy()
        side = SIZE // GRID
        for cell in range(GRID * GRID):
            top, start = (side * part for part in divmod(cell, GRID))
            block = left[top : top + side, start : start + side]
            y, x = (draws.below(2) * side // 2 for _ in range(2))
            block[y : y + side // 2, x : x + side // 2] = BACKGROUND
            if quarters == 2:
                block[y : y + side // 2] = BACKGROUND
        return left

    return damage


def other_quarter(scene: Scene, pixels: Pixels, seed: int) -> Pixels:
    """One quarter of every object replaced by the same quarter of an object of another shape and colour."""
    draws, mixed = Draws(seed, "other"), pixels.copy()
    half = SIZE // GRID // 2
    for thing in scene.objects:
        shape = draws.choice([name for name in SHAPES if name != thing.shape])
        colour = draws.choice([name for name in COLOURS if name != thing.colour])
        other = np.asarray(render(Scene((Thing(shape, colour, thing.cell),)), SIZE))
        row, column = divmod(thing.cell, GRID)
        y, x = (2 * half * part + half * draws.below(2) for part in (row, column))
        mixed[y : y + half, x : x + half] = other[y : y + half, x : x + half]
    return mixed


def shuffled_patches(scene: Scene, pixels: Pixels, seed: int) -> Pixels:
    """Sixteen 4 x 4 patches, each from a random place of a random scene: what a model without understanding draws."""
    draws, side = Draws(seed, "patches"), SIZE // 4
    picture = np.empty_like(pixels)
    for y, x in itertools.product(range(0, SIZE, side), repeat=2):
        source = np.asarray(render(scene_from_seed(FIRST_SEED + draws.below(SCENES)), SIZE))
        top, left = (side * draws.below(4) for _ in range(2))
        picture[y : y + side, x : x + side] = source[top : top + side, left : left + side]
    return picture


def untouched(scene: Scene, pixels: Pixels, seed: int) -> Pixels:
    """Nothing is damaged."""
    return pixels


STEPS: dict[str, Damage] = {
    "none": untouched,
    **{f"noise, sigma {sigma}": noise(sigma) for sigma in (8, 16, 32, 48, 64)},
    **{f"blur, {radius} pixel": blur(radius) for radius in (0.4, 0.6, 0.8, 1.0, 1.5)},
    "shift, 1 pixel": shift(1),
    "shift, 2 pixels": shift(2),
    **{f"colour, {share:.0%} towards the next": towards_next_colour(share) for share in (0.2, 0.35, 0.45)},
    "a quarter missing": missing(1),
    "a half missing": missing(2),
    "a quarter of another object": other_quarter,
    "shuffled patches": shuffled_patches,
}
WITHOUT_TRUTH = ("shuffled patches",)
"""Nothing in these pictures was drawn on purpose: every find is a false one."""


# --- measurement ------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Counts of one step over all scenes."""

    pictures: int = 0
    objects: int = 0
    finds: list[tuple[float, bool, bool]] = field(default_factory=list)
    """Score, shape right, shape and colour right: of every find."""

    def hits(self, threshold: float) -> float:
        """Share of the objects that are found with their shape above a threshold."""
        return sum(right for score, right, _ in self.finds if score > threshold) / self.objects

    def false_finds(self, threshold: float) -> float:
        """Finds above a threshold per 100 pictures where nothing or another shape is."""
        return 100 * sum(not right for score, right, _ in self.finds if score > threshold) / self.pictures

    def colours(self) -> float:
        """Share of right finds above the lower threshold whose colour is right."""
        found = [named for score, right, named in self.finds if right and score > THRESHOLDS[0]]
        return sum(found) / len(found) if found else float("nan")


def measure(step: str, scenes: Iterable[int]) -> Tally:
    """Read the scenes of these seeds after one step of damage, at SIZE pixels."""
    tally = Tally()
    for seed in scenes:
        scene = scene_from_seed(seed)
        picture = Image.fromarray(STEPS[step](scene, np.asarray(render(scene, SIZE)), seed))
        truth = Scene(()) if step in WITHOUT_TRUTH else scene
        tally.pictures += 1
        tally.objects += len(truth.objects)
        tally.finds += [verdict(finding, truth) for finding in read_picture(picture)]
    return tally


def verdict(finding: Finding, truth: Scene) -> tuple[float, bool, bool]:
    """Score of a finding, whether its cell holds that shape, and whether the colour is right too."""
    x, y = ((finding.box[axis] + finding.box[axis + 2]) / 2 for axis in (0, 1))
    thing = truth.at(GRID * int(GRID * y / SIZE) + int(GRID * x / SIZE))
    right = thing is not None and thing.shape == finding.label
    return finding.score, right, right and thing is not None and thing.colour == finding.colour


# --- tables -----------------------------------------------------------------------------------------------------------


def shape_distances(size: int = SIZE) -> dict[tuple[str, str], float]:
    """For every pair: the share of a shape's energy that the other cannot explain in any colour, shifted by a pixel."""
    masks = {shape: coverage(shape, 0, size)[: size // GRID, : size // GRID] / SAMPLES for shape in SHAPES}
    found = {}
    for a, b in itertools.combinations(SHAPES, 2):
        moved = [np.roll(masks[b], step, (0, 1)) for step in [(0, 0), *NEIGHBOURS]]
        shared = max(float((masks[a] * mask).sum() ** 2 / (mask**2).sum()) for mask in moved)
        found[a, b] = float(np.sqrt(1 - shared / (masks[a] ** 2).sum()))
    return found


def damage_table(tallies: dict[str, Tally]) -> list[str]:
    """One row per step."""
    rows = [
        "| damage | hits > 0.3 | hits > 0.9 | colour right | false > 0.3 | false > 0.9 |",
        "|---|---|---|---|---|---|",
    ]
    for step, tally in tallies.items():
        known = tally.objects > 0
        hits = [f"{tally.hits(threshold):.3f}" if known else "–" for threshold in THRESHOLDS]
        colour = f"{tally.colours():.3f}" if known and not np.isnan(tally.colours()) else "–"
        false = [f"{tally.false_finds(threshold):.1f}" for threshold in THRESHOLDS]
        rows.append(f"| {step} | {' | '.join([*hits, colour, *false])} |")
    return rows


def band_table(tallies: dict[str, Tally]) -> list[str]:
    """How often finds of a band of scores have the right shape, all steps together."""
    finds = [find for tally in tallies.values() for find in tally.finds]
    rows = ["| score | finds | right shape |", "|---|---|---|"]
    for low, high in itertools.pairwise(BANDS):
        band = [right for score, right, _ in finds if low < score <= high]
        rows.append(f"| {low} to {high} | {len(band)} | {sum(band) / max(len(band), 1):.3f} |")
    return rows


def distance_table() -> list[str]:
    """Shape against shape."""
    distances = shape_distances()
    rows = ["| | " + " | ".join(SHAPES[1:]) + " |", "|---" * len(SHAPES) + "|"]
    for a in SHAPES[:-1]:
        cells = [f"{distances[a, b]:.2f}" if (a, b) in distances else "" for b in SHAPES[1:]]
        rows.append(f"| {a} | {' | '.join(cells)} |")
    return rows


def measured_part(scenes: Sequence[int]) -> str:
    """Everything between the two marks of the document."""
    tallies = {step: measure(step, scenes) for step in STEPS}
    lines = [
        f"{len(scenes)} scenes, {tallies['none'].objects} objects, {SIZE} x {SIZE} pixels.",
        "False finds are counted per 100 pictures.",
        "",
        *damage_table(tallies),
        "",
        "All steps together, by score:",
        "",
        *band_table(tallies),
        "",
        "Distances of shapes at 8 pixels per cell (0: the same; 1: nothing shared):",
        "",
        *distance_table(),
    ]
    return "\n".join(lines)


def replaced(document: str, part: str) -> str:
    """The document with another measured part. Raises ValueError where the marks are missing."""
    before, rest = document.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{part}\n{END}{after}"


def main() -> None:
    """Command line of the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"replace the measured part of {DOCUMENT.name}")
    arguments = parser.parse_args()
    part = measured_part(range(FIRST_SEED, FIRST_SEED + SCENES))
    if arguments.write:
        atomic_write_text(DOCUMENT, replaced(DOCUMENT.read_text(), part))
    else:
        sys.stdout.write(part + "\n")


if __name__ == "__main__":
    main()

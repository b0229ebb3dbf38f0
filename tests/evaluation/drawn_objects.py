"""What stands behind a study's scores: how many objects its arms draw, and how many of those are right.

    python -m tests.evaluation.drawn_objects HOME --first-seed 1000

HOME is that of one model's study; pictures drawn with another guidance than the checkpoint's are not counted.

DPG's rules reward every object that is there, so an arm that draws more of them gains even if each is as wrong as
before. Here every object that the reader finds in a picture of a dense prompt is held against the prompt's own; of
GenEval's short prompts only the number is. The figures stand in docs/tiny_families.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from evaluation.judges.shapeworld_reader import read_cells
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.world import TAGS, all_records
from reca_core.contracts.world_tasks import DenseItem, dense_items

PROMPTS = 60
SURE = 0.3
"""Score from which a find counts, as for the judge's answers in words."""

HEAD = (
    "| arm | drawn per wanted, short prompts | dense prompts | of those: in place | right shape | right colour | both |"
)


def samplings(home: Path, first_seed: int) -> Iterator[tuple[str, Path]]:
    """Arm and folder of every finished sampling from that drawing seed on, drawn as the checkpoint says."""
    for done in sorted(home.glob("samples/*/DONE.json")):
        request = json.loads(done.with_name("request.json").read_text())
        as_published = request["sampling"]["guidance_scale"] == 0
        if as_published and min(row["seed"] for row in read_jsonl(done.with_name("samples.jsonl"))) == first_seed:
            yield request["model"]["name"].partition(",")[0], done.parent


def dense_samples(home: Path, first_seed: int, items: dict[str, DenseItem]) -> Iterator[tuple[str, Path]]:
    """Those of these prompts."""
    for arm, folder in samplings(home, first_seed):
        texts = {row["prompt_id"]: row["text"] for row in read_jsonl(folder / "prompts.jsonl")}
        if texts == {name: item.text for name, item in items.items()}:
            yield arm, folder


def counted(folder: Path, items: dict[str, DenseItem]) -> Counter[str]:
    """Objects wanted, drawn, and of those drawn: in a wanted place, of its shape, of its colour, of both."""
    counts: Counter[str] = Counter()
    for row in read_jsonl(folder / "samples.jsonl"):
        wanted = {cell: (shape, colour) for cell, shape, colour in items[row["prompt_id"]].objects}
        counts["wanted"] += len(wanted)
        for cell, reading in enumerate(read_cells(Image.open(folder / row["image_path"]))):
            found = reading.finding
            if found is None or found.score <= SURE:
                continue
            shape, colour = wanted.get(cell, ("", ""))
            counts["drawn"] += 1
            counts["place"] += cell in wanted
            counts["shape"] += found.label == shape
            counts["colour"] += found.colour == colour
            counts["both"] += (found.label, found.colour) == (shape, colour)
    return counts


def short_wanted() -> dict[str, int]:
    """GenEval's prompts in this world -> how many objects each asks for."""
    records = (record for tag in TAGS for record in all_records(tag))
    return {record["prompt"]: sum(clause["count"] for clause in record["include"]) for record in records}


def short_counted(home: Path, first_seed: int) -> dict[str, Counter[str]]:
    """Arm -> objects wanted and drawn for these prompts."""
    wanted, arms = short_wanted(), dict[str, Counter[str]]()
    for arm, folder in samplings(home, first_seed):
        rows = list(read_jsonl(folder / "samples.jsonl"))
        if not all(row["text"] in wanted and row["image_path"] for row in rows):
            continue
        counts = arms.setdefault(arm, Counter())
        for row in rows:
            readings = read_cells(Image.open(folder / row["image_path"]))
            counts["drawn"] += sum(one.finding is not None and one.finding.score > SURE for one in readings)
            counts["wanted"] += wanted[row["text"]]
    return arms


def main() -> None:
    """Print one row per arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("--first-seed", type=int, default=1000)
    given = parser.parse_args()
    items = {f"world{number}": item for number, item in enumerate(dense_items(given.first_seed, PROMPTS))}
    arms: dict[str, Counter[str]] = {}
    for arm, folder in dense_samples(given.home, given.first_seed, items):
        arms.setdefault(arm, Counter()).update(counted(folder, items))
    short, lines = short_counted(given.home, given.first_seed), [HEAD, "|---|---:|---:|---:|---:|---:|---:|"]
    for arm, counts in arms.items():
        shares = " | ".join(f"{counts[what] / counts['drawn']:.3f}" for what in ("place", "shape", "colour", "both"))
        ratios = " | ".join(f"{found['drawn'] / found['wanted']:.2f}" for found in (short[arm], counts))
        lines.append(f"| {arm} | {ratios} | {shares} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

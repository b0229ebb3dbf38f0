"""``reca generate``, ``reca reconstruct``, ``reca describe``: one model, one prompts file, no server.

The same child, the same records and the same file names as inside a flow: the output folder holds ``prompts.jsonl``,
``samples.jsonl``, ``request.json``, the pictures and ``DONE.json``, resumes after a kill, and can be judged.
"""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from deployments.context import Context
from deployments.sampler import Made, Sampler
from reca_core.contracts.errors import EXIT_DONE, EXIT_INCOMPLETE, BadInput
from reca_core.contracts.records import Prompt, ResolvedModel
from reca_core.contracts.registry import BUNDLED_MODELS
from tasks.report_facts import size_in_words
from tasks.report_sheet import write_sheet

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SHEET_ROWS = 12
"""Pictures on the sheet; all of them are in the folder."""
MANY_SEEDS = 100_000
"""A range of seeds longer than this is a typing error."""


def generate(options: Namespace, context: Context) -> int:
    """Draw every prompt with every seed."""
    seeds = read_seeds(options.seeds)
    texts = [*options.prompt, *(read_texts(context.path(options.prompts)) if options.prompts else [])]
    if not texts or not all(text.strip() for text in texts):
        raise BadInput("nothing to draw", field="--prompt", remedy='--prompt "a red circle", or --prompts FILE.jsonl')
    prompts = [
        Prompt(
            prompt_id=f"{number:05d}", text=text, seeds=seeds, outputs=[f"{number:05d}-{seed}.png" for seed in seeds]
        )
        for number, text in enumerate(texts)
    ]
    made = Sampler(options.model, options.sets, context).make("draw", prompts, context.path(options.output))
    return _report(made, context)


def reconstruct(options: Namespace, context: Context) -> int:
    """Redraw every picture of a folder from what the model sees of it, and put the steps side by side."""
    folder, output = context.path(options.images), context.path(options.output)
    seeds = read_seeds(options.seeds)
    prompts = [_redraw(path, path.relative_to(folder).as_posix(), seeds) for path in read_folder(folder)]
    sampler = Sampler(options.model, options.sets, context)
    made = sampler.make("reconstruct", prompts, output)
    sheet = write_sheet(strips(made), sheet_caption(sampler.model), output / "sheet.png")
    context.terminal.line(f"side by side: {sheet}")
    return _report(made, context, sheet=str(sheet))


def _redraw(path: Path, label: str, seeds: list[int]) -> Prompt:
    outputs = [f"pictures/{label}.{seed}.png" for seed in seeds]
    return Prompt(prompt_id=label, text="", source_image=str(path), seeds=seeds, outputs=outputs)


def strips(made: Made) -> list[Path]:
    """The sampler's four columns of the first pictures, first seed each."""
    first = {sample.prompt_id: made.directory / "columns" / sample.image_path for sample in reversed(made.samples)}
    ordered = dict.fromkeys(sample.prompt_id for sample in made.samples)
    return [first[prompt_id] for prompt_id in ordered][:SHEET_ROWS]


def sheet_caption(model: ResolvedModel) -> str:
    """Whose pictures these are, how large it is, and what it was made from."""
    bundled = model.source in BUNDLED_MODELS
    origin = " It was made from rendered scenes alone and never saw a photograph." if bundled else ""
    return f"{model.name}, {size_in_words(Path(model.path))}.{origin} Few pixels are enlarged without smoothing."


def describe(options: Namespace, context: Context) -> int:
    """Ask one question about one picture and print the reply."""
    image = context.path(options.image)
    if not image.is_file():
        raise BadInput("there is no such file", field="--image", remedy=f"check {image}")
    if not options.question.strip():
        raise BadInput("is empty", field="--question", remedy="leave the option out, or ask something")
    prompt = Prompt(prompt_id="00000", text=options.question, source_image=str(image), seeds=[0], outputs=["00000.txt"])
    made = Sampler(options.model, options.sets, context).make("describe", [prompt], None)
    reply = made.samples[0].reply if made.samples else ""
    if made.samples:
        context.terminal.line(reply)
    return _report(made, context, reply=reply)


def _report(made: Made, context: Context, **more: str) -> int:
    """Say what was made and what was not; the last line names the folder."""
    for unmade in made.result.unmade:
        context.terminal.note(f"not made: {unmade.prompt_id}, seed {unmade.seed}: {unmade.reason}")
    again = "; all of it was there already" if made.reused else ""
    exit_code = EXIT_INCOMPLETE if made.result.unmade else EXIT_DONE
    count = "1 sample" if len(made.samples) == 1 else f"{len(made.samples)} samples"
    context.terminal.line(f"{count}{again}: {made.directory}")
    samples = [sample.model_dump() for sample in made.samples]
    unmade_rows = [row.model_dump() for row in made.result.unmade]
    document = {"run_directory": str(made.directory), "samples": samples, "unmade": unmade_rows, **more}
    context.terminal.answer(document, exit_code)
    return exit_code


def read_seeds(text: str) -> list[int]:
    """``0-3`` or ``1,5,9`` or both. Raises BadInput where it is neither."""
    fault = BadInput(f"{text!r} names no seeds", field="--seeds", remedy="--seeds 0-3, --seeds 1,5,9")
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise fault
        low, high = int(first), int(last or first)
        if not low <= high < low + MANY_SEEDS:
            raise fault
        seeds += range(low, high + 1)
    return list(dict.fromkeys(seeds))


def read_texts(path: Path) -> list[str]:
    """What to draw, from a JSON-lines file with ``text`` or, as GenEval writes it, ``prompt`` in every row."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot be read: {error}", field=f"--prompts {path}") from error
    return [_text(line, f"--prompts {path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _text(line: str, field: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadInput(f"not JSON: {error}", field=field, remedy='{"text": "a red circle"}') from error
    text = row.get("text") or row.get("prompt") if isinstance(row, dict) else None
    if not isinstance(text, str) or not text:
        raise BadInput("has no text", field=field, remedy='{"text": "a red circle"}')
    return text


def read_folder(folder: Path) -> list[Path]:
    """The picture files below a folder, by name. Raises BadInput where there are none."""
    if not folder.is_dir():
        raise BadInput("there is no such folder", field="--images", remedy=f"check {folder}")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in PICTURE_SUFFIXES)
    if not files:
        raise BadInput(f"{folder} holds no picture", field="--images", choices=PICTURE_SUFFIXES)
    return files

"""Checkpoint directories of our own layout, the same for every family: what is in them and how it is replaced safely.

    config.json              ``model_type`` says the family, the rest is the family's own
    model.safetensors        all parameters and buffers; sharded with an index where large
    tokenizer.json ...       as published with the weights, written back byte for byte
    generation_config.json   how it draws: the settings published with the weights
    templates.txt            RecA instructions in words that the checkpoint knows, one a line; absent: the general list

What came with the weights travels unchanged ("companions"): a checkpoint keeps its own numbering whatever saves it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from reca_core.contracts.errors import CheckpointRefused, PrerequisiteMissing
from reca_core.contracts.files import atomic_write_bytes, write_json
from reca_core.data.templates import TEMPLATES as GENERAL_TEMPLATES

CONFIG, GENERATION, TEMPLATES = "config.json", "generation_config.json", "templates.txt"
CARD = "README.md"
PARITY, REPEATED = "upstream parity", "yes: "
"""A card's fact, and how it begins where something of a published training was repeated."""
DRAWING = "drawing"
WEIGHTS_FILES = "model*.safetensors*"
"""The file, or all shards and their index."""
WEIGHTS_INDEX = "model.safetensors.index.json"
CHAT_TEMPLATE, OLD_CHAT_TEMPLATE = "chat_template.jinja", "chat_template.json"
"""Checkpoints of early 2025 keep the processor's template in the second, where tokenizers do not look."""
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    CHAT_TEMPLATE,
    OLD_CHAT_TEMPLATE,
)
SHARD_BYTES = 5 * 10**9


def write(
    directory: Path, settings: Mapping[str, Any], state: Mapping[str, Tensor], companions: Mapping[str, bytes]
) -> None:
    """Write the layout above; the entry ``drawing`` of ``settings`` becomes generation_config.json.

    ``state`` must name every stored number once: tied tensors are left out by the caller.
    """
    with replacing(directory) as scratch:
        write_settings(scratch, settings)
        write_weights(scratch, state)
    for name, content in companions.items():
        atomic_write_bytes(directory / name, content)


def write_settings(directory: Path, settings: Mapping[str, Any]) -> None:
    """config.json, and generation_config.json from the entry ``drawing``."""
    write_json(directory / CONFIG, {name: value for name, value in settings.items() if name != DRAWING})
    if DRAWING in settings:
        write_json(directory / GENERATION, settings[DRAWING])


def read_settings(directory: Path) -> dict[str, Any]:
    """What ``write`` was given as ``settings``. Raises as ``read_json`` does."""
    settings = read_json(directory / CONFIG)
    if (directory / GENERATION).is_file():
        settings[DRAWING] = read_json(directory / GENERATION)
    return settings


def write_weights(directory: Path, state: Mapping[str, Tensor]) -> None:
    """safetensors on the CPU, in one file or in shards with an index."""
    plan = split_torch_state_dict_into_shards(dict(state), max_shard_size=SHARD_BYTES)
    for file, names in plan.filename_to_tensors.items():
        tensors = {name: state[name].detach().cpu().contiguous() for name in names}
        save_file(tensors, directory / file, metadata={"format": "pt"})
    if plan.is_sharded:
        write_json(directory / WEIGHTS_INDEX, {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename})


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """A folder to write into; its files then replace those of ``directory`` by name.

    Replaced, never overwritten: the weights that are being saved may be mapped from one of the files.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".writing-") as scratch:
        yield Path(scratch)
        written = {path.name for path in Path(scratch).iterdir()}
        for name in written:
            os.replace(Path(scratch) / name, directory / name)
    for stale in directory.glob(WEIGHTS_FILES):
        if stale.name not in written:  # one file where there were shards, or the reverse: readers would take the old
            stale.unlink()


def new_companions(tokenizer: PreTrainedTokenizerFast, templates: Sequence[str]) -> dict[str, bytes]:
    """The files of a model that comes from no directory. The general template list is not repeated in them."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        tokenizer.save_pretrained(directory)
        if tuple(templates) != GENERAL_TEMPLATES:
            (directory / TEMPLATES).write_text("\n".join(templates) + "\n", encoding="utf-8")
        return read_companions(directory)


def read_companions(directory: Path, more: Sequence[str] = ()) -> dict[str, bytes]:
    """Tokenizer files, templates and the files named in ``more``, those that are there."""
    names = (*TOKENIZER_FILES, TEMPLATES, *more)
    return {name: (directory / name).read_bytes() for name in names if (directory / name).is_file()}


def read_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """tokenizer.json as it stands: the tokenizer classes named in published configs rebuild it with other rules.

    Raises PrerequisiteMissing if it is absent.
    """
    if not (directory / TOKENIZER_FILES[0]).is_file():
        raise PrerequisiteMissing(
            f"{TOKENIZER_FILES[0]} is not there",
            field=str(directory),
            remedy="use the tokenizer files that were published with these weights",
        )
    return PreTrainedTokenizerFast.from_pretrained(directory, clean_up_tokenization_spaces=False)


def read_templates(directory: Path) -> tuple[str, ...]:
    """The checkpoint's own instructions, or the general list where it has none."""
    path = directory / TEMPLATES
    if not path.is_file():
        return GENERAL_TEMPLATES
    lines = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if not lines:
        raise CheckpointRefused("the file is empty", field=str(path), remedy="delete it to use the general list")
    return lines


def need_config(directory: Path) -> Path:
    """``directory`` if it has a config.json. Raises PrerequisiteMissing otherwise."""
    read_json(directory / CONFIG)
    return directory


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises PrerequisiteMissing if the file is absent, CheckpointRefused if it holds no object."""
    if not path.is_file():
        raise PrerequisiteMissing("is not there", field=str(path), remedy="point at a checkpoint directory")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointRefused(f"is not JSON ({error})", field=str(path)) from error
    if not isinstance(value, dict):
        raise CheckpointRefused("holds no JSON object", field=str(path))
    return value

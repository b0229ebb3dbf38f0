"""Janus checkpoint directories: read in transformers' layout or DeepSeek's, written in transformers'.

config.json, safetensors (sharded where large), tokenizer, generation config, preprocessor_config.json, and optionally
``templates.txt``: one RecA instruction per line in words that the checkpoint knows. What came with the weights
(tokenizer, picture settings) is written back byte for byte: a checkpoint keeps its own numbering whatever saves it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import JanusConfig, JanusForConditionalGeneration, PreTrainedTokenizerFast
from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT
from transformers.utils import logging

from reca_core.contracts.errors import CheckpointRefused, PrerequisiteMissing
from reca_core.contracts.files import atomic_write_bytes, write_json
from reca_core.data.templates import TEMPLATES as GENERAL_TEMPLATES
from reca_core.models.janus.chat import TokenIds, deepseek_template
from reca_core.models.janus.checkpoint import DEEPSEEK_TYPE, Sizes, build, config_from_deepseek, to_native
from reca_core.models.janus.pictures import PictureTransform
from reca_core.models.state import read_state

CONFIG, TEMPLATES, PROCESSOR = "config.json", "templates.txt", "processor_config.json"
CHAT_TEMPLATE, OLD_CHAT_TEMPLATE = "chat_template.jinja", "chat_template.json"
"""Checkpoints of early 2025 keep the processor's template in the second, where tokenizers do not look."""
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    CHAT_TEMPLATE,
    OLD_CHAT_TEMPLATE,
)
PICTURE_FILES = ("preprocessor_config.json", PROCESSOR)
SYSTEM_PROMPT_SWITCH = "use_default_system_prompt"


@dataclass(frozen=True)
class Parts:
    """What a checkpoint directory holds.

    ``companions`` are the files besides config and weights, by name: they travel unchanged.
    """

    network: JanusForConditionalGeneration
    tokenizer: PreTrainedTokenizerFast
    transform: PictureTransform
    templates: tuple[str, ...]
    system_prompt: str
    companions: Mapping[str, bytes]


def read(directory: Path) -> Parts:
    """Read either layout, in float32 on the CPU. Raises CheckpointRefused naming the keys that do not fit."""
    settings = read_json(directory / CONFIG)
    deepseek = settings.get("model_type") == DEEPSEEK_TYPE
    config = config_from_deepseek(settings) if deepseek else JanusConfig.from_pretrained(directory)
    state = read_state(directory)
    network = build(config, to_native(state) if deepseek else state, directory)
    sizes = Sizes.of(config)
    transform = PictureTransform.read(directory, sizes.understanding_side, sizes.target_side)
    tokenizer = read_tokenizer(directory, deepseek)
    prompted = deepseek or _uses_system_prompt(directory)
    return Parts(
        network,
        tokenizer,
        transform,
        read_templates(directory),
        DEFAULT_SYSTEM_PROMPT if prompted else "",
        _deepseek_companions(directory, transform, str(tokenizer.chat_template))
        if deepseek
        else _companions(directory),
    )


def write(directory: Path, network: JanusForConditionalGeneration, companions: Mapping[str, bytes]) -> None:
    """Write transformers' layout. Files are replaced, never overwritten: the weights may be mapped from one of them."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".writing-") as scratch:
        with _no_progress_bar():
            network.save_pretrained(scratch)
        for path in Path(scratch).iterdir():
            os.replace(path, directory / path.name)
    for name, content in companions.items():
        atomic_write_bytes(directory / name, content)


def new_companions(
    tokenizer: PreTrainedTokenizerFast, transform: PictureTransform, templates: tuple[str, ...]
) -> dict[str, bytes]:
    """The files of a model that comes from no directory. The general template list is not repeated in them."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        tokenizer.save_pretrained(directory)
        transform.write(directory)
        if templates != GENERAL_TEMPLATES:
            (directory / TEMPLATES).write_text("\n".join(templates) + "\n", encoding="utf-8")
        return _companions(directory)


def read_tokenizer(directory: Path, deepseek: bool = False) -> PreTrainedTokenizerFast:
    """tokenizer.json as it stands: the tokenizer classes named in published configs rebuild it with other rules.

    Raises PrerequisiteMissing if it is absent.
    """
    if not (directory / TOKENIZER_FILES[0]).is_file():
        raise PrerequisiteMissing(
            f"{TOKENIZER_FILES[0]} is not there",
            field=str(directory),
            remedy="use the tokenizer files that were published with these weights",
        )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory, clean_up_tokenization_spaces=False)
    if deepseek:
        tokenizer.chat_template = deepseek_template(tokenizer)  # its own, if any, is for text alone
    elif (directory / OLD_CHAT_TEMPLATE).is_file():
        tokenizer.chat_template = read_json(directory / OLD_CHAT_TEMPLATE)["chat_template"]
    return tokenizer


def record_token_ids(network: JanusForConditionalGeneration, ids: TokenIds) -> None:
    """Say them in config and generation config too, where transformers' own ``generate`` looks for them."""
    network.config.image_token_id = ids.image
    generation: Any = network.generation_config
    generation.bos_token_id, generation.eos_token_id, generation.pad_token_id = ids.bos, ids.eos, ids.pad
    generation.generation_kwargs = {"boi_token_id": ids.boi}
    generation._from_model_config = False  # else transformers makes it anew from config.json and forgets these


def read_templates(directory: Path) -> tuple[str, ...]:
    """The checkpoint's own instructions, or the general list where it has none."""
    path = directory / TEMPLATES
    if not path.is_file():
        return GENERAL_TEMPLATES
    lines = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if not lines:
        raise CheckpointRefused("the file is empty", field=str(path), remedy="delete it to use the general list")
    return lines


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


def _uses_system_prompt(directory: Path) -> bool:
    path = directory / PROCESSOR
    return path.is_file() and bool(read_json(path).get(SYSTEM_PROMPT_SWITCH))


def _companions(directory: Path) -> dict[str, bytes]:
    names = (*TOKENIZER_FILES, *PICTURE_FILES, TEMPLATES)
    return {name: (directory / name).read_bytes() for name in names if (directory / name).is_file()}


def _deepseek_companions(directory: Path, transform: PictureTransform, template: str) -> dict[str, bytes]:
    """DeepSeek's tokenizer files, and its processor's turns and settings in transformers' words."""
    replaced = {*PICTURE_FILES, CHAT_TEMPLATE, OLD_CHAT_TEMPLATE}
    kept = {name: content for name, content in _companions(directory).items() if name not in replaced}
    kept[CHAT_TEMPLATE] = template.encode()
    with tempfile.TemporaryDirectory() as scratch:
        transform.write(Path(scratch))
        write_json(Path(scratch) / PROCESSOR, {"processor_class": "JanusProcessor", SYSTEM_PROMPT_SWITCH: True})
        return kept | _companions(Path(scratch))


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Writing shards draws a bar on stderr, which ends up in log files."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()

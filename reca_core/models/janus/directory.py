"""Janus checkpoint directories: read in transformers' layout or DeepSeek's, written in transformers'.

config.json, safetensors (sharded where large), tokenizer, generation config, preprocessor_config.json, and optionally
``templates.txt``: one RecA instruction per line in words that the checkpoint knows. What came with the weights
(tokenizer, picture settings) is written back byte for byte: a checkpoint keeps its own numbering whatever saves it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import JanusConfig, JanusForConditionalGeneration, PreTrainedTokenizerFast
from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT
from transformers.utils import logging

from reca_core.contracts.files import atomic_write_bytes, write_json
from reca_core.models import directory as common
from reca_core.models.janus import upstream
from reca_core.models.janus.chat import TokenIds, deepseek_template
from reca_core.models.janus.checkpoint import Sizes, build, to_native
from reca_core.models.janus.pictures import PictureTransform
from reca_core.models.state import read_state

PROCESSOR = "processor_config.json"
PICTURE_FILES = ("preprocessor_config.json", PROCESSOR)
GUIDANCE = "guidance_scale"
"""transformers' name for it in generation_config.json."""
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
    deepseek = upstream.is_upstream(common.need_config(directory))
    if deepseek:
        found = upstream.find(directory)
        config, state = found.configuration, to_native(found.state)
    else:
        config, state = JanusConfig.from_pretrained(directory), read_state(directory)
    network = build(config, state, directory)
    _keep_guidance(network, directory)
    sizes = Sizes.of(config)
    transform = PictureTransform.read(directory, sizes.understanding_side, sizes.target_side)
    tokenizer = read_tokenizer(directory, deepseek)
    prompted = deepseek or _uses_system_prompt(directory)
    return Parts(
        network,
        tokenizer,
        transform,
        common.read_templates(directory),
        DEFAULT_SYSTEM_PROMPT if prompted else "",
        companions_of_deepseek(directory, transform) if deepseek else _companions(directory),
    )


def write(directory: Path, network: JanusForConditionalGeneration, companions: Mapping[str, bytes]) -> None:
    """Write transformers' layout. Files are replaced, never overwritten: the weights may be mapped from one of them."""
    with common.replacing(directory) as scratch, _no_progress_bar():
        network.save_pretrained(scratch, max_shard_size=common.SHARD_BYTES)
    for name, content in companions.items():
        atomic_write_bytes(directory / name, content)


def new_companions(
    tokenizer: PreTrainedTokenizerFast, transform: PictureTransform, templates: tuple[str, ...]
) -> dict[str, bytes]:
    """The files of a model that comes from no directory."""
    with tempfile.TemporaryDirectory() as scratch:
        transform.write(Path(scratch))
        return common.new_companions(tokenizer, templates) | _companions(Path(scratch))


def read_tokenizer(directory: Path, deepseek: bool = False) -> PreTrainedTokenizerFast:
    """The checkpoint's own, with the turns that its processor writes. Raises PrerequisiteMissing if it is absent."""
    tokenizer = common.read_tokenizer(directory)
    if deepseek:
        tokenizer.chat_template = deepseek_template(tokenizer)  # its own, if any, is for text alone
    elif (directory / common.OLD_CHAT_TEMPLATE).is_file():
        tokenizer.chat_template = common.read_json(directory / common.OLD_CHAT_TEMPLATE)["chat_template"]
    return tokenizer


def _keep_guidance(network: JanusForConditionalGeneration, directory: Path) -> None:
    """The guidance that the weights are drawn with travels in their generation config, where there is one."""
    file = directory / common.GENERATION
    published = common.read_json(file).get(GUIDANCE) if file.is_file() else None
    if published is not None:
        setattr(network.generation_config, GUIDANCE, float(published))


def record_token_ids(network: JanusForConditionalGeneration, ids: TokenIds) -> None:
    """Say them in config and generation config too, where transformers' own ``generate`` looks for them."""
    network.config.image_token_id = ids.image
    generation: Any = network.generation_config
    generation.bos_token_id, generation.eos_token_id, generation.pad_token_id = ids.bos, ids.eos, ids.pad
    generation.generation_kwargs = {"boi_token_id": ids.boi}
    generation._from_model_config = False  # else transformers makes it anew from config.json and forgets these


def _uses_system_prompt(directory: Path) -> bool:
    path = directory / PROCESSOR
    return path.is_file() and bool(common.read_json(path).get(SYSTEM_PROMPT_SWITCH))


def _companions(directory: Path) -> dict[str, bytes]:
    return common.read_companions(directory, PICTURE_FILES)


def companions_of_deepseek(directory: Path, transform: PictureTransform) -> dict[str, bytes]:
    """DeepSeek's tokenizer files, and its processor's turns and settings in transformers' words."""
    template = str(read_tokenizer(directory, deepseek=True).chat_template)
    replaced = {*PICTURE_FILES, common.CHAT_TEMPLATE, common.OLD_CHAT_TEMPLATE}
    kept = {name: content for name, content in _companions(directory).items() if name not in replaced}
    kept[common.CHAT_TEMPLATE] = template.encode()
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

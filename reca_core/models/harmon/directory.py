"""Harmon checkpoint directories: ours, and the published files by local path; always written as ours.

Ours: config.json (``model_type: harmon``), model.safetensors (sharded where large), tokenizer files, and optionally
``templates.txt``. The published files lie beside those of the Qwen2.5 they were made from (upstream.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from reca_core.models import directory as common
from reca_core.models.harmon import upstream
from reca_core.models.harmon.checkpoint import TEXT_HEAD, tied
from reca_core.models.harmon.configuration import HarmonConfiguration
from reca_core.models.harmon.network import HarmonNetwork
from reca_core.models.state import fill, read_state, without_memory


@dataclass(frozen=True)
class Parts:
    """What a checkpoint directory holds. ``companions``: files besides config and weights; they travel unchanged."""

    configuration: HarmonConfiguration
    network: HarmonNetwork
    tokenizer: PreTrainedTokenizerFast
    templates: tuple[str, ...]
    companions: Mapping[str, bytes]


def read(directory: Path) -> Parts:
    """Read either layout, in float32 on the CPU. Raises CheckpointRefused naming the keys that do not fit."""
    if upstream.is_upstream(directory):
        configuration, state = upstream.read(directory)
    else:
        configuration = HarmonConfiguration.from_json(common.read_settings(directory), str(directory / common.CONFIG))
        state = read_state(directory)
    return Parts(
        configuration,
        build(configuration, state, directory),
        common.read_tokenizer(directory),
        common.read_templates(directory),
        common.read_companions(directory),
    )


def write(
    directory: Path, configuration: HarmonConfiguration, network: HarmonNetwork, companions: Mapping[str, bytes]
) -> None:
    """Write our layout; a head tied to the word embeddings is not written twice."""
    state = network.state_dict()
    if network.sizes.language.tie_word_embeddings:
        del state[TEXT_HEAD]
    common.write(directory, configuration.as_json(), state, companions)


def build(configuration: HarmonConfiguration, state: Mapping[str, Tensor], where: Path) -> HarmonNetwork:
    """The network with exactly these weights. Raises CheckpointRefused naming the keys that do not fit."""
    language = configuration.sizes.language
    language.tie_word_embeddings = tied(bool(language.tie_word_embeddings), state)
    with without_memory():
        network = HarmonNetwork(configuration.sizes)
    fill(network, state, where, derivable=[TEXT_HEAD] if language.tie_word_embeddings else [])
    network.llm.tie_weights()
    return network

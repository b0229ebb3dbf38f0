"""OpenUni checkpoint directories: ours, and the published files by local path; always written as ours.

Ours is that of every family (reca_core/models/directory.py) with ``model_type: openuni``; published files: upstream.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from reca_core.models import directory as common
from reca_core.models.openuni import upstream
from reca_core.models.openuni.checkpoint import TEXT_HEAD, from_upstream, tied
from reca_core.models.openuni.configuration import OpenUniConfiguration
from reca_core.models.openuni.network import OpenUniNetwork
from reca_core.models.state import fill, read_state, without_memory


@dataclass(frozen=True)
class Parts:
    """What a checkpoint directory holds. ``companions``: files besides config and weights; they travel unchanged."""

    configuration: OpenUniConfiguration
    network: OpenUniNetwork
    tokenizer: PreTrainedTokenizerFast
    templates: tuple[str, ...]
    companions: Mapping[str, bytes]


def read(directory: Path) -> Parts:
    """Read either layout, in float32 on the CPU. Raises CheckpointRefused naming the keys that do not fit."""
    templates = common.read_templates(directory)
    if upstream.is_upstream(directory):
        found = upstream.find(directory)
        tokenizer = upstream.read_tokenizer(found.words or directory)
        network = build(found.configuration, from_upstream(found.state), directory)
        companions = common.new_companions(tokenizer, templates)
        return Parts(found.configuration, network, tokenizer, templates, companions)
    where = str(directory / common.CONFIG)
    configuration = OpenUniConfiguration.from_json(common.read_settings(directory), where)
    network = build(configuration, read_state(directory), directory)
    tokenizer, companions = common.read_tokenizer(directory), common.read_companions(directory)
    return Parts(configuration, network, tokenizer, templates, companions)


def write(
    directory: Path, configuration: OpenUniConfiguration, network: OpenUniNetwork, companions: Mapping[str, bytes]
) -> None:
    """Write our layout; a head tied to the word embeddings is not written twice."""
    state = network.state_dict()
    if network.sizes.language.tie_word_embeddings:
        del state[TEXT_HEAD]
    common.write(directory, configuration.as_json(), state, companions)


def build(configuration: OpenUniConfiguration, state: Mapping[str, Tensor], where: Path) -> OpenUniNetwork:
    """The network with exactly these weights. Raises CheckpointRefused naming the keys that do not fit."""
    language = configuration.sizes.language
    language.tie_word_embeddings = tied(bool(language.tie_word_embeddings), state)
    with without_memory():
        network = OpenUniNetwork(configuration.sizes)
    fill(network, state, where, derivable=[TEXT_HEAD] if language.tie_word_embeddings else [])
    network.lmm.tie_weights()
    return network

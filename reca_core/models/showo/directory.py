"""Show-o checkpoint directories: ours, and the published files by local path; always written as ours.

Ours is that of every family (reca_core/models/directory.py) with ``model_type: showo``; published files: upstream.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from reca_core.models import directory as common
from reca_core.models.showo import upstream
from reca_core.models.showo.checkpoint import PATTERNS, from_upstream
from reca_core.models.showo.configuration import ShowoConfiguration
from reca_core.models.showo.network import ShowoNetwork
from reca_core.models.state import fill, read_state, without_memory


@dataclass(frozen=True)
class Parts:
    """What a checkpoint directory holds. ``companions``: files besides config and weights; they travel unchanged."""

    configuration: ShowoConfiguration
    network: ShowoNetwork
    tokenizer: PreTrainedTokenizerFast
    templates: tuple[str, ...]
    companions: Mapping[str, bytes]


def read(directory: Path) -> Parts:
    """Read either layout, in float32 on the CPU. Raises CheckpointRefused naming the keys that do not fit."""
    words = directory
    if upstream.is_upstream(directory):
        found = upstream.find(directory)
        configuration, words = found.configuration, found.words or directory
        state = from_upstream({name: tensor for name, tensor in found.state.items() if not upstream.is_unread(name)})
    else:
        where = str(directory / common.CONFIG)
        configuration = ShowoConfiguration.from_json(common.read_settings(directory), where)
        state = read_state(directory)
    return Parts(
        configuration,
        build(configuration, state, directory),
        common.read_tokenizer(words),
        common.read_templates(directory),
        common.read_companions(words) | common.read_companions(directory),
    )


def write(
    directory: Path, configuration: ShowoConfiguration, network: ShowoNetwork, companions: Mapping[str, bytes]
) -> None:
    """Write our layout; tables that follow from sizes are not written."""
    state = {name: tensor for name, tensor in network.state_dict().items() if name not in PATTERNS}
    common.write(directory, configuration.as_json(), state, companions)


def build(configuration: ShowoConfiguration, state: Mapping[str, Tensor], where: Path) -> ShowoNetwork:
    """The network with exactly these weights. Raises CheckpointRefused naming the keys that do not fit."""
    with without_memory():
        network = ShowoNetwork(configuration.sizes)
    fill(network, state, where, derivable=PATTERNS)
    return network

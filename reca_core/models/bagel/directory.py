"""BAGEL checkpoint directories: ours, and the published files by local path; always written as ours.

Ours: config.json (``model_type: bagel``), model.safetensors (sharded where large), tokenizer files, and optionally
``templates.txt``. The published layout is read by upstream.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from reca_core.models import directory as common
from reca_core.models.bagel import upstream
from reca_core.models.bagel.checkpoint import FIXED
from reca_core.models.bagel.configuration import BagelConfiguration
from reca_core.models.bagel.network import BagelNetwork
from reca_core.models.state import fill, read_state, without_memory


@dataclass(frozen=True)
class Parts:
    """What a checkpoint directory holds. ``companions``: files besides config and weights; they travel unchanged."""

    configuration: BagelConfiguration
    network: BagelNetwork
    tokenizer: PreTrainedTokenizerFast
    templates: tuple[str, ...]
    companions: Mapping[str, bytes]


def read(directory: Path) -> Parts:
    """Read either layout, in float32 on the CPU. Raises CheckpointRefused naming the keys that do not fit."""
    if upstream.is_upstream(directory):
        configuration, state = upstream.read(directory)
    else:
        settings = common.read_settings(directory)
        configuration = BagelConfiguration.from_json(settings, str(directory / common.CONFIG))
        state = read_state(directory)
    return Parts(
        configuration,
        build(configuration, state, directory),
        common.read_tokenizer(directory),
        common.read_templates(directory),
        common.read_companions(directory),
    )


def write(
    directory: Path, configuration: BagelConfiguration, network: BagelNetwork, companions: Mapping[str, bytes]
) -> None:
    """Write our layout."""
    common.write(directory, configuration.as_json(), network.state_dict(), companions)


def build(configuration: BagelConfiguration, state: Mapping[str, Tensor], where: Path) -> BagelNetwork:
    """The network with exactly these weights; the fixed position tables are computed, whatever the file says.

    Raises CheckpointRefused naming the keys that do not fit.
    """
    with without_memory():
        network = BagelNetwork(configuration.sizes)
    fill(network, state, where, derivable=FIXED)
    return network

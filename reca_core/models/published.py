"""Checkpoints in the layouts that the models' authors publish: what was found, and such files read and written.

A published model is one or several weights files, some of them downloads of their own, and small files beside them. All
tensors of a family together have *full* upstream names: the file's own name after the file's ``prefix``. A family says
in ``conversion.py`` how these names and ours translate (the protocol ``Conversion``); nothing here knows a family.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor, nn

from reca_core.contracts.errors import CheckpointRefused, PrerequisiteMissing
from reca_core.contracts.files import write_json
from reca_core.models.pickles import Weights
from reca_core.models.state import SHARD_INDEXES, SINGLE_FILES, read_shards, read_tensors

SMALL_SUFFIXES = (".json", ".txt", ".model", ".jinja")
INDEX = ".index.json"
SHARD_BYTES = 5 * 10**9
RECORDED = "weights.safetensors"
"""Weights of a recorded set: upstream's key names, all sizes in config.json, no tokenizer."""
SETTINGS = "reca.json"
"""Our own settings beside exported weights: sides, head counts and whatever else upstream's files do not say."""


@dataclass(frozen=True)
class WeightsFile:
    """One weights file of an upstream layout, or the index of several shards.

    Args:
        place: path inside the checkpoint's directory, also where the file was found beside it.
        prefix: what the full names have before those in the file.
        inside: entry of a pickle under which the weights lie.
    """

    place: str
    prefix: str = ""
    inside: str = ""


@dataclass(frozen=True)
class Published:
    """A checkpoint in its authors' layout.

    ``state`` has full upstream names; ``small``: path inside the checkpoint's directory -> the file it stands for;
    ``words``: the directory with the tokenizer, if any; ``notes`` are for the person who asked.
    """

    configuration: Any
    files: tuple[WeightsFile, ...]
    state: dict[str, Tensor]
    small: dict[str, Path] = field(default_factory=dict)
    words: Path | None = None
    notes: tuple[str, ...] = ()


class SizesUnknown(CheckpointRefused):
    """The tensors that tell the sizes are not there, so the rest cannot be compared. ``missing``: their full names."""

    def __init__(self, missing: Iterable[str], field: str) -> None:
        self.missing = tuple(missing)
        super().__init__(
            f"missing: {', '.join(self.missing)}",
            field=field,
            remedy="download the checkpoint again; if it is of another size than any published one, add reca.json",
        )


class Conversion(Protocol):
    """What a family's ``conversion`` module offers. Names without "upstream" are those of our network."""

    def is_published(self, place: Path) -> bool:
        """True if a directory is in the authors' layout."""
        ...

    def published(self, place: Path, which: Weights | None, chosen: Path | None) -> Published:
        """Read the authors' layout; ``chosen`` is the weights file that was named. Raises CheckpointRefused."""
        ...

    def configuration(self, directory: Path) -> Any:
        """Of a directory in our layout."""
        ...

    def network(self, configuration: Any) -> nn.Module:
        """With parameters of shape alone."""
        ...

    def from_upstream(self, state: Mapping[str, Tensor], configuration: Any) -> dict[str, Tensor]:
        """Full upstream names to ours. A name that no rule knows stays as it is."""
        ...

    def to_upstream(self, state: Mapping[str, Tensor], configuration: Any) -> dict[str, Tensor]:
        """Ours to full upstream names; a tied head is written out."""
        ...

    def settle(self, configuration: Any, state: Mapping[str, Tensor]) -> None:
        """Say in the configuration whether the text head of these weights (our names) is the word embeddings."""
        ...

    def derivable(self, configuration: Any) -> frozenset[str]:
        """Our names that need not be stored."""
        ...

    def harmless(self, name: str) -> bool:
        """True for a full upstream name that no computation reads."""
        ...

    def trainable(self, names: Iterable[str], configuration: Any) -> frozenset[str]:
        """Of our names those that post-training changes."""
        ...

    def companions(self, found: Published) -> dict[str, bytes]:
        """The files besides config and weights that our layout has, by name."""
        ...

    def write_settings(self, directory: Path, configuration: Any) -> None:
        """config.json and generation_config.json of our layout, beside the companions that are there already."""
        ...

    def settings(self, configuration: Any) -> dict[str, Any]:
        """What ``reca.json`` says beside exported weights."""
        ...

    def default_files(self, configuration: Any) -> tuple[WeightsFile, ...]:
        """The authors' file names, for a model that came from none of their files."""
        ...

    def upstream_settings(self, configuration: Any, companions: Mapping[str, bytes]) -> dict[str, bytes]:
        """The small files of the authors' layout, by place, for a model that came from none of their files."""
        ...


# ---- reading ---------------------------------------------------------------------------------------------------


def read_file(path: Path, file: WeightsFile, which: Weights = "model") -> dict[str, Tensor]:
    """The tensors of one file, or of all shards of an index, under their full names.

    Raises CheckpointRefused if a file is damaged or absent, or if two shards hold the same name.
    """
    sharded = path.name.endswith(INDEX)
    found = read_shards(path) if sharded else read_tensors(path, file.inside, which)
    return {file.prefix + name: tensor for name, tensor in found.items()}


def weights_in_directory(directory: Path) -> Path:
    """The single file or the index that holds a directory's weights. Raises PrerequisiteMissing if there is none."""
    for single, index in zip(SINGLE_FILES, SHARD_INDEXES, strict=True):
        for name in (single, index):
            if (directory / name).is_file():
                return directory / name
    raise PrerequisiteMissing(
        "the directory holds no weights",
        field=str(directory),
        choices=(*SINGLE_FILES, *SHARD_INDEXES),
        remedy="point at a complete checkpoint directory",
    )


def small_files(directory: Path, inside: str = "") -> dict[str, Path]:
    """Settings and tokenizer files of one directory, by their place in an exported checkpoint."""
    kept = sorted(path for path in directory.iterdir() if path.is_file() and path.suffix in SMALL_SUFFIXES)
    return {str(PurePosixPath(inside) / path.name): path for path in kept if not path.name.endswith(INDEX)}


def is_recorded(directory: Path) -> bool:
    """True for a recorded set: weights under upstream's names and a config.json that says every size."""
    config = directory / "config.json"
    if not ((directory / RECORDED).is_file() and config.is_file()):
        return False
    return "model_type" not in json.loads(config.read_text(encoding="utf-8"))


def recorded(directory: Path, configure: Callable[[Mapping[str, Any]], Any], prefixes: Mapping[str, str]) -> Published:
    """A recorded set.

    Args:
        directory: where it lies.
        configure: a family's configuration of what config.json says.
        prefixes: file stem of a part that upstream ships separately -> prefix of its full names.

    Raises CheckpointRefused if config.json is that of another family.
    """
    config = directory / "config.json"
    try:
        configuration = configure(json.loads(config.read_text(encoding="utf-8")))
    except (KeyError, TypeError) as error:
        raise CheckpointRefused(
            f"does not say the sizes of this family: {error!r}", field=str(config), remedy="check --family"
        ) from error
    files = [WeightsFile(RECORDED)]
    files += [WeightsFile(f"{stem}.safetensors", prefix) for stem, prefix in prefixes.items()]
    present = [file for file in files if (directory / file.place).is_file()]
    state: dict[str, Tensor] = {}
    for file in present:
        state |= read_file(directory / file.place, file)
    return Published(configuration, tuple(present), state, small_files(directory))


# ---- writing ---------------------------------------------------------------------------------------------------


def file_of(name: str, files: Iterable[WeightsFile]) -> WeightsFile:
    """The file that a full name belongs to: the one with the longest fitting prefix."""
    return max((file for file in files if name.startswith(file.prefix)), key=lambda file: len(file.prefix))


def write_files(directory: Path, files: Iterable[WeightsFile], state: Mapping[str, Tensor]) -> None:
    """Write a full upstream state into its files."""
    files = tuple(files)
    parts: dict[WeightsFile, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        file = file_of(name, files)
        parts.setdefault(file, {})[name.removeprefix(file.prefix)] = tensor
    for file, tensors in parts.items():
        (directory / file.place).parent.mkdir(parents=True, exist_ok=True)
        _write(directory / file.place, file.inside, tensors)


def _write(path: Path, inside: str, tensors: Mapping[str, Tensor]) -> None:
    if path.name.endswith(INDEX):
        single = path.name.removesuffix(INDEX)
        stem, _, suffix = single.rpartition(".")
        pattern = f"{stem}{{suffix}}.{suffix}"
        plan = split_torch_state_dict_into_shards(dict(tensors), filename_pattern=pattern, max_shard_size=SHARD_BYTES)
        for name, held in plan.filename_to_tensors.items():
            _write(path.with_name(name), "", {each: tensors[each] for each in held})
        if plan.is_sharded:
            write_json(path, {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename})
        return
    if path.suffix == ".safetensors":
        save_file({name: alone(tensor) for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
        return
    plain = {name: alone(tensor) for name, tensor in tensors.items()}
    torch.save({inside: plain} if inside else plain, path)


def alone(tensor: Tensor) -> Tensor:
    """Contiguous and with storage of its own size: a view of a larger one would be written with all of it."""
    tensor = tensor.detach().contiguous()
    own = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if own else tensor.clone()

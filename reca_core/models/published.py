"""Checkpoints in the layouts that the models' authors publish: what was found, and such files read and written.

A published model is one or several weights files, some of them downloads of their own, and small files beside them. All
tensors of a family together have *full* upstream names: the file's own name after the file's ``prefix``. A family says
in ``conversion.py`` how these names and ours translate (the protocol ``Conversion``); nothing here knows a family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from torch import Tensor, nn

from reca_core.contracts.errors import CheckpointRefused, PrerequisiteMissing
from reca_core.contracts.files import write_json
from reca_core.models.directory import read_json
from reca_core.models.pickles import Weights
from reca_core.models.state import SHARD_INDEXES, SINGLE_FILES, read_shards, read_tensors

SMALL_SUFFIXES = (".json", ".txt", ".model", ".jinja")
INDEX = ".index.json"
SHARD_BYTES = 5 * 10**9
RECORDED = "weights.safetensors"
"""Weights of a recorded set: upstream's key names, all sizes in config.json, no tokenizer."""
NUMBERS = frozenset({"inputs.safetensors", "expected.safetensors"})
"""Tensors beside them that are no weights."""
LANGUAGE_SIZES = ("llm", "phi")
"""Entries of a recorded set's config.json, one of which every family has."""
WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pth", ".ckpt", ".pt")
AVERAGE_PREFIX = "ema"
"""What the names of files begin with that hold a moving average and nothing else."""
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

    Raises CheckpointRefused if a file is damaged or absent, if two shards hold the same name, or if a moving average is
    asked for of a file that has no place for one.
    """
    sharded = path.name.endswith(INDEX)
    if which == "ema" and (sharded or path.suffix == ".safetensors"):
        raise CheckpointRefused("holds no moving average", field=str(path), remedy="--weights model")
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
    """True where a recorded set's config.json lies, which says every size: the language model's and its own."""
    config = directory / "config.json"
    if not config.is_file():
        return False
    settings = read_json(config)
    named = any(name in settings for name in ("model_type", "_class_name"))
    return not named and any(isinstance(settings.get(name), dict) for name in LANGUAGE_SIZES)


def recorded(
    directory: Path,
    configure: Callable[[Mapping[str, Any]], Any],
    parts: Sequence[Sequence[WeightsFile]] = (),
    which: Weights | None = None,
    chosen: Path | None = None,
) -> Published:
    """A recorded set, or the same weights in the files that its family is published in.

    Args:
        directory: where it lies.
        configure: a family's configuration of what config.json says.
        parts: for each part that upstream ships separately the files that may hold it; the first that is there does.
        which: the moving average or the model itself, if one is asked for.
        chosen: the weights file that was named, if any.

    Raises CheckpointRefused if config.json is that of another family or several weights may be meant,
    PrerequisiteMissing if there are none.
    """
    config = directory / "config.json"
    try:
        configuration = configure(read_json(config))
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, StrictDataclassError) as error:
        raise CheckpointRefused(
            f"does not say the sizes of this family: {error!r}", field=str(config), remedy="check --family"
        ) from error
    weights = chosen or _recorded_weights(directory, {file.place for part in parts for file in part}, which)
    average = weights.name.startswith(AVERAGE_PREFIX)
    main = WeightsFile(weights.name)
    state = read_file(weights, main, "model" if average else which or "model")
    present = [[file for file in part if (directory / file.place).is_file()][:1] for part in parts]
    files = [main, *(file for part in present for file in part)]
    for file in files[1:]:
        state |= read_file(directory / file.place, file)
    unasked = average and not (which or chosen)
    notes = (f"{weights.name} is taken: there is no other file of weights",) if unasked else ()
    return Published(configuration, tuple(files), state, small_files(directory), notes=notes)


def _recorded_weights(directory: Path, parts: Set[str], which: Weights | None) -> Path:
    """The model's file among those of a set; its moving average only if that is asked for or all there is."""
    for name in (RECORDED, *SINGLE_FILES, *SHARD_INDEXES):
        if which != "ema" and (directory / name).is_file():
            return directory / name
    found = [path for path in sorted(directory.iterdir()) if path.is_file() and path.suffix in WEIGHTS_SUFFIXES]
    found = [path for path in found if path.name not in parts | NUMBERS]
    averages = [path for path in found if path.name.startswith(AVERAGE_PREFIX)]
    others = [path for path in found if path not in averages]
    meant = averages or others if which == "ema" else others or averages
    if not meant or (which == "model" and not others):
        raise PrerequisiteMissing("holds no weights of the model", field=str(directory), choices=WEIGHTS_SUFFIXES)
    if len(meant) > 1:
        names = tuple(path.name for path in meant)
        raise CheckpointRefused("holds several weights", field=str(directory), choices=names, remedy="name the file")
    return meant[0]


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
        save_file(apart(tensors), path, metadata={"format": "pt"})
        return
    plain = {name: alone(tensor) for name, tensor in tensors.items()}
    torch.save({inside: plain} if inside else plain, path)


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each ``alone``, and none with the memory of another, which safetensors refuse: a tied head is written twice."""
    taken: set[int] = set()
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        single = alone(tensor)
        own[name] = single.clone() if single.data_ptr() in taken else single
        taken.add(single.data_ptr())
    return own


def alone(tensor: Tensor) -> Tensor:
    """Contiguous and with storage of its own size: a view of a larger one would be written with all of it."""
    tensor = tensor.detach().contiguous()
    own = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if own else tensor.clone()

"""Checkpoint files to named tensors, and named tensors into a network: strictly, and without running foreign code.

safetensors are preferred; pickles (``.bin``, ``.pth``) are read with ``weights_only=True`` only (pickles.py). Files are
memory-mapped and networks are built without memory for their parameters, so a checkpoint costs its own size once.
Whatever does not fit is an error that names the keys: loading "as far as possible" published untouched weights upstream
(reference "reca_recipe", section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from reca_core.contracts.errors import CheckpointRefused, PrerequisiteMissing
from reca_core.models.directory import read_json
from reca_core.models.pickles import Weights, format_of, read_pickle, weights_in
from reca_core.models.unified import LoadReport
from reca_core.models.zero import is_zero, read_zero

SINGLE_FILES = ("model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors")
SHARD_INDEXES = tuple(f"{name}.index.json" for name in SINGLE_FILES)
SHOWN_KEYS = 12
"""How many keys of each kind an error message lists."""


_READ_AS: ContextVar[Callable[[Tensor], Tensor] | None] = ContextVar("read_as", default=None)


@contextmanager
def reading_as(change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """In this block ``read_tensors`` gives every tensor through ``change``: an estimate needs their shapes alone."""
    token = _READ_AS.set(change)
    try:
        yield
    finally:
        _READ_AS.reset(token)


def weight_files(directory: Path) -> list[Path]:
    """The files that hold a directory's weights: one file, or all shards of an index; safetensors first.

    Raises PrerequisiteMissing if there are none, CheckpointRefused for an index that is damaged or names a file that is
    not there.
    """
    for single, index in zip(SINGLE_FILES, SHARD_INDEXES, strict=True):
        if (directory / single).is_file():
            return [directory / single]
        if (directory / index).is_file():
            return _shards(directory / index)
    raise PrerequisiteMissing(
        "the directory holds no weights",
        field=str(directory),
        choices=(*SINGLE_FILES, *SHARD_INDEXES),
        remedy="point at a complete checkpoint directory",
    )


def _shards(index: Path) -> list[Path]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
        raise CheckpointRefused(
            "has no weight_map from tensors to file names", field=str(index), remedy="download the checkpoint again"
        )
    names = sorted(set(places.values()))
    outside = [name for name in names if Path(name).name != name]
    absent = [name for name in names if name not in outside and not (index.parent / name).is_file()]
    if outside or absent:
        raise CheckpointRefused(
            f"the index names files that are not in its directory: {', '.join(outside + absent)}",
            field=str(index),
            remedy="download the checkpoint again, completely",
        )
    return [index.parent / name for name in names]


def read_tensors(file: Path, inside: str = "", which: Weights = "model") -> dict[str, Tensor]:
    """All tensors of one file or ZeRO directory, memory-mapped on the CPU.

    Of a pickle those under its entry ``inside`` if one is named, else the entry that frameworks use for ``which``.
    Raises CheckpointRefused if the file is damaged or holds anything but tensors in plain containers.
    """
    found, change = _tensors(file, inside, which), _READ_AS.get()
    return found if change is None else {name: change(tensor) for name, tensor in found.items()}


def _tensors(file: Path, inside: str, which: Weights) -> dict[str, Tensor]:
    if is_zero(file):
        if which == "ema":
            raise CheckpointRefused("a ZeRO directory holds no moving average", field=str(file))
        return read_zero(file)
    if file.suffix != ".safetensors":
        return weights_in(read_pickle(file, format_of(file)), file, which, inside)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise CheckpointRefused(
            f"not a readable weights file: {_first_line(error)}", field=str(file), remedy="download the file again"
        ) from error


def read_state(directory: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint directory. Raises CheckpointRefused if two shards hold the same name."""
    return _joined(weight_files(directory))


def read_shards(index: Path) -> dict[str, Tensor]:
    """All tensors of the shards that an index names. Raises as ``read_state`` and ``weight_files`` do."""
    return _joined(_shards(index))


def _joined(files: Iterable[Path]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in read_tensors(file).items():
            if name in state:
                raise CheckpointRefused(f"{name} is in two shards", field=str(file))
            state[name] = tensor
    return state


@contextmanager
def without_memory() -> Iterator[None]:
    """Networks built in this block have parameters of shape alone (device "meta"); buffers are real, for some of them
    are computed when they are made and stored nowhere. ``fill`` then puts the stored tensors in, without a copy."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None:
            module._parameters[name] = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign,assignment]
    try:
        with no_init_weights():
            yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def compare_keys(network: nn.Module, state: Mapping[str, Tensor], *, may_miss: Iterable[str] = ()) -> LoadReport:
    """Which names of ``state`` do not fit ``network``; ``may_miss`` lists names the family declares derivable."""
    return compare_shapes(network.state_dict(), state, may_miss=may_miss)


def compare_shapes(
    wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], *, may_miss: Iterable[str] = ()
) -> LoadReport:
    """Which names and shapes of ``state`` are not those of ``wanted``; whole numbers are not fractions."""
    missing = sorted(set(wanted) - set(state) - set(may_miss))
    unexpected = sorted(set(state) - set(wanted))
    mismatched = [
        f"{name} is {_kind(state[name], tensor)}, should be {_kind(tensor, state[name])}"
        for name, tensor in wanted.items()
        if name in state and not _alike(state[name], tensor)
    ]
    return LoadReport(tuple(missing), tuple(unexpected), tuple(mismatched))


def _alike(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and found.is_floating_point() == wanted.is_floating_point()


def _kind(tensor: Tensor, other: Tensor) -> str:
    """What distinguishes it from the other: the shape, or else the type."""
    return str(list(tensor.shape)) if tensor.shape != other.shape else str(tensor.dtype).removeprefix("torch.")


def refuse_unless_clean(report: LoadReport, directory: Path) -> None:
    """Raise CheckpointRefused naming every key that does not fit."""
    if report.clean():
        return
    lines = [
        f"{title}: {_listed(names)}"
        for title, names in (
            ("missing", report.missing),
            ("unexpected", report.unexpected),
            ("of another shape", report.mismatched_shape),
        )
        if names
    ]
    raise CheckpointRefused(
        "the weights do not fit the model that config.json describes; " + "; ".join(lines),
        field=str(directory),
        remedy="check that config.json and the weights belong together, or convert the checkpoint first",
    )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - SHOWN_KEYS
    return ", ".join(names[:SHOWN_KEYS]) + (f" and {rest} more" if rest > 0 else "")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose weights autocast would turn into half precision at every use."""
_matrices: ContextVar[tuple[torch.dtype, str]] = ContextVar("matrices", default=(torch.float32, ""))


@contextmanager
def matrices_in(dtype: torch.dtype, apart_from: str) -> Iterator[None]:
    """Networks filled in this block hold the weights of linear and convolutional layers in ``dtype``.

    ``apart_from`` is the path of a part that stays in float32, as everything else does. Under autocast such a network
    computes what it would with float32 weights, in half the memory.
    """
    before = _matrices.set((dtype, apart_from))
    try:
        yield
    finally:
        _matrices.reset(before)


def matrices_of(network: nn.Module, apart_from: str) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters of linear and convolutional layers outside the part at ``apart_from``, a shared one by each name."""
    for path, module in network.named_modules():
        if isinstance(module, MATRICES) and not f"{path}.".startswith(f"{apart_from}."):
            for name, parameter in module.named_parameters(recurse=False):
                yield f"{path}.{name}", parameter


def _types(network: nn.Module) -> dict[str, torch.dtype]:
    """Of the parameters that are not to be float32, by name."""
    dtype, apart = _matrices.get()
    return {name: dtype for name, _ in matrices_of(network, apart)}


def fill(network: nn.Module, state: Mapping[str, Tensor], where: Path, *, derivable: Iterable[str] = ()) -> None:
    """Put exactly these weights into a network, in float32 (but see ``matrices_in``), copying only to change the type.

    ``derivable`` are names that may be absent and are not read where they are there, such as a tied text head.
    Raises CheckpointRefused naming the keys that do not fit ``network``.
    """
    skipped = set(derivable)
    refuse_unless_clean(compare_keys(network, state, may_miss=skipped), where)
    kept = {name: tensor for name, tensor in state.items() if name not in skipped}
    network.load_state_dict(unshared(kept, _types(network)), strict=False, assign=True)


def unshared(state: Mapping[str, Tensor], types: Mapping[str, torch.dtype]) -> dict[str, Tensor]:
    """In float32 or their own type, each with memory of its own: two names of one tensor must not train as one."""
    taken: set[int] = set()
    own: dict[str, Tensor] = {}
    for name, tensor in state.items():
        tensor = tensor.to(types.get(name, torch.float32))
        own[name] = tensor.clone() if tensor.data_ptr() in taken else tensor
        taken.add(tensor.data_ptr())
    return own

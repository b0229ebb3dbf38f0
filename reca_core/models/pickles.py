"""Pickled weights without running foreign code: torch's weights-only reader and, per format, a list of harmless names.

A pickle names classes and functions that its reader should call; ``weights_only=True`` calls only tensors and plain
containers. Training frameworks store more beside the weights (logs, loss scalers, callbacks). For each format that is
published (reference "model_goldens", section 3; "reca_recipe", 3.2) the names it is known to hold are listed here and
answered by stand-ins that do nothing, so that such a file can be read without its framework being installed. Every
other name is refused before anything of it runs.
"""

from __future__ import annotations

import _codecs
import pickle
import re
import zipfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from numpy._core import multiarray
from torch import Tensor
from torch.serialization import safe_globals

from reca_core.contracts.errors import CheckpointRefused

Weights = Literal["model", "ema"]
MODEL_ENTRIES, AVERAGE_ENTRIES = ("state_dict", "module", "model"), ("ema_state_dict", "model_ema", "ema")
"""Where mmengine, DeepSpeed and the latent-diffusion code put the weights of the model, and of its moving average."""
PARALLEL = "module."
"""Prefix of every name in a file that was saved through DistributedDataParallel."""


class Ignored:
    """Stands for an object whose content no weights depend on: takes whatever it is given and keeps none of it."""

    def __init__(self, *_: object) -> None:
        """Nothing is kept."""

    def __setstate__(self, state: object) -> None:
        """Nothing is kept."""


UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)
"""What torch's unpickler raises for bytes that are no pickle, or one that is not allowed."""
NAMED = re.compile(r"(?:GLOBAL|but got) (?:<class ')?([\w.]+)")
DETAIL = re.compile(r"WeightsUnpickler error:\s*(.+)")
ADVICE = " In PyTorch 2.6"
"""Of torch's message: the class or function that it refused, any other reason, and where its advice begins."""
Allowed = Callable[..., Any] | tuple[Callable[..., Any], str]
_ARRAYS: tuple[Allowed, ...] = (
    *((function, f"{package}.multiarray.{name}")
      for package in ("numpy.core", "numpy._core")
      for name, function in (("_reconstruct", multiarray._reconstruct), ("scalar", multiarray.scalar))),
    numpy.ndarray,
    numpy.dtype,
    *(type(numpy.dtype(kind)) for kind in (numpy.float64, numpy.float32, numpy.int64, numpy.int32, numpy.bool_)),
    _codecs.encode,
)  # fmt: skip
"""Arrays and scalars of NumPy, as logs hold them."""
FORMATS: dict[str, tuple[Allowed, ...]] = {
    "plain": (),
    "mmengine": (
        *_ARRAYS,
        Namespace,
        (Ignored, "mmengine.logging.history_buffer.HistoryBuffer"),
        (Ignored, "mmengine.config.config.ConfigDict"),
    ),
    "latent-diffusion": (
        Namespace,
        (Ignored, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
        (Ignored, "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint"),
    ),
    "deepspeed": (
        *_ARRAYS,
        Namespace,
        (int, "deepspeed.runtime.zero.config.ZeroStageEnum"),
        (Ignored, "deepspeed.runtime.fp16.loss_scaler.LossScaler"),
        (Ignored, "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler"),
        (Ignored, "deepspeed.utils.tensor_fragment.fragment_address"),
        (Ignored, "mmengine.logging.history_buffer.HistoryBuffer"),
    ),
}
"""Format -> what its files may name besides tensors and plain containers."""


def format_of(file: Path) -> str:
    """The format that a file's name says: which list of names applies."""
    if file.suffix == ".ckpt":
        return "latent-diffusion"
    if file.suffix == ".pt":
        return "deepspeed"
    return "mmengine" if file.suffix == ".pth" else "plain"


def read_pickle(file: Path, kind: str) -> Any:
    """What a pickle of a known format holds, tensors memory-mapped where the file allows it.

    Raises CheckpointRefused if it is damaged or names anything that its format need not hold.
    """
    mapped = zipfile.is_zipfile(file)  # torch's format before version 1.6 cannot be mapped and is read whole
    try:
        with safe_globals(list(FORMATS[kind])):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except UNREADABLE as error:
        raise CheckpointRefused(
            f"not a readable weights file, or one that wants to run code: {_reason(str(error).strip())}",
            field=str(file),
            remedy="download the file again; prefer safetensors",
        ) from error


def _reason(message: str) -> str:
    """What torch found, without its advice to read such a file in a way that runs its code."""
    if named := NAMED.search(message):
        return f"it names {named[1]}, which no weights of this format need"
    found = DETAIL.search(message)
    return (found[1] if found else message.partition("\n")[0].partition(ADVICE)[0]).strip() or "it ends too early"


def weights_in(loaded: Any, file: Path, which: Weights = "model", inside: str = "") -> dict[str, Tensor]:
    """The named tensors of an unpickled file: itself, its entry ``inside``, or the entry that frameworks use.

    Raises CheckpointRefused if the entry is absent or holds anything but named tensors with all their numbers.
    """
    if inside:
        if not isinstance(loaded, dict) or inside not in loaded:
            raise CheckpointRefused(f"has no entry {inside!r}", field=str(file), remedy="download the file again")
        loaded = loaded[inside]
    elif not _all_tensors(loaded) or which == "ema":
        loaded = _entry(loaded, file, which)
    odd = [] if isinstance(loaded, dict) else [type(loaded).__name__]
    if isinstance(loaded, dict):
        odd = [str(name) for name, value in loaded.items() if not (isinstance(name, str) and _plain(value))]
    if odd:
        rest = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise CheckpointRefused(
            f"holds {odd[0]}{rest}, not tensors alone, named and with all their numbers", field=str(file)
        )
    if not loaded:
        raise CheckpointRefused("holds no tensors", field=str(file), remedy="download the file again")
    if all(name.startswith(PARALLEL) for name in loaded):
        return {name.removeprefix(PARALLEL): tensor for name, tensor in loaded.items()}
    return dict(loaded)


def _plain(value: object) -> bool:
    """Not sparse, not quantised, and not of shape alone."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not (value.is_meta or value.is_quantized)


def _all_tensors(loaded: Any) -> bool:
    return isinstance(loaded, dict) and all(isinstance(value, Tensor) for value in loaded.values())


def _entry(loaded: Any, file: Path, which: Weights) -> Any:
    names = AVERAGE_ENTRIES if which == "ema" else MODEL_ENTRIES
    found = [name for name in names if isinstance(loaded, Mapping) and isinstance(loaded.get(name), dict)]
    if not found and which == "ema":
        raise CheckpointRefused(
            "holds no moving average", field=str(file), choices=AVERAGE_ENTRIES, remedy="--weights model"
        )
    return loaded[found[0]] if found else loaded

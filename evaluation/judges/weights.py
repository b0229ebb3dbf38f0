"""Weights of judges: found on disk or fetched from the hub; unpickled, where they must be, without running anything.

``torch.load`` with ``weights_only=True`` refuses every class that is not allowed by name. Each format allows the few
harmless ones that its files really hold, and nothing else.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reca_core.contracts.errors import PrerequisiteMissing, StageFailed

FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""What is fetched of a hub repository; code is not."""
OLD_FILES = (*FILES, "pytorch_model*.bin")
"""Where it has no safetensors. transformers reads pickles as weights alone."""


def local_folder(chosen: str, field: str) -> Path:
    """The folder that a path or hub id names; a hub id is fetched, or found in the hub's cache.

    Raises PrerequisiteMissing where neither is there.
    """
    if Path(chosen).is_dir():
        return Path(chosen)
    if Path(chosen).is_absolute():
        raise PrerequisiteMissing(f"{chosen} is no folder", field=field)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(chosen, allow_patterns=list(FILES)))
        if any(folder.glob("*.safetensors")):
            return folder
        return Path(snapshot_download(chosen, allow_patterns=list(OLD_FILES)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        remedy = "download it elsewhere and name the folder"
        raise PrerequisiteMissing(f"{chosen} cannot be had: {error}", field=field, remedy=remedy) from error


def load_pickle(path: Path, allowed: Sequence[type | Callable[..., Any]] = ()) -> Any:
    """``torch.load`` of an untrusted file onto the CPU.

    Args:
        allowed: classes and functions that the format's files hold besides tensors and plain containers.
    Raises: StageFailed for a file that wants anything else, or cannot be read.
    """
    import torch

    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        fact = (
            f"cannot be loaded as weights alone: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        )
        raise StageFailed(fact, field=str(path), remedy="use the original file, or safetensors") from error

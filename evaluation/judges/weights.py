"""Weights of judges: found on disk or fetched from the hub; unpickled, where they must be, without running anything.

``torch.load`` with ``weights_only=True`` refuses every class that is not allowed by name. Each format allows the few
harmless ones that its files really hold, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from reca_core.contracts.errors import BadInput, PrerequisiteMissing, StageFailed

FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""What is fetched of a hub repository; code is not."""
NAMED = 5
"""Weights that an error names."""
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


def load_folder(kind: Any, folder: Path, field: str, unused: Sequence[str] = (), dtype: str = "float32") -> Any:
    """A transformers model with every weight from the folder's files; never code from it.

    Args:
        kind: the model class, or an Auto class.
        unused: weights that this use of the model never reads, which may be absent.
        dtype: a torch type's name, or auto for the one the weights are stored in.
    Raises: BadInput for a folder of another model, damaged files, and weights that would be filled in at random.
    """
    from safetensors import SafetensorError

    asked = {"dtype": dtype, "local_files_only": True, "output_loading_info": True, "trust_remote_code": False}
    faults = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError, UnpicklingError)
    try:
        model, report = kind.from_pretrained(folder, **asked)
    except (*faults, SafetensorError) as error:
        fact = f"{folder} is no model that {kind.__name__} can load: {_first_line(error)}"
        raise BadInput(fact, field=field) from error
    lacking = [name for name in report["missing_keys"] if name not in unused]
    lacking += [str(item[0]) for item in report["mismatched_keys"]]
    if lacking:
        named = ", ".join(lacking[:NAMED])
        raise BadInput(f"{folder} lacks {len(lacking)} weights of {kind.__name__}: {named}", field=field)
    return model.eval()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


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
    except (UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        fact = (
            f"cannot be loaded as weights alone: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        )
        raise StageFailed(fact, field=str(path), remedy="use the original file, or safetensors") from error

"""No loader of weights runs what a file wants to run: folders in transformers' layout with a pickle for weights."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.judges.colours import ColourClassifier
from evaluation.judges.detector_convert import build
from evaluation.judges.detector_mask2former import load as load_detector
from evaluation.judges.local_vlm import load as load_vlm
from reca_core.contracts.errors import RecaError
from reca_core.contracts.judging import JudgeSettings
from tests.evaluation.tiny_detector import TINY, random_state, tiny_clip
from tests.evaluation.tiny_vlm import llava

torch.set_num_threads(1)


class Malice:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.target}",)


def detector_folder(folder: Path) -> Path:
    build(random_state(), TINY).save_pretrained(folder)
    return folder


LOADERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "detector": (
        detector_folder,
        lambda folder: load_detector(JudgeSettings(judge="detector", weights=str(folder)), folder),
    ),
    "colours": (tiny_clip, lambda folder: ColourClassifier.open(str(folder), "cpu")),
    "local": (llava, lambda folder: load_vlm(folder, "cpu")),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("content", ["malice", "rubbish", "nothing"])
def test_a_pickle_that_wants_to_run_code_is_refused_and_runs_none(tmp_path: Path, loader: str, content: str) -> None:
    make, load = LOADERS[loader]
    folder = make(tmp_path / "weights")
    load(folder)
    (folder / "model.safetensors").unlink()
    pickled = folder / "pytorch_model.bin"
    if content == "malice":
        torch.save({"a": torch.zeros(1), "b": Malice(tmp_path / "ran")}, pickled)
    else:
        pickled.write_bytes(b"" if content == "nothing" else os.urandom(2000))
    with pytest.raises(RecaError):
        load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("model_type", ["its own", "as it was"])
def test_code_in_a_folder_is_not_run(tmp_path: Path, loader: str, model_type: str) -> None:
    make, load = LOADERS[loader]
    folder = make(tmp_path / "weights")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\nclass Config: pass\n")
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        if isinstance(content, dict) and path.name in ("config.json", "processor_config.json", "tokenizer_config.json"):
            named = dict.fromkeys(("AutoModelForImageTextToText", "AutoModel", "AutoProcessor"), "evil.Evil")
            content["auto_map"] = {**named, "AutoConfig": "evil.Config", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
            if model_type == "its own" and path.name == "config.json":
                content["model_type"] = "evil"
            path.write_text(json.dumps(content))
    with contextlib.suppress(RecaError):
        load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("damage", [b"", b"\x00" * 64, b'{"a": 1}'])
def test_damaged_safetensors_are_refused(tmp_path: Path, loader: str, damage: bytes) -> None:
    make, load = LOADERS[loader]
    folder = make(tmp_path / "weights")
    (folder / "model.safetensors").write_bytes(damage)
    with pytest.raises(RecaError):
        load(folder)


@pytest.mark.parametrize("loader", LOADERS)
def test_weights_that_lack_a_part_are_refused(tmp_path: Path, loader: str) -> None:
    """transformers would fill it with random numbers and only warn."""
    from safetensors.torch import load_file, save_file

    make, load = LOADERS[loader]
    folder = make(tmp_path / "weights")
    tensors = load_file(folder / "model.safetensors")
    left_out = next(name for name, value in sorted(tensors.items()) if name.endswith("weight") and value.dim() == 2)
    save_file({name: value for name, value in tensors.items() if name != left_out}, folder / "model.safetensors")
    with pytest.raises(RecaError, match="lack"):
        load(folder)

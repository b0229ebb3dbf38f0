"""Checkpoints between two layouts: bit-equal both ways, strict about every key, and nothing half-written.

Run over the registry with each family's smallest model, so a new family gets them with its registry line.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from reca_core.contracts.conversion import ConversionReport, ConvertRequest
from reca_core.contracts.errors import CheckpointRefused, RecaError
from reca_core.contracts.registry import FAMILIES
from reca_core.conversion.run import convert
from reca_core.models.load import adapter_class
from reca_core.models.published import WeightsFile, write_files
from tests.parity.golden_models import golden_root

CONVERTED = [name for name, entry in FAMILIES.items() if entry.conversion]
PICKLES = (".bin", ".pth", ".ckpt")
families = pytest.mark.parametrize("family", CONVERTED)
Convert = Callable[..., ConversionReport]


def run(
    family: str, source: Path, target: Path, layout: str, base: Path | None = None, **more: Any
) -> ConversionReport:
    """One conversion."""
    request = ConvertRequest(
        family=family,
        source=str(source),
        target=str(target),
        layout=layout,  # type: ignore[arg-type]
        base=str(base or ""),
        report="",
        **more,
    )
    return convert(request)


def weights_files(directory: Path) -> list[Path]:
    """Every file with weights, wherever it lies."""
    found = sorted(p for p in directory.rglob("*") if p.suffix in (*PICKLES, ".safetensors") and p.is_file())
    return [path for path in found if path.name not in ("inputs.safetensors", "expected.safetensors")]


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of one file."""
    if path.suffix == ".safetensors":
        return load_file(path)
    loaded = torch.load(path, weights_only=True)
    return loaded["model"] if set(loaded) == {"model"} else loaded


def replace(path: Path, state: dict[str, Tensor]) -> None:
    """The same file with other tensors."""
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
        return
    torch.save({"model": state} if path.suffix == ".ckpt" else state, path)


def tensors(directory: Path) -> dict[str, Tensor]:
    """All of them, by file and name."""
    files = {str(path.relative_to(directory)): read(path) for path in weights_files(directory)}
    return {f"{file}:{name}": tensor for file, state in files.items() for name, tensor in state.items()}


def held(directory: Path) -> dict[str, Tensor]:
    """The tensors of a model in our layout."""
    return load_file(directory / "model.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's smallest model in our layout and, beside it, in its authors'."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            place = tmp_path_factory.mktemp(family)
            adapter_class(family).smallest(seed=0).save(place / "ours")
            assert run(family, place / "ours", place / "theirs", "upstream").written
            made[family] = place
        return made[family]

    return make


@pytest.fixture
def theirs(smallest: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the authors' layout that may be damaged."""

    def copy(family: str) -> Path:
        shutil.copytree(smallest(family) / "theirs", tmp_path / "theirs")
        return tmp_path / "theirs"

    return copy


# ---- both ways -------------------------------------------------------------------------------------------------


@families
def test_ours_to_theirs_and_back_is_bit_equal_and_the_same_model(
    family: str, smallest: Callable[[str], Path], tmp_path: Path
) -> None:
    place = smallest(family)
    report = run(family, place / "theirs", tmp_path / "back", "reca")
    assert report.written
    assert report.clean()
    assert same(held(tmp_path / "back"), stored(place / "ours", tmp_path / "back"))
    again = adapter_class(family).load(tmp_path / "back").network.state_dict()
    assert same(dict(again), dict(adapter_class(family).load(place / "ours").network.state_dict()))


def stored(ours: Path, like: Path) -> dict[str, Tensor]:
    """What ``ours`` holds of the names in ``like``: a derived tensor may be stored or not."""
    state = held(ours)
    return {name: state[name] for name in held(like)}


@families
def test_theirs_to_ours_and_back_is_bit_equal(family: str, smallest: Callable[[str], Path], tmp_path: Path) -> None:
    theirs = smallest(family) / "theirs"
    assert run(family, theirs, tmp_path / "ours", "reca").written
    assert run(family, tmp_path / "ours", tmp_path / "theirs", "upstream").written
    assert same(tensors(tmp_path / "theirs"), tensors(theirs))


def recorded_sets() -> list[Any]:
    root = golden_root()
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return [pytest.param(path, id=path.name) for path in folders] or [pytest.param(root, id="absent")]


@pytest.mark.goldens
@pytest.mark.parametrize("recorded", recorded_sets())
def test_a_recorded_set_of_any_size_comes_back_bit_equal(recorded: Path, tmp_path: Path) -> None:
    import re

    family = re.split(r"[^a-z0-9]", recorded.name.lower())[0]
    assert run(family, recorded, tmp_path / "ours", "reca").written
    assert run(family, tmp_path / "ours", tmp_path / "back", "upstream").written
    assert same(tensors(tmp_path / "back"), tensors(recorded))


OWN_FILES = {"janus": "pytorch_model.bin", "showo": "pytorch_model.bin", "bagel": "ema.safetensors"}
OWN_PARTS = {"harmon": {"vae": "kl16.ckpt"}, "bagel": {"vae": "ae.safetensors"}}


@pytest.mark.goldens
@pytest.mark.parametrize("recorded", recorded_sets())
def test_a_recorded_set_in_its_family_s_own_files_comes_back_in_them(recorded: Path, tmp_path: Path) -> None:
    import re

    family = re.split(r"[^a-z0-9]", recorded.name.lower())[0]
    names = OWN_PARTS.get(family, {}) | {"weights": OWN_FILES.get(family, f"{family}.pth")}
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(recorded / "config.json", own)
    for file in weights_files(recorded):
        replace(own / names.get(file.stem, file.name), read(file))
    assert run(family, own, tmp_path / "ours", "reca").written
    assert run(family, tmp_path / "ours", tmp_path / "back", "upstream").written
    assert same(tensors(tmp_path / "back"), tensors(own))
    shutil.copy(recorded / "weights.safetensors", own)
    replace(own / "named.pth", {"other": torch.zeros(1)})
    assert run(family, own / "named.pth", tmp_path / "named", "reca").unexpected == ["other"]


@families
@pytest.mark.parametrize("layout", ["ours", "theirs"])
def test_a_moving_average_that_is_not_there_is_refused(
    family: str, layout: str, smallest: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(RecaError, match="moving average"):
        run(family, smallest(family) / layout, tmp_path / "out", "reca", weights="ema")


@pytest.mark.parametrize("file", ["model.safetensors", "model.safetensors.index.json", "harmon.pth"])
def test_a_head_that_is_the_word_embeddings_is_written_beside_them(file: str, tmp_path: Path) -> None:
    words = torch.randn(6, 4)
    state = {"words": words, "head": words, "rows": words[2:]}
    write_files(tmp_path, [WeightsFile(file)], state)
    (written,) = weights_files(tmp_path)
    assert same(read(written), state)


@families
def test_half_precision_stays_half_precision(family: str, theirs: Callable[[str], Path], tmp_path: Path) -> None:
    directory = theirs(family)
    for file in weights_files(directory):
        replace(file, {n: t.bfloat16() if t.is_floating_point() else t for n, t in read(file).items()})
    assert run(family, directory, tmp_path / "ours", "reca").written
    kinds = {tensor.dtype for tensor in held(tmp_path / "ours").values()}
    assert kinds == {torch.bfloat16}
    assert run(family, tmp_path / "ours", tmp_path / "back", "upstream").written
    assert same(tensors(tmp_path / "back"), tensors(directory))


# ---- what does not fit -----------------------------------------------------------------------------------------


@families
@pytest.mark.parametrize("damage", ["missing", "unexpected", "mismatched_shape", "renamed", "whole numbers"])
def test_damage_in_any_file_is_reported_by_name_and_nothing_is_written(
    family: str, damage: str, theirs: Callable[[str], Path], tmp_path: Path
) -> None:
    directory = theirs(family)
    for number, file in enumerate(weights_files(directory)):
        whole = read(file)
        name = next(n for n, t in whole.items() if t.dim() > 1 and len(set(t.shape)) > 1 and "quantize" not in n)
        tensor = whole[name]
        rest = {other: held for other, held in whole.items() if other != name}
        changed = {
            "missing": rest,
            "unexpected": {**whole, f"{name}_": tensor.clone()},
            "mismatched_shape": {
                **rest,
                name: tensor.transpose(0, 1) if tensor.shape[0] != tensor.shape[1] else tensor[:1],
            },
            "renamed": {**rest, f"{name}_": tensor},
            "whole numbers": {**rest, name: tensor.to(torch.int32)},
        }[damage]
        replace(file, changed)
        target = tmp_path / f"out{number}"
        report = run(family, directory, target, "reca")
        assert not report.written
        assert not target.exists()
        assert (name in report.missing) == (damage in ("missing", "renamed"))
        assert (f"{name}_" in report.unexpected) == (damage in ("unexpected", "renamed"))
        assert (name in report.mismatched_shape) == (damage in ("mismatched_shape", "whole numbers"))
        replace(file, whole)
    assert not list(tmp_path.glob(".*"))


def changed_sizes(value: Any, name: str, size: object) -> Any:
    """Settings with every entry of this name, at any depth, made another."""
    if isinstance(value, dict):
        return {key: size if key == name else changed_sizes(held, name, size) for key, held in value.items()}
    return value


@families
@pytest.mark.parametrize(("name", "size"), [("hidden_size", "many"), ("num_attention_heads", 0)])
def test_sizes_of_no_network_are_refused_and_no_traceback(
    family: str, name: str, size: object, smallest: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(smallest(family) / "ours", tmp_path / "ours")
    config = tmp_path / "ours" / "config.json"
    config.write_text(json.dumps(changed_sizes(json.loads(config.read_text()), name, size)))
    with pytest.raises(CheckpointRefused):
        run(family, tmp_path / "ours", tmp_path / "out", "upstream")


def test_heads_that_do_not_share_a_width_are_refused(smallest: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(smallest("harmon") / "ours", tmp_path / "ours")
    config = tmp_path / "ours" / "config.json"
    config.write_text(json.dumps(changed_sizes(json.loads(config.read_text()), "encoder_heads", 5)))
    with pytest.raises(CheckpointRefused, match="5 heads cannot share a width of"):
        run("harmon", tmp_path / "ours", tmp_path / "out", "upstream")


@families
def test_damage_in_ours_is_reported_by_name(family: str, smallest: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(smallest(family) / "ours", tmp_path / "ours")
    file = tmp_path / "ours" / "model.safetensors"
    whole = load_file(file)
    name = next(n for n, t in whole.items() if t.dim() == 1)
    save_file({n: t for n, t in whole.items() if n != name}, file, metadata={"format": "pt"})
    report = run(family, tmp_path / "ours", tmp_path / "out", "upstream")
    assert report.missing == [name]
    assert not (tmp_path / "out").exists()


# ---- our own directory -----------------------------------------------------------------------------------------


@families
def test_large_checkpoints_are_sharded_and_never_mixed_with_an_older_file(
    family: str, smallest: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapter_class(family).load(smallest(family) / "ours")
    model.save(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    with torch.no_grad():
        next(model.network.parameters()).add_(1)
    monkeypatch.setattr("reca_core.models.directory.SHARD_BYTES", 60_000)
    model.save(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert not (tmp_path / "model.safetensors").exists()
    again = adapter_class(family).load(tmp_path)
    assert same(dict(again.network.state_dict()), dict(model.network.state_dict()))
    report = run(family, tmp_path, tmp_path / "theirs", "upstream")
    assert report.written
    monkeypatch.undo()
    model.save(tmp_path)
    assert not list(tmp_path.glob("model-*"))

"""Sampling in bfloat16: autocast with half the memory for matrices, and the image tokenizer as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from reca_core import sampling
from reca_core.contracts.hashing import request_hash
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.registry import FAMILIES
from reca_core.models.load import adapter_class, load_adapter
from reca_core.models.state import MATRICES
from reca_core.models.unified import AnswersInText, DrawRequest, EditRequest, EditsImages, RedrawRequest, UnifiedModel
from tests.reca_core.test_models_contract import SETTINGS, pictures
from tests.reca_core.test_sampling import prompts, request, rows

Loaded = Callable[[str], UnifiedModel]


@pytest.fixture(params=list(FAMILIES))
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Loaded:
    """A family's smallest model, read from its directory in either precision."""
    adapter_class(request.param).smallest(seed=0).save(tmp_path)
    model = ResolvedModel(name="tiny", family=request.param, path=str(tmp_path), sha256="")
    return lambda precision: load_adapter(model, precision=precision)


def matrices(adapter: UnifiedModel) -> dict[str, nn.Module]:
    """A text head that is the word embeddings is none: looking words up is not multiplying."""
    modules = dict(adapter.network.named_modules())
    words = {id(module.weight) for module in modules.values() if isinstance(module, nn.Embedding)}
    return {name: m for name, m in modules.items() if isinstance(m, MATRICES) and id(m.weight) not in words}


def test_matrices_are_halved_and_nothing_else(loaded: Loaded) -> None:
    half = loaded("bfloat16")
    tokenizer = f"{half.image_tokenizer}."
    types = {name: {p.dtype for p in module.parameters()} for name, module in matrices(half).items()}
    assert any(name.startswith(tokenizer) for name in types)
    for name, found in types.items():
        assert found == {torch.float32 if name.startswith(tokenizer) else torch.bfloat16}, name
    in_matrices = {id(parameter) for module in matrices(half).values() for parameter in module.parameters()}
    others = [parameter for parameter in half.network.parameters() if id(parameter) not in in_matrices]
    assert {parameter.dtype for parameter in others} == {torch.float32}


def test_what_is_drawn_and_said_is_what_autocast_alone_would(loaded: Loaded) -> None:
    whole, half = made(loaded("float32")), made(loaded("bfloat16"))
    assert whole.keys() == half.keys()
    for task, results in whole.items():
        assert results == half[task], task


@torch.no_grad()
def made(adapter: UnifiedModel) -> dict[str, list[Any]]:
    """Everything that the family can make, under autocast."""
    shown, template = pictures(2), adapter.templates[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found: dict[str, list[Any]] = {
            "draw": plain(list(adapter.generate([DrawRequest(template, seed) for seed in range(2)], SETTINGS))),
            "reconstruct": plain(
                list(adapter.reconstruct([RedrawRequest(picture, 0, template) for picture in shown], SETTINGS))
            ),
            "view": plain(list(adapter.understanding_view(shown))),
        }
        if isinstance(adapter, AnswersInText):
            found["describe"] = adapter.describe(shown, [template] * 2, SETTINGS)
        if isinstance(adapter, EditsImages):
            found["edit"] = plain(list(adapter.edit([EditRequest(each, template, 0) for each in shown], SETTINGS)))
    return found


def plain(drawn: list[Image.Image]) -> list[tuple[tuple[int, int], bytes]]:
    return [(picture.size, picture.tobytes()) for picture in drawn]


def test_the_precision_is_part_of_a_samplings_identity_where_it_is_not_the_old_one(tmp_path: Path) -> None:
    whole, half = (request(tmp_path, prompts(), precision=precision) for precision in ("float32", "bfloat16"))
    assert request_hash(whole) == request_hash(request(tmp_path, prompts()))
    assert request_hash(whole) != request_hash(half)


def test_a_sampling_is_made_in_the_precision_that_was_asked_for(tmp_path: Path) -> None:
    seen: list[bool] = []
    asked = request(tmp_path, prompts(), output="half", precision="bfloat16")

    class Watched(sampling.Maker):
        def __init__(self, adapter: UnifiedModel, given: Any) -> None:
            super().__init__(adapter, given)
            weights = {parameter.dtype for module in matrices(adapter).values() for parameter in module.parameters()}
            seen.append(torch.bfloat16 in weights and torch.is_autocast_enabled("cpu") is False)

        def make(self, jobs: Any, sources: Any) -> Any:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().make(jobs, sources)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "Maker", Watched)
        sampling.main(asked)
    assert seen == [True, True]
    assert len(rows(tmp_path / "half")) == 6
    assert not torch.is_autocast_enabled("cpu")

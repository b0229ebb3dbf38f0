"""mmdetection's file becomes transformers' network with every weight in its place; any other file is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.judges.detector_convert import (
    PUBLISHED,
    build,
    check,
    configuration,
    convert,
    load_original,
    renamed,
    shapes,
)
from reca_core.contracts.errors import CheckpointRefused, StageFailed
from tests.evaluation.tiny_detector import TINY, random_state

torch.set_num_threads(1)
State = dict[str, Any]
SWIN = "model.pixel_level_module.encoder."
DECODER = "model.transformer_module.decoder."


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(seed=1)


@pytest.fixture(scope="module")
def model(state: State) -> Any:
    return build(state, TINY).eval()


def test_the_published_sizes_fit_transformers_network_without_rest() -> None:
    """Checked on names and shapes alone, for all 649 entries."""
    from transformers import Mask2FormerForUniversalSegmentation

    with torch.device("meta"):
        network = Mask2FormerForUniversalSegmentation(configuration())
        found = convert_shapes()
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    unused = {"criterion.empty_weight", f"{SWIN}swin.layernorm.weight", f"{SWIN}swin.layernorm.bias"}
    assert found == {name: shape for name, shape in expected.items() if name not in unused}
    assert len(shapes()) == 649


def convert_shapes() -> dict[str, tuple[int, ...]]:
    from evaluation.judges import detector_convert

    original = detector_convert.check
    detector_convert.check = lambda state, layout: None  # type: ignore[assignment]  # meta tensors have no values
    try:
        empty = {key: torch.empty(shape) for key, shape in shapes(PUBLISHED).items()}
        return {name: tuple(value.shape) for name, value in convert(empty).items()}
    finally:
        detector_convert.check = original


def test_no_two_weights_get_one_name() -> None:
    keys = [key for key in shapes() if not key.endswith("relative_position_index")]
    assert len({renamed(key) for key in keys}) == len(keys)


def test_every_weight_is_used(state: State, model: Any) -> None:
    """The sum of all values survives renaming, splitting and reordering."""
    floats = [value for value in state.values() if value.is_floating_point()]
    given = sum(float(value.double().sum()) for value in floats)
    taken = sum(float(value.double().sum()) for value in convert(state, TINY).values())
    assert taken == pytest.approx(given, rel=1e-9)
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in convert(state, TINY).items())


# --- the same arithmetic, written once more from mmdetection's definitions --------------------------------------------


def norm(x: Tensor, state: State, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def window_attention(x: Tensor, state: State, name: str, heads: int, window: int, mask: Tensor | None) -> Tensor:
    """x: [windows, tokens, width]. The bias of a pair depends on how far the two lie apart, row and column."""
    queries, keys, values = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in linear(x, state, f"{name}.qkv").chunk(3, -1)
    )
    weights = queries * queries.shape[-1] ** -0.5 @ keys.transpose(-1, -2)
    places = [(row, column) for row in range(window) for column in range(window)]
    span = 2 * window - 1
    index = [[(a - c + window - 1) * span + b - d + window - 1 for c, d in places] for a, b in places]
    weights = weights + state[f"{name}.relative_position_bias_table"][torch.tensor(index)].permute(2, 0, 1)
    if mask is not None:
        weights = weights + mask[:, None]
    return linear((weights.softmax(-1) @ values).transpose(1, 2).flatten(2), state, f"{name}.proj")


def attended(x: Tensor, state: State, name: str, heads: int, window: int, shift: int) -> Tensor:
    """x: [height, width, channels], both multiples of the window. Shifted windows do not mix what the shift joined."""
    height, width, _ = x.shape
    rolled = torch.roll(x, (-shift, -shift), (0, 1)) if shift else x
    mask = None
    if shift:
        rows, columns = ([(0, n - window), (n - window, n - shift), (n - shift, n)] for n in (height, width))
        region = torch.zeros(height, width)
        for number, (row, column) in enumerate((r, c) for r in rows for c in columns):
            region[row[0] : row[1], column[0] : column[1]] = number
        apart = windows_of(region[..., None], window)[..., 0]
        mask = (apart[:, None, :] != apart[:, :, None]).float() * -100.0
    found = window_attention(windows_of(rolled, window), state, name, heads, window, mask)
    back = found.unflatten(0, (height // window, width // window)).unflatten(2, (window, window))
    joined = back.permute(0, 2, 1, 3, 4).reshape(height, width, -1)
    return torch.roll(joined, (shift, shift), (0, 1)) if shift else joined


def windows_of(x: Tensor, window: int) -> Tensor:
    height, width, channels = x.shape
    parts = x.reshape(height // window, window, width // window, window, channels)
    return parts.permute(0, 2, 1, 3, 4).reshape(-1, window * window, channels)


def swin(picture: Tensor, state: State) -> list[Tensor]:
    """Feature maps [channels, height, width] of the four stages."""
    patches = F.conv2d(
        picture[None], *(state[f"backbone.patch_embed.projection.{p}"] for p in ("weight", "bias")), stride=4
    )
    x = norm(patches[0].permute(1, 2, 0), state, "backbone.patch_embed.norm")
    outputs = []
    for stage, depth in enumerate(TINY.depths):
        for block in range(depth):
            name = f"backbone.stages.{stage}.blocks.{block}"
            shift = TINY.window // 2 if block % 2 and min(x.shape[:2]) > TINY.window else 0
            before = norm(x, state, f"{name}.norm1")
            padded = F.pad(before, (0, 0, 0, -before.shape[1] % TINY.window, 0, -before.shape[0] % TINY.window))
            seen = attended(padded, state, f"{name}.attn.w_msa", TINY.heads[stage], TINY.window, shift)
            x = x + seen[: x.shape[0], : x.shape[1]]
            inner = F.gelu(linear(norm(x, state, f"{name}.norm2"), state, f"{name}.ffn.layers.0.0"))
            x = x + linear(inner, state, f"{name}.ffn.layers.1")
        outputs.append(norm(x, state, f"backbone.norm{stage}").permute(2, 0, 1))
        if stage < len(TINY.depths) - 1:
            name = f"backbone.stages.{stage}.downsample"
            size = (x.shape[0] // 2, x.shape[1] // 2)
            unfolded = F.unfold(x.permute(2, 0, 1)[None], kernel_size=2, stride=2)[0].T
            merged = norm(unfolded, state, f"{name}.norm") @ state[f"{name}.reduction.weight"].T
            x = merged.unflatten(0, size)
    return outputs


def test_the_backbone_computes_what_mmdetections_does(state: State, model: Any) -> None:
    """On 224 x 448 pixels every stage has whole windows: attention, shifts, merging and norms meet value by value."""
    picture = torch.randn(3, 224, 448, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = swin(picture, state)
        found = model.model.pixel_level_module.encoder(picture[None]).feature_maps
    assert len(found) == len(expected) == 4
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours[0], theirs, atol=1e-5), float((ours[0] - theirs).abs().max())


@pytest.mark.parametrize(("attention", "name"), [(0, "cross_attn"), (1, "self_attn")])
def test_decoder_attention_computes_what_a_joint_projection_does(
    state: State, model: Any, attention: int, name: str
) -> None:
    root = f"panoptic_head.transformer_decoder.layers.1.attentions.{attention}.attn"
    reference = torch.nn.MultiheadAttention(TINY.width, TINY.attention_heads)
    reference.load_state_dict({part: state[f"{root}.{part}"] for part in reference.state_dict()})
    queries = torch.randn(5, 1, TINY.width, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected, _ = reference(queries, queries, queries)
        module = getattr(model.model.transformer_module.decoder.layers[1], name)
        nowhere = torch.zeros_like(queries)
        found = (
            module(queries, queries, queries)[0]
            if name == "cross_attn"
            else module(hidden_states=queries, position_embeddings=nowhere)[0]
        )
    assert torch.allclose(found, expected, atol=1e-5)


# --- defects ----------------------------------------------------------------------------------------------------------


def without(key: str) -> Callable[[State], State]:
    return lambda state: {name: value for name, value in state.items() if name != key}


def replaced(key: str, value: Any) -> Callable[[State], State]:
    return lambda state: {**state, key: value}


QUERIES = "panoptic_head.query_feat.weight"
DEFECTS: dict[str, tuple[Callable[[State], State], str]] = {
    "a weight missing": (without(QUERIES), f"1 missing: {QUERIES}"),
    "all missing": (lambda state: {}, "missing: backbone.patch_embed"),
    "a weight too many": (replaced("roi_head.bbox", torch.zeros(1)), "1 unexpected: roi_head.bbox"),
    "a prefix": (lambda state: {f"module.{key}": value for key, value in state.items()}, "unexpected: module."),
    "another size": (replaced(QUERIES, torch.zeros(7, TINY.width)), "of another shape: panoptic_head.query_feat"),
    "transposed": (
        replaced("panoptic_head.cls_embed.weight", torch.zeros(TINY.width, TINY.classes + 1)),
        "of another shape: panoptic_head.cls_embed",
    ),
    "panoptic classes": (replaced("panoptic_head.cls_embed.bias", torch.zeros(134)), "of another shape"),
    "NaN": (replaced(QUERIES, torch.full((TINY.queries, TINY.width), torch.nan)), "not finite"),
    "infinity": (replaced(QUERIES, torch.full((TINY.queries, TINY.width), torch.inf)), "not finite"),
    "no tensor": (replaced(QUERIES, "weights"), "of another shape"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_named(state: State, defect: str) -> None:
    change, said = DEFECTS[defect]
    with pytest.raises(CheckpointRefused) as error:
        build(change(state), TINY)
    assert said in str(error.value)


@pytest.mark.parametrize("key", [key for key in shapes(TINY) if "layers.1" not in key][::7])
def test_any_missing_key_is_noticed(state: State, key: str) -> None:
    with pytest.raises(CheckpointRefused, match="1 missing"):
        check(without(key)(state), TINY)


def saved(folder: Path, content: Any) -> Path:
    path = folder / "file.pth"
    torch.save(content, path)
    return path


def test_a_file_with_mmcvs_notes_is_loaded(tmp_path: Path, state: State) -> None:
    meta = {
        "mmdet_version": "2.25.0",
        "CLASSES": ("person", "bicycle"),
        "PALETTE": [(220, 20, 60)],
        "epoch": np.int64(50),
        "best": np.float64(0.5),
        "lr": np.array([1e-4, 1e-5]),
    }
    loaded = load_original(saved(tmp_path, {"meta": meta, "state_dict": state}), TINY)
    assert torch.equal(loaded.class_predictor.bias, state["panoptic_head.cls_embed.bias"])


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"state_dict": [1]}, [1], torch.zeros(1)])
def test_a_file_without_weights_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(CheckpointRefused, match="state_dict"):
        load_original(saved(tmp_path, content), TINY)


class Malice:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.target}",)


def test_a_file_that_wants_to_run_code_runs_none(tmp_path: Path, state: State) -> None:
    path = saved(tmp_path, {"meta": {"hook": Malice(tmp_path / "ran")}, "state_dict": state})
    with pytest.raises(StageFailed, match="weights alone"):
        load_original(path, TINY)
    assert not (tmp_path / "ran").exists()

"""BAGEL's mixture of transformers: every layer has two sets of weights, chosen per token, and one joint attention.

Text and ViT tokens use the base weights, VAE tokens the ``_moe_gen`` twins; queries and keys are RMS-normalised per
head before the rotary embedding; queries, keys and values have biases (arXiv 2505.14683, section 3.1). The rest is
Qwen2, whose norm, MLP and rotary are transformers' own. Attention is dense scaled dot product with an explicit mask,
per sample: the reference path, which runs on any device. Flex attention computes the same under the same masks and
leaves out the blocks that are hidden; an option on a GPU (training.attention).

Shapes: S tokens of all samples in a row, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Literal, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP, Qwen2RMSNorm, Qwen2RotaryEmbedding, apply_rotary_pos_emb

Rows = Float[Tensor, "tokens width"]
AttentionKind = Literal["dense", "flex"]


@dataclass
class Memory:
    """Keys and values of the context of one sample, per layer [tokens, heads, head_dim]."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens remembered."""
        return len(self.keys[0]) if self.keys else 0

    def copy(self) -> Memory:
        """A context that grows on its own from here; tensors are shared, they never change in place."""
        return Memory(list(self.keys), list(self.values))


@dataclass(frozen=True)
class Routing:
    """Which tokens use the generation experts, and who sees whom.

    ``frozen_understanding`` detaches everything that understanding tokens compute, so that no gradient passes through
    them: the published RecA training mode. The forward result is the same.
    """

    generation: Bool[Tensor, " tokens"]
    masks: Sequence[Bool[Tensor, "queries keys"]]
    frozen_understanding: bool = False

    @cached_property
    def blocks(self) -> list[BlockMask]:
        """The masks as flex attention wants them; made once for all layers."""
        return [block_mask_of(mask) for mask in self.masks]

    def apply(self, x: Tensor, understand: Callable[[Tensor], Tensor], generate: Callable[[Tensor], Tensor]) -> Tensor:
        """Each row through its own expert."""
        chosen = self.generation.nonzero()[:, 0]
        others = (~self.generation).nonzero()[:, 0]
        base = understand(x[others])
        base = base.detach() if self.frozen_understanding else base
        made = generate(x[chosen])
        order = torch.cat([others, chosen]).argsort()
        return torch.cat([base, made])[order]


class Attention(nn.Module):
    """Joint attention of both experts' tokens."""

    kind: AttentionKind = "dense"

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.key_heads = config.num_key_value_heads or config.num_attention_heads
        width = config.hidden_size
        self.head_dim = width // self.heads
        for suffix in ("", "_moe_gen"):
            self.add_module(f"q_proj{suffix}", nn.Linear(width, self.heads * self.head_dim))
            self.add_module(f"k_proj{suffix}", nn.Linear(width, self.key_heads * self.head_dim))
            self.add_module(f"v_proj{suffix}", nn.Linear(width, self.key_heads * self.head_dim))
            self.add_module(f"o_proj{suffix}", nn.Linear(self.heads * self.head_dim, width, bias=False))
            self.add_module(f"q_norm{suffix}", Qwen2RMSNorm(self.head_dim, eps=config.rms_norm_eps))
            self.add_module(f"k_norm{suffix}", Qwen2RMSNorm(self.head_dim, eps=config.rms_norm_eps))

    def _projected(
        self, x: Rows, name: str, routing: Routing, norm: str = ""
    ) -> Float[Tensor, "tokens heads head_dim"]:
        def expert(suffix: str) -> Callable[[Tensor], Tensor]:
            linear = self.get_submodule(f"{name}_proj{suffix}")
            normalise = self.get_submodule(f"{norm}{suffix}") if norm else nn.Identity()
            return lambda rows: normalise(rearrange(linear(rows), "s (h d) -> s h d", d=self.head_dim))

        return routing.apply(x, expert(""), expert("_moe_gen"))

    def forward(
        self, x: Rows, angles: tuple[Tensor, Tensor], routing: Routing, memory: tuple[Tensor, Tensor] | None
    ) -> tuple[Rows, Tensor, Tensor]:
        """Attended rows, and the keys and values of the context with these rows (single sample with memory)."""
        query = self._projected(x, "q", routing, "q_norm")
        key = self._projected(x, "k", routing, "k_norm")
        value = self._projected(x, "v", routing)
        turned = apply_rotary_pos_emb(query[None], key[None], *angles, unsqueeze_dim=2)
        query, key = turned[0][0], turned[1][0]
        if memory is not None:
            key, value = torch.cat([memory[0], key]), torch.cat([memory[1], value])
            mixed = [attend(query, key, value, routing.masks[0])]
        else:
            lengths, flex = [len(mask) for mask in routing.masks], self.kind == "flex"
            masks: Sequence[Tensor | BlockMask] = routing.blocks if flex else routing.masks
            parts = zip(query.split(lengths), key.split(lengths), value.split(lengths), masks, strict=True)
            mixed = [attend(*part) for part in parts]
        joined = rearrange(torch.cat(mixed), "s h d -> s (h d)")
        return routing.apply(joined, self.get_submodule("o_proj"), self.get_submodule("o_proj_moe_gen")), key, value


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | BlockMask
) -> Float[Tensor, "queries heads head_dim"]:
    """Grouped-query attention of one sample under a boolean mask [queries, keys], or the same mask in blocks."""
    q, k, v = (rearrange(part, "s h d -> 1 h s d") for part in (query, key, value))
    if isinstance(mask, Tensor):
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[None, None], enable_gqa=True)
    else:
        out = _flex(q.device.type)(q, k, v, block_mask=mask, enable_gqa=True)
    return rearrange(out, "1 h s d -> s h d")


def block_mask_of(mask: Bool[Tensor, "queries keys"]) -> BlockMask:
    """A dense mask in flex attention's blocks."""

    def visible(_: Tensor, __: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return mask[query, key]

    queries, keys = mask.shape
    return create_block_mask(visible, None, None, queries, keys, device=str(mask.device))


@cache
def _flex(device: str) -> Callable[..., Tensor]:
    """Compiled on a GPU, where that is the point of it; as it stands elsewhere, for tests."""
    if device == "cuda":
        return cast("Callable[..., Tensor]", torch.compile(flex_attention, dynamic=True))
    return cast("Callable[..., Tensor]", flex_attention)


class Layer(nn.Module):
    """Norm, attention, norm, MLP, each twice over."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        for suffix in ("", "_moe_gen"):
            self.add_module(f"mlp{suffix}", Qwen2MLP(config))
            for norm in ("input_layernorm", "post_attention_layernorm"):
                self.add_module(f"{norm}{suffix}", Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps))

    def _routed(self, name: str, x: Rows, routing: Routing) -> Rows:
        return routing.apply(x, self.get_submodule(name), self.get_submodule(f"{name}_moe_gen"))

    def forward(
        self, x: Rows, angles: tuple[Tensor, Tensor], routing: Routing, memory: tuple[Tensor, Tensor] | None
    ) -> tuple[Rows, Tensor, Tensor]:
        """Rows after the layer, and the layer's keys and values."""
        attended, key, value = self.self_attn(self._routed("input_layernorm", x, routing), angles, routing, memory)
        x = x + attended
        return x + self._routed("mlp", self._routed("post_attention_layernorm", x, routing), routing), key, value


class MixtureOfTransformers(nn.Module):
    """The stack, with its token embedding and two final norms."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.norm_moe_gen = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = Qwen2RotaryEmbedding(config)

    def forward(
        self, x: Rows, positions: Int[Tensor, " tokens"], routing: Routing, memory: Memory | None = None
    ) -> tuple[Rows, Memory]:
        """Hidden states [S, D] after the final norm, and the context including these tokens.

        With ``memory`` the rows continue one sample's context and ``routing.masks`` holds one mask [S, context + S].
        """
        angles = self.rotary_emb(x, positions[None])
        grown = Memory()
        if routing.frozen_understanding:
            x = torch.where(routing.generation[:, None], x, x.detach())
        for index, layer in enumerate(self.layers):
            past = (memory.keys[index], memory.values[index]) if memory is not None and memory.keys else None
            x, key, value = layer(x, angles, routing, past)
            grown.keys.append(key)
            grown.values.append(value)
        return routing.apply(x, self.norm, self.norm_moe_gen), grown

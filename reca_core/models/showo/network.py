"""Show-o's network: Phi over text and image ids, an optional CLIP tower with its projector, and the image tokenizer.

Phi is transformers' ``PhiForCausalLM`` with ``qk_layernorm`` (the original forces it) and a 4-D mask; CLIP is
transformers' ``CLIPVisionModel``. Image ids are ordinary vocabulary entries, so sequences are embedded in one go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, DynamicCache, PhiConfig, PhiForCausalLM

from reca_core.models.showo.magvit import Magvit, MagvitConfiguration
from reca_core.models.showo.sequence import SpecialIds
from reca_core.objectives.next_token import IGNORED

CLIP_LAYER = -2
"""Hidden states before CLIP's last block, class token left out (LLaVA's choice, kept by Show-o)."""


@dataclass(frozen=True)
class ShowoSizes:
    """What a network is built from. ``clip`` is None in the VQ variant."""

    language: PhiConfig
    tokenizer: MagvitConfiguration
    clip: CLIPVisionConfig | None = None

    @property
    def clip_side(self) -> int:
        """Pixels of CLIP's picture; 0 in the VQ variant."""
        clip: Any = self.clip
        return int(clip.image_size) if clip is not None else 0

    @property
    def clip_patches(self) -> int:
        """Patches of CLIP's picture; 0 in the VQ variant."""
        clip: Any = self.clip
        return int((clip.image_size // clip.patch_size) ** 2) if clip is not None else 0


class ShowoNetwork(nn.Module):
    """All parameters of a Show-o. ``clip`` and ``projector`` are None in the VQ variant."""

    language_model: Any  # transformers' classes are passed through untyped
    clip: Any

    def __init__(self, sizes: ShowoSizes) -> None:
        super().__init__()
        clip, width = sizes.clip, sizes.language.hidden_size
        self.sizes = sizes
        self.language_model = PhiForCausalLM(sizes.language)
        self.tokenizer = Magvit(sizes.tokenizer)
        self.clip = CLIPVisionModel(clip) if clip is not None else None
        self.projector = None
        if clip is not None:
            self.projector = nn.Sequential(nn.Linear(clip.hidden_size, width), nn.GELU(), nn.Linear(width, width))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        device: torch.device = self.language_model.device
        return device

    def clip_features(self, pixels: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch patches clip_width"]:
        """Patch features of pixels as CLIP wants them. Only of the CLIP variant."""
        states = self.clip(pixels, output_hidden_states=True).hidden_states
        features: Tensor = states[CLIP_LAYER][:, 1:]
        return features

    def look(self, pixels: Float[Tensor, "batch 3 height width"]) -> Shaped[Tensor, "batch ..."]:
        """What the frozen part says of the understanding side's pixels: CLIP's features, or codes in the VQ variant."""
        return self.codes(pixels) if self.clip is None else self.clip_features(pixels)

    def embed(
        self, ids: Int[Tensor, "batch length"], pictures: Float[Tensor, "shown rows width"] | None = None
    ) -> Float[Tensor, "batch length width"]:
        """Embeddings of ids; the IGNORED places, in order, are the pictures'."""
        here = ids == IGNORED
        embedded: Tensor = self.language_model.get_input_embeddings()(ids.masked_fill(here, 0))
        return embedded if pictures is None else embedded.masked_scatter(here[..., None], pictures.to(embedded.dtype))

    def states(
        self,
        embeddings: Float[Tensor, "batch length width"],
        may_attend: Bool[Tensor, "batch 1 length keys"],
        cache: DynamicCache | None = None,
    ) -> Float[Tensor, "batch length width"]:
        """Hidden states of the given positions, which follow those in ``cache``; padding counts as positions too."""
        seen = may_attend.shape[-1] - embeddings.shape[1]
        states: Tensor = self.language_model.model(
            inputs_embeds=embeddings,
            attention_mask=additive(may_attend, embeddings.dtype),
            position_ids=torch.arange(seen, may_attend.shape[-1], device=embeddings.device)[None],
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        return states

    def logits(self, states: Float[Tensor, "*positions width"]) -> Float[Tensor, "*positions vocabulary"]:
        """Logits of states over text, special tokens and image codes."""
        logits: Tensor = self.language_model.lm_head(states)
        return logits

    def code_logits(
        self, states: Float[Tensor, "*positions width"], special: SpecialIds
    ) -> Float[Tensor, "*positions codebook"]:
        """The same over the image codes alone, without computing the rest of a large vocabulary."""
        head, codes = self.language_model.lm_head, slice(special.image, special.mask)
        return F.linear(states, head.weight[codes], head.bias[codes])

    def codes(self, pixels: Float[Tensor, "batch 3 height width"]) -> Int[Tensor, "batch tokens"]:
        """Image codes of pixels in [-1, 1], row-major; float32 also under autocast, no gradient."""
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            return self.tokenizer.encode(pixels.float())

    def pixels(self, codes: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch 3 height width"]:
        """Pictures of codes on a square grid, about [-1, 1], not clamped."""
        with torch.no_grad(), torch.autocast(codes.device.type, enabled=False):
            return self.tokenizer.decode(codes, int(codes.shape[1] ** 0.5))


def additive(
    may_attend: Shaped[Tensor, "batch 1 queries keys"], dtype: torch.dtype
) -> Float[Tensor, "batch 1 queries keys"]:
    """0 where attention is allowed, else the lowest finite number, so a row that sees nothing is not NaN."""
    blocked = torch.zeros(may_attend.shape, dtype=dtype, device=may_attend.device)
    return blocked.masked_fill(~may_attend, torch.finfo(dtype).min)

"""Show-o's network: Phi over text and image ids, an optional CLIP tower with its projector, and the image tokenizer.

Phi is transformers' ``PhiForCausalLM`` with ``qk_layernorm`` (the original forces it) and a 4-D mask; CLIP is
transformers' ``CLIPVisionModel``. Image ids are ordinary vocabulary entries, so sequences are embedded in one go.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, PhiConfig, PhiForCausalLM

from reca_core.models.showo.magvit import Magvit, MagvitConfiguration
from reca_core.objectives.next_token import IGNORED

CLIP_LAYER = -2
"""Hidden states before CLIP's last block, class token left out (LLaVA's choice, kept by Show-o)."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ShowoNetwork(nn.Module):
    """All parameters of a Show-o. ``clip`` and ``projector`` are None in the VQ variant."""

    def __init__(self, phi: PhiConfig, magvit: MagvitConfiguration, clip: CLIPVisionConfig | None = None) -> None:
        super().__init__()
        self.language_model = PhiForCausalLM(phi)
        self.tokenizer = Magvit(magvit)
        self.clip = CLIPVisionModel(clip) if clip is not None else None
        self.projector = None
        if clip is not None:
            width = phi.hidden_size
            self.projector = nn.Sequential(nn.Linear(clip.hidden_size, width), nn.GELU(), nn.Linear(width, width))

    def clip_pixels(
        self, target: Float[Tensor, "batch 3 height width"], *, upstream_parity: bool = False
    ) -> Float[Tensor, "batch 3 size size"]:
        """The training tensor [-1, 1] resized for CLIP and normalised with CLIP's own mean and std.

        The original's RecA branch feeds the [-1, 1] tensor unnormalised, so what CLIP sees while training differs from
        what it sees when asked; ``upstream_parity`` reproduces that.
        """
        assert self.clip is not None  # callers choose the variant
        side: int = self.clip.config.image_size  # type: ignore[assignment]
        small = F.interpolate(target, size=(side, side), mode="bilinear", align_corners=False)
        if upstream_parity:
            return small
        mean, std = (torch.tensor(values, device=small.device)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        return ((small + 1) / 2 - mean) / std

    @torch.no_grad()
    def clip_features(self, pixels: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch patches clip_width"]:
        """Frozen patch features."""
        assert self.clip is not None  # callers choose the variant
        states = self.clip(pixels, output_hidden_states=True).hidden_states
        features: Tensor = states[CLIP_LAYER][:, 1:]
        return features

    def embed(
        self, ids: Int[Tensor, "batch length"], pictures: Float[Tensor, "batch patches width"] | None = None
    ) -> Float[Tensor, "batch length width"]:
        """Embeddings of ids; the IGNORED places, in order, are the picture's."""
        here = ids == IGNORED
        embedded: Tensor = self.language_model.get_input_embeddings()(ids.masked_fill(here, 0))
        return embedded if pictures is None else embedded.masked_scatter(here[..., None], pictures.to(embedded.dtype))

    def logits(
        self, embeddings: Float[Tensor, "batch length width"], may_attend: Bool[Tensor, "batch 1 length length"]
    ) -> Float[Tensor, "batch length vocabulary"]:
        """Logits at every position; positions are 0 .. L-1, padding included."""
        positions = torch.arange(embeddings.shape[1], device=embeddings.device)[None]
        output = self.language_model(
            inputs_embeds=embeddings,
            attention_mask=additive(may_attend, embeddings.dtype),
            position_ids=positions,
            use_cache=False,
        )
        logits: Tensor = output.logits
        return logits


def additive(
    may_attend: Bool[Tensor, "batch 1 queries keys"], dtype: torch.dtype
) -> Float[Tensor, "batch 1 queries keys"]:
    """0 where attention is allowed, else the lowest finite number, so a row that sees nothing is not NaN."""
    blocked = torch.zeros(may_attend.shape, dtype=dtype, device=may_attend.device)
    return blocked.masked_fill(~may_attend, torch.finfo(dtype).min)

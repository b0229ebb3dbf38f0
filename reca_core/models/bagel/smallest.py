"""The smallest BAGEL that has every part, with random weights: pictures of 16 to 24 pixels, 4-pixel tokens.

For checking code, not for looking at: contract tests, dry runs and examples build it in milliseconds.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen2Config, SiglipVisionConfig

from reca_core.models.bagel.configuration import BagelConfiguration, Bounds, DrawingPlan, PicturePlan
from reca_core.models.bagel.network import BagelNetwork, BagelSizes
from reca_core.models.bagel.sequence import SPECIAL_NAMES

WORDS = (
    *("a", "red", "green", "blue", "yellow", "circle", "square", "triangle", "and", "on", "left", "right", "of"),
    *("above", "below", "what", "is", "this", "picture", "how", "many", "colour", "are", "there", "the", "draw"),
    *("describe", "it", "?", ".", ",", "one", "two", "three", "four", "make"),
)
STRUCTURAL = ("<|endoftext|>", *SPECIAL_NAMES.values())
TEMPLATES = ("what is this picture ?", "describe the picture .", "draw it", "how many and what colour are there ?")
WIDTH, PATCH_PIXELS, PER_SIDE = 32, 4, 8
SPREAD = 0.2
"""Of the initial weights: wide enough that every part has a visible effect on the output."""
PICTURES = PicturePlan(target=Bounds(16, 24), understanding=Bounds(16, 16), questions=Bounds(16, 24), drawn_side=16)


def smallest_configuration(vocabulary: int) -> BagelConfiguration:
    """Two layers of both experts, one ViT layer, an autoencoder of two levels, latents in patches of 2x2."""
    autoencoder: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (32, 32),
        "layers_per_block": 1,
        "latent_channels": 4,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
    }
    heads: dict[str, Any] = {"num_attention_heads": 2, "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH}
    sizes = BagelSizes(
        language=Qwen2Config(
            vocab_size=vocabulary,
            num_hidden_layers=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=False,
            **heads,
        ),
        vision=SiglipVisionConfig(
            num_hidden_layers=1, image_size=PER_SIDE * PATCH_PIXELS, patch_size=PATCH_PIXELS, **heads
        ),
        autoencoder=autoencoder,
        latent_channels=4,
        vae_downsampling=2,
        latent_patch=2,
        latent_per_side=PER_SIDE,
        vit_per_side=PER_SIDE,
    )
    return BagelConfiguration(sizes, PICTURES, DrawingPlan(times=4))


def random_network(sizes: BagelSizes) -> BagelNetwork:
    """Random weights from torch's global generator; embeddings and text head no wider than the matrices."""
    network = BagelNetwork(sizes)
    with torch.no_grad():
        for table in (network.language_model.model.embed_tokens, network.vit_model.vision_model.embeddings):
            for parameter in table.parameters():
                parameter.normal_(std=SPREAD)
    return network

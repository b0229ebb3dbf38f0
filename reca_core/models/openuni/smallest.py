"""The smallest OpenUni that has every part, with random weights: 32x32 pixels, 8x8 latents, 4 queries.

For checking code, not for looking at: contract tests, dry runs and examples build it in milliseconds.
"""

from __future__ import annotations

import torch
from transformers import InternVLConfig, InternVLVisionConfig, Qwen2Config, SiglipVisionConfig

from reca_core.models.openuni import chat
from reca_core.models.openuni.configuration import DrawingPlan, OpenUniConfiguration
from reca_core.models.openuni.network import OpenUniNetwork, OpenUniSizes

END = "<|endoftext|>"
STRUCTURAL = (END, *chat.STRUCTURAL)
WORDS = (
    *("a", "red", "green", "blue", "yellow", "circle", "square", "triangle", "and", "on", "left", "right", "of"),
    *("above", "below", "what", "is", "this", "picture", "how", "many", "colour", "are", "there", "the", "draw"),
    *("describe", "it", "?", ".", ",", "one", "two", "three", "four", "user", "assistant", "generate", "an", "image"),
    ":",
)
TEMPLATES = ("what is this picture ?", "describe the picture .", "draw it", "how many and what colour are there ?")
SIDE_PIXELS, UNDERSTANDING_SIDE, PATCH, WIDTH, QUERIES, LATENT_CHANNELS = 32, 24, 6, 32, 4, 4
CAPTION_CHANNELS, HEADS = 16, 4
SPREAD = 0.2
"""Of the initial weights: wide enough that every part has a visible effect on the output."""


def smallest_configuration(vocabulary: int, image_token: int) -> OpenUniConfiguration:
    """Two layers of everything; 4x4 patches that the pixel shuffle makes 2x2."""
    vision = InternVLVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=(PATCH, PATCH),
        image_size=(UNDERSTANDING_SIDE, UNDERSTANDING_SIDE),
        attention_bias=True,
        layer_scale_init_value=1.0,
        initializer_range=SPREAD,
    )
    text = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=SPREAD,
        tie_word_embeddings=False,
    )
    language = InternVLConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_id=image_token,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )
    connector = SiglipVisionConfig(
        hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2, num_attention_heads=2
    )
    sizes = OpenUniSizes(language, connector, QUERIES, _transformer(), _autoencoder())
    return OpenUniConfiguration(sizes, side=SIDE_PIXELS, drawing=DrawingPlan(steps=3))


def _transformer() -> dict[str, object]:
    return {
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "num_attention_heads": HEADS,
        "attention_head_dim": WIDTH // HEADS,
        "num_layers": 2,
        "num_cross_attention_heads": HEADS,
        "cross_attention_head_dim": WIDTH // HEADS,
        "cross_attention_dim": WIDTH,
        "caption_channels": CAPTION_CHANNELS,
        "sample_size": 8,
        "patch_size": 1,
    }


def _autoencoder() -> dict[str, object]:
    coder: dict[str, object] = {}
    for name in ("encoder", "decoder"):
        coder |= {
            f"{name}_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"],
            f"{name}_block_out_channels": [8, 16, 16],
            f"{name}_layers_per_block": [1, 1, 1],
            f"{name}_qkv_multiscales": [[], [], [5]],
        }
    shape = {"latent_channels": LATENT_CHANNELS, "attention_head_dim": 8, "scaling_factor": 0.5}
    return coder | shape | {"upsample_block_type": "interpolate", "downsample_block_type": "conv"}


def random_network(sizes: OpenUniSizes) -> OpenUniNetwork:
    """Random weights from torch's global generator, the queries included."""
    network = OpenUniNetwork(sizes)
    with torch.no_grad():
        network.meta_queries.normal_(std=SPREAD)
    return network

"""The smallest Harmon that has every part, with random weights: 16x16 pixels, 16 tokens, 8 buffer rows.

For checking code, not for looking at: contract tests, dry runs and examples build it in milliseconds.
"""

from __future__ import annotations

import torch
from transformers import Qwen2Config

from reca_core.models.harmon.chat import TURN_END, TURN_START
from reca_core.models.harmon.configuration import DrawingPlan, HarmonConfiguration, LearningPlan
from reca_core.models.harmon.mar import MarConfiguration
from reca_core.models.harmon.network import HarmonNetwork, HarmonSizes

WORDS = (
    *("a", "red", "green", "blue", "yellow", "circle", "square", "triangle", "and", "on", "left", "right", "of"),
    *("above", "below", "what", "is", "this", "picture", "how", "many", "colour", "are", "there", "the", "draw"),
    *("describe", "it", "?", ".", ",", "one", "two", "three", "four", "user", "assistant", "generate", "an", "image"),
    ":",
)
STRUCTURAL = ("<|endoftext|>", TURN_START, TURN_END)
TEMPLATES = ("what is this picture ?", "describe the picture .", "draw it", "how many and what colour are there ?")
SIDE_PIXELS, NATIVE_SIDE, BUFFER = 16, 4, 8
LATENT_CHANNELS, WIDTH = 4, 32
SPREAD = 0.2
"""Of the initial weights: wide enough that every part has a visible effect on the output."""


def smallest_configuration(vocabulary: int) -> HarmonConfiguration:
    """Three autoencoder levels, so 4x4 tokens; two layers of language model, one of each MAR half."""
    language = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=SPREAD,
        tie_word_embeddings=True,
    )
    mar = MarConfiguration(
        latent_channels=LATENT_CHANNELS,
        width=WIDTH,
        encoder_depth=1,
        decoder_depth=1,
        decoder_width=WIDTH,
        encoder_heads=2,
        decoder_heads=2,
        native_side=NATIVE_SIDE,
        buffer=BUFFER,
        head_depth=1,
        head_width=WIDTH,
        classes=2,
    )
    autoencoder = {
        "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (32, 32, 32),
        "layers_per_block": 1,
        "latent_channels": LATENT_CHANNELS,
    }
    return HarmonConfiguration(
        HarmonSizes(language, mar, autoencoder),
        side=SIDE_PIXELS,
        drawing=DrawingPlan(rounds=4, head_steps=4),
        learning=LearningPlan(head_repeats=2),
    )


def random_network(sizes: HarmonSizes) -> HarmonNetwork:
    """Random weights from torch's global generator, the learned tables included."""
    network = HarmonNetwork(sizes)
    with torch.no_grad():
        for name, parameter in network.mar.named_parameters():
            if name.endswith(("_learned", "mask_token", "fake_latent")):
                parameter.normal_(std=SPREAD)
    return network

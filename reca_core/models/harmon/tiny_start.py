"""Where the tiny Harmon begins: its sizes, random weights, and an autoencoder whose encoder is set, not trained.

A latent says one 4x4 patch: the 16 directions in which patches of rendered scenes vary most, each with variance 1
(reca_core/models/patchwise.py). The stages after it: STAGES, read by reca_core/make_tiny.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import Qwen2Config

from reca_core.contracts.world import VOCABULARY, WORLD_TEMPLATES
from reca_core.models import patchwise
from reca_core.models.harmon.adapter import Harmon
from reca_core.models.harmon.configuration import DrawingPlan, HarmonConfiguration, LearningPlan
from reca_core.models.harmon.mar import MarConfiguration
from reca_core.models.harmon.network import HarmonSizes
from reca_core.models.harmon.smallest import STRUCTURAL
from reca_core.models.tiny_stages import BASE, DECODER, SIDE_PIXELS
from reca_core.models.word_tokenizer import word_tokenizer

TOKENS_PER_SIDE = 4
WIDTH, LAYERS, HEADS, FEED_FORWARD = 96, 4, 4, 240
MAR_DEPTH, BUFFER = 2, 4
"""Of encoder and decoder each; rows in front of the tokens."""
LATENT_CHANNELS = 16
HEAD_DEPTH, HEAD_WIDTH = 3, 96
SPREAD = 0.05
"""Standard deviation of the language model's first weights."""
DRAWING = DrawingPlan(guidance=3.0, rounds=16, head_steps=50, largest_latent=5.0)
"""Near pure noise the small head's error is blown up (docs/tiny_families.md); latents of scenes stay within 5."""
LEARNING = LearningPlan(head_repeats=2)
TURN_WORDS = ("user", "assistant", "generate", "an", "image", ":", ".")
STAGES = (DECODER, BASE.with_plan(steps=2200))
ZEROED_BRANCHES = ("conv2", "to_out.0")
STRIDED = "downsamplers.0.conv"
WIDENING = "down_blocks.2.resnets.0.conv_shortcut"


def tiny_configuration(vocabulary: int) -> HarmonConfiguration:
    """16 px pictures, 4x4 tokens of 16 channels."""
    language = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=256,
        initializer_range=SPREAD,
        tie_word_embeddings=True,
    )
    mar = MarConfiguration(
        latent_channels=LATENT_CHANNELS,
        width=WIDTH,
        encoder_depth=MAR_DEPTH,
        decoder_depth=MAR_DEPTH,
        decoder_width=WIDTH,
        encoder_heads=HEADS,
        decoder_heads=HEADS,
        native_side=TOKENS_PER_SIDE,
        buffer=BUFFER,
        mlp_ratio=2.0,
        head_depth=HEAD_DEPTH,
        head_width=HEAD_WIDTH,
        classes=2,
    )
    autoencoder: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (32, 48, 64),
        "layers_per_block": 1,
        "latent_channels": LATENT_CHANNELS,
        "norm_num_groups": LATENT_CHANNELS,
    }
    sizes = HarmonSizes(language, mar, autoencoder, latent_scale=1.0)
    return HarmonConfiguration(sizes, side=SIDE_PIXELS, drawing=DRAWING, learning=LEARNING)


def tiny_start(pictures: Sequence[Image.Image], seed: int) -> Harmon:
    """The untrained tiny Harmon in the words of the rendered world.

    Args:
        pictures: scenes from which the directions of the latents are computed, some hundreds.
        seed: of every random weight.
    """
    tokenizer = word_tokenizer((*VOCABULARY, *TURN_WORDS), STRUCTURAL)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapter = Harmon.from_configuration(tiny_configuration(len(tokenizer)), tokenizer, WORLD_TEMPLATES)
        set_local_encoder(adapter.network.vae, adapter.prepare(pictures).target)
    return adapter


@torch.no_grad()
def set_local_encoder(vae: Any, pixels: Float[Tensor, "batch 3 height width"]) -> None:
    """Give an autoencoder with one group of four channels per latent the encoder described above; decoder at random."""
    encoder = vae.encoder
    patchwise.start_encoder(encoder, zeroed=ZEROED_BRANCHES, strided=STRIDED)
    widening = encoder.get_submodule(WIDENING)
    seen = patchwise.inputs_of(widening, lambda: encoder(pixels))
    patchwise.fill_groups(widening, encoder.conv_norm_out, patchwise.whitening(seen, LATENT_CHANNELS))
    # silu(s) - silu(-s) is s: the last convolution undoes what stands before it.
    signs = repeat(torch.tensor([0.0, 0.0, 1.0, -1.0]), "four -> g four", g=LATENT_CHANNELS)
    undo = torch.block_diag(*signs[:, None])
    patchwise.set_convolution(encoder.conv_out, patchwise.Affine(undo, torch.zeros(LATENT_CHANNELS)))
    same = patchwise.Affine(torch.eye(2 * LATENT_CHANNELS), torch.zeros(2 * LATENT_CHANNELS))
    patchwise.set_convolution(vae.quant_conv, same)

"""Where the tiny OpenUni begins: its sizes, random weights, and an autoencoder whose encoder is set, not trained.

The DC-AE encoder only rearranges: its convolutions are zero, its shortcuts unshuffle a 4x4 patch into 48 channels, and
the last convolution keeps the 16 directions in which patches of rendered scenes vary most, each with variance 1
(reca_core/models/patchwise.py). The understanding encoder sees one token per cell of the world. The stages after it:
STAGES, read by reca_core/make_tiny.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from transformers import InternVLConfig, InternVLVisionConfig, Qwen2Config, SiglipVisionConfig

from reca_core.contracts.world import VOCABULARY, WORLD_TEMPLATES
from reca_core.models import patchwise
from reca_core.models.openuni.adapter import OpenUni
from reca_core.models.openuni.chat import IMAGE
from reca_core.models.openuni.configuration import DrawingPlan, OpenUniConfiguration
from reca_core.models.openuni.network import OpenUniSizes
from reca_core.models.openuni.smallest import STRUCTURAL
from reca_core.models.tiny_stages import BASE, DECODER, SIDE_PIXELS
from reca_core.models.word_tokenizer import word_tokenizer

PATCH_PIXELS, GRID = 4, 4
WIDTH, LAYERS, HEADS, FEED_FORWARD = 96, 5, 4, 240
ENCODER_WIDTH, ENCODER_LAYERS = 64, 2
QUERIES, CONNECTOR_LAYERS, DRAWING_LAYERS = 16, 2, 4
LATENT_CHANNELS, COLOURS = 16, 3
SPREAD = 0.05
"""Standard deviation of the vision-language model's first weights and of the queries."""
DRAWING = DrawingPlan(guidance=2.0, steps=20, flow_shift=1.0)
TURN_WORDS = ("user", "assistant", "generate", "an", "image", ":", ".")
STAGES = (DECODER, BASE.with_plan(steps=2200))


def tiny_configuration(vocabulary: int, image_token: int) -> OpenUniConfiguration:
    """16 px pictures: 4 embeddings of what is seen, 4x4 latents of what is drawn."""
    vision = InternVLVisionConfig(
        hidden_size=ENCODER_WIDTH,
        intermediate_size=2 * ENCODER_WIDTH,
        num_hidden_layers=ENCODER_LAYERS,
        num_attention_heads=HEADS,
        patch_size=(PATCH_PIXELS, PATCH_PIXELS),
        image_size=(SIDE_PIXELS, SIDE_PIXELS),
        attention_bias=True,
        layer_scale_init_value=1.0,
        initializer_range=SPREAD,
    )
    text = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
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
        hidden_size=WIDTH, intermediate_size=FEED_FORWARD, num_hidden_layers=CONNECTOR_LAYERS, num_attention_heads=HEADS
    )
    sizes = OpenUniSizes(language, connector, QUERIES, _transformer(), _autoencoder())
    return OpenUniConfiguration(sizes, side=SIDE_PIXELS, drawing=DRAWING)


def _transformer() -> dict[str, Any]:
    return {
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "num_attention_heads": HEADS,
        "attention_head_dim": WIDTH // HEADS,
        "num_layers": DRAWING_LAYERS,
        "num_cross_attention_heads": HEADS,
        "cross_attention_head_dim": WIDTH // HEADS,
        "cross_attention_dim": WIDTH,
        "caption_channels": WIDTH,
        "sample_size": GRID,
        "patch_size": 1,
    }


def _autoencoder() -> dict[str, Any]:
    """Three levels; every encoder level has exactly the channels that an unshuffled picture has."""
    coder: dict[str, Any] = {}
    for name, channels in (("encoder", [COLOURS, 4 * COLOURS, 16 * COLOURS]), ("decoder", [32, 64, 64])):
        coder |= {
            f"{name}_block_types": ["ResBlock"] * 3,
            f"{name}_block_out_channels": channels,
            f"{name}_layers_per_block": [1, 1, 1],
            f"{name}_qkv_multiscales": [[], [], []],
        }
    shape = {"latent_channels": LATENT_CHANNELS, "attention_head_dim": 8, "scaling_factor": 1.0}
    return coder | shape | {"encoder_out_shortcut": False}


def tiny_start(pictures: Sequence[Image.Image], seed: int) -> OpenUni:
    """The untrained tiny OpenUni in the words of the rendered world.

    Args:
        pictures: scenes from which the directions of the latents are computed, some hundreds.
        seed: of every random weight.
    """
    tokenizer = word_tokenizer((*VOCABULARY, *TURN_WORDS), STRUCTURAL)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        configuration = tiny_configuration(len(tokenizer), tokenizer.get_vocab()[IMAGE])
        adapter = OpenUni.from_configuration(configuration, tokenizer, WORLD_TEMPLATES)
        adapter.network.meta_queries.data.normal_(std=SPREAD)
        set_local_encoder(adapter.network.vae, adapter.prepare(pictures).target)
    return adapter


@torch.no_grad()
def set_local_encoder(vae: Any, pixels: Float[Tensor, "batch 3 height width"]) -> None:
    """Give an autoencoder whose encoder has the channels of an unshuffled picture the encoder described above."""
    encoder = vae.encoder
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            patchwise.start_convolution(module, patchwise=True, zeroed=True)
    patchwise.set_convolution(encoder.conv_in, patchwise.Affine(torch.eye(COLOURS), torch.zeros(COLOURS)))
    seen = patchwise.inputs_of(encoder.conv_out, lambda: encoder(pixels))
    patchwise.set_convolution(encoder.conv_out, patchwise.whitening(seen, LATENT_CHANNELS))

"""Where the tiny Show-o begins: its sizes, random weights, and an image tokenizer whose encoder is set, not trained.

The encoder sees one 4x4 patch at a time (reca_core/models/patchwise.py); its bits are the sides of planes that were
chosen to tell the patches of rendered scenes apart. The stages after it: STAGES, read by reca_core/make_tiny.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionConfig, PhiConfig

from reca_core.contracts.world import VOCABULARY, WORLD_TEMPLATES
from reca_core.models import patchwise
from reca_core.models.showo.adapter import Showo
from reca_core.models.showo.configuration import DrawingPlan, ShowoConfiguration
from reca_core.models.showo.magvit import Magvit, MagvitConfiguration
from reca_core.models.showo.network import ShowoSizes
from reca_core.models.showo.sequence import SPECIAL_TOKENS
from reca_core.models.showo.smallest import ROLES, STRUCTURAL
from reca_core.models.tiny_stages import BASE, DECODER, SIDE_PIXELS
from reca_core.models.word_tokenizer import word_tokenizer

PATCH_PIXELS = 4
WIDTH, LAYERS, HEADS, FEED_FORWARD = 96, 5, 4, 240
ENCODER_WIDTH, ENCODER_LAYERS = 64, 3
"""Of CLIP, whose last layer Show-o does not read."""
BITS, CHANNELS = 10, 32
MAX_TEXT = 20
"""The longest caption has 15 words, the longest instruction 8; five special tokens and three words stand around."""
SPREAD = 0.05
"""Standard deviation of the language model's first weights."""
DRAWING = DrawingPlan(guidance=2.0, rounds=8)
TURN_WORDS = ("user", "assistant", ":")
STAGES = (DECODER.with_plan(steps=500), BASE.with_plan(steps=1600))
ZEROED_BRANCHES = ("conv2", "proj_out")
WIDENING = "down.2.block.0.nin_shortcut"
STRIDED = "downsample.conv"


def tiny_configuration(text_vocabulary: int) -> ShowoConfiguration:
    """16 px pictures, 4x4 patches for both paths, codes of 10 bits."""
    language = PhiConfig(
        vocab_size=text_vocabulary + SPECIAL_TOKENS + 2**BITS + 1,
        hidden_size=WIDTH,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=256,
        qk_layernorm=True,
        resid_pdrop=0.0,
        initializer_range=SPREAD,
        tie_word_embeddings=False,
    )
    tokenizer = MagvitConfiguration(
        channels=CHANNELS,
        encoder_multipliers=(1, 2, 4),
        encoder_blocks=(1, 1, 1),
        decoder_multipliers=(1, 1, 2),
        decoder_blocks=(1, 1, 1),
        bits=BITS,
    )
    tower = CLIPVisionConfig(
        hidden_size=ENCODER_WIDTH,
        intermediate_size=2 * ENCODER_WIDTH,
        num_hidden_layers=ENCODER_LAYERS,
        num_attention_heads=HEADS,
        image_size=SIDE_PIXELS,
        patch_size=PATCH_PIXELS,
    )
    sizes = ShowoSizes(language, tokenizer, tower)
    return ShowoConfiguration(
        sizes, side=SIDE_PIXELS, text_vocabulary=text_vocabulary, max_text=MAX_TEXT, drawing=DRAWING
    )


def tiny_start(pictures: Sequence[Image.Image], seed: int) -> Showo:
    """The untrained tiny Show-o in the words of the rendered world.

    Args:
        pictures: scenes from which the planes of the code's bits are chosen, some hundreds.
        seed: of every random weight.
    """
    tokenizer = word_tokenizer((*VOCABULARY, *TURN_WORDS), STRUCTURAL, ROLES)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapter = Showo.from_configuration(tiny_configuration(len(tokenizer)), tokenizer, WORLD_TEMPLATES)
        set_local_encoder(adapter.network.tokenizer, adapter.prepare(pictures).target)
    return adapter


@torch.no_grad()
def set_local_encoder(magvit: Magvit, pixels: Float[Tensor, "batch 3 height width"]) -> None:
    """Give a tokenizer of four channels per group at its last level the encoder described above; decoder at random."""
    encoder = magvit.encoder
    patchwise.start_encoder(encoder, zeroed=ZEROED_BRANCHES, strided=STRIDED)
    widening = encoder.get_submodule(WIDENING)
    assert isinstance(widening, nn.Conv2d)
    seen = patchwise.inputs_of(widening, lambda: encoder(pixels))
    patchwise.fill_groups(widening, encoder.norm_out, patchwise.whitening(seen, encoder.norm_out.num_groups))
    rows = patchwise.inputs_of(encoder.conv_out, lambda: encoder(pixels))
    patches = rearrange(pixels, "b c (h p) (w q) -> (b h w) (c p q)", p=PATCH_PIXELS, q=PATCH_PIXELS)
    planes = patchwise.separating_planes(patchwise.means_of_equal(rows, patches), BITS)
    patchwise.set_convolution(encoder.conv_out, planes)
    patchwise.set_convolution(encoder.quant_conv, patchwise.Affine(torch.eye(BITS), torch.zeros(BITS)))
    patchwise.as_shipped(encoder)

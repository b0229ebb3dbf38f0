"""A Janus with random weights at the smallest size that still has every part: 16x16 pixels, 16 tokens, 64 codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

from reca_core.models.janus.adapter import Janus
from reca_core.models.janus.word_tokenizer import word_tokenizer

WORDS = [
    *("a", "red", "green", "blue", "yellow", "circle", "square", "triangle", "and", "on", "left", "right", "of"),
    *("above", "below", "what", "is", "this", "picture", "how", "many", "colour", "are", "there", "the", "draw"),
    *("describe", "it", "?", ".", ",", "one", "two", "three", "four"),
]
TEMPLATES = ("what is this picture ?", "describe the picture .", "draw it", "how many and what colour are there ?")


def tiny_configuration(vocabulary: int, *, tied: bool = True, codes: int = 64, width: int = 32) -> JanusConfig:
    """16 px pictures, patches of 4, a VQ model of three levels."""
    return JanusConfig(
        text_config=LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
        ),
        vision_config=JanusVisionConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            patch_size=4,
            projection_dim=width,
            num_image_tokens=16,
        ),
        vq_config=JanusVQVAEConfig(
            embed_dim=8,
            num_embeddings=codes,
            latent_channels=16,
            base_channels=32,
            channel_multiplier=[1, 1, 1],
            num_res_blocks=1,
            projection_dim=width,
            image_token_embed_dim=width,
        ),
        tie_word_embeddings=tied,
    )


def tiny_janus(
    seed: int = 0, *, words: Sequence[str] = WORDS, templates: Sequence[str] = TEMPLATES, tied: bool = True
) -> Janus:
    """The adapter in memory."""
    tokenizer = word_tokenizer(words)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Janus.from_configuration(tiny_configuration(len(tokenizer), tied=tied), tokenizer, templates)


def save_tiny_janus(
    directory: Path, seed: int = 0, *, words: Sequence[str] = WORDS, templates: Sequence[str] = TEMPLATES
) -> Path:
    """The same as a checkpoint directory; returns ``directory``."""
    tiny_janus(seed, words=words, templates=templates).save(directory)
    return directory


def tiny_pictures(count: int, *, side: int = 16, seed: int = 0) -> list[Image.Image]:
    """Pictures of random colour blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(block).resize((side, side), Image.Resampling.NEAREST) for block in blocks]

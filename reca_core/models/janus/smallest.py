"""The smallest Janus that has every part, with random weights: 16x16 pixels, 16 tokens, 64 codes, 0.2 M parameters.

For checking code, not for looking at: contract tests, dry runs and examples build it in milliseconds.
"""

from __future__ import annotations

from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

WORDS = (
    *("a", "red", "green", "blue", "yellow", "circle", "square", "triangle", "and", "on", "left", "right", "of"),
    *("above", "below", "what", "is", "this", "picture", "how", "many", "colour", "are", "there", "the", "draw"),
    *("describe", "it", "?", ".", ",", "one", "two", "three", "four"),
)
TEMPLATES = ("what is this picture ?", "describe the picture .", "draw it", "how many and what colour are there ?")
SIDE_PIXELS, PATCH_PIXELS = 16, 4
SPREAD = 0.2
"""Of the initial weights: wide enough that every part has a visible effect on the output."""
TOKENS = (SIDE_PIXELS // PATCH_PIXELS) ** 2


def smallest_configuration(vocabulary: int, *, tied: bool = True, codes: int = 64, width: int = 32) -> JanusConfig:
    """16 px pictures, patches of 4, an image tokenizer of three levels (its normalisation needs 32 channels)."""
    return JanusConfig(
        text_config=LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=SPREAD,
        ),
        vision_config=JanusVisionConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=SIDE_PIXELS,
            patch_size=PATCH_PIXELS,
            projection_dim=width,
            num_image_tokens=TOKENS,
            initializer_range=SPREAD,
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
            initializer_range=SPREAD,
        ),
        tie_word_embeddings=tied,
    )

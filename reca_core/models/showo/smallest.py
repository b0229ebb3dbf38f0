"""The smallest Show-o that has every part, with random weights: 16x16 pixels, 16 image tokens of 4 bits, 2 layers.

For checking code, not for looking at: contract tests, dry runs and examples build it in milliseconds.
"""

from __future__ import annotations

from transformers import CLIPVisionConfig, PhiConfig

from reca_core.models.showo.configuration import DrawingPlan, ShowoConfiguration
from reca_core.models.showo.magvit import MagvitConfiguration
from reca_core.models.showo.network import ShowoSizes
from reca_core.models.showo.sequence import SPECIAL_TOKENS

END = "<|endoftext|>"
STRUCTURAL = (END,)
ROLES = {"bos_token": END, "eos_token": END, "pad_token": END}
WORDS = (
    *("a", "red", "green", "blue", "yellow", "circle", "square", "triangle", "and", "on", "left", "right", "of"),
    *("above", "below", "what", "is", "this", "picture", "how", "many", "colour", "are", "there", "the", "draw"),
    *("describe", "it", "?", ".", ",", "one", "two", "three", "four", "user", "assistant", ":", "answer"),
)
TEMPLATES = ("what is this picture ?", "describe the picture .", "draw it", "how many and what colour are there ?")
SYSTEM_PROMPT = "answer what is there ."
SIDE_PIXELS, CLIP_SIDE, CLIP_PATCH, WIDTH, BITS, MAX_TEXT = 16, 8, 4, 32, 4, 24
SPREAD = 0.2
"""Of the initial weights: wide enough that every part has a visible effect on the output."""


def smallest_configuration(text_vocabulary: int, *, clip: bool = True) -> ShowoConfiguration:
    """The CLIP variant has 4 patches and 3 layers, the last of which Show-o does not read; VQ shows 2x2 codes."""
    language = PhiConfig(
        vocab_size=text_vocabulary + SPECIAL_TOKENS + 2**BITS + 1,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        qk_layernorm=True,
        resid_pdrop=0.0,
        initializer_range=SPREAD,
        tie_word_embeddings=False,
    )
    tokenizer = MagvitConfiguration(
        channels=WIDTH,
        encoder_multipliers=(1, 1, 1),
        encoder_blocks=(1, 1, 1),
        decoder_multipliers=(1, 1, 1),
        decoder_blocks=(1, 1, 1),
        bits=BITS,
    )
    tower = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=CLIP_SIDE,
        patch_size=CLIP_PATCH,
        initializer_factor=10 * SPREAD,
    )
    return ShowoConfiguration(
        ShowoSizes(language, tokenizer, tower if clip else None),
        side=SIDE_PIXELS,
        text_vocabulary=text_vocabulary,
        max_text=MAX_TEXT,
        system_prompt=SYSTEM_PROMPT if clip else "",
        drawing=DrawingPlan(rounds=4),
    )

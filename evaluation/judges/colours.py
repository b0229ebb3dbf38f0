"""The colour classifier: CLIP compares the cut-out object with three sentences per colour.

Rule: djghosh13/geneval @ af4902f. Published weights: OpenAI's ViT-L/14, which transformers has as
``openai/clip-vit-large-patch14``; upstream loads the same network through open_clip. What is shown to it:
evaluation/benchmarks/geneval/crops.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.judges.weights import load_folder, local_folder
from reca_core.contracts.errors import BadInput
from reca_core.contracts.hashing import sha256_tree

PUBLISHED_COLOUR_MODEL = "openai/clip-vit-large-patch14"
TEMPLATES = ("a photo of a {colour} {label}", "a photo of a {colour}-colored {label}", "a photo of a {colour} object")
"""The article is never adapted."""
FIELD = "judge.colour_model"
CLASSES_REMEMBERED = 512
CROPS_PER_BATCH = 64
"""All crops have the same pre-processed size, so that batches change nothing but speed."""


class ColourClassifier:
    """Names the colour of objects."""

    def __init__(self, model: Any, processor: Any, tokenizer: Any, name: str, sha256: str) -> None:
        self.name = name
        self.sha256 = sha256
        self.model = model
        self._processor = processor
        self._tokenizer = tokenizer
        self._colour_features = lru_cache(CLASSES_REMEMBERED)(self._encode_colours)

    @classmethod
    def open(cls, chosen: str, device: str) -> ColourClassifier:
        """Load CLIP weights in transformers layout.

        Args:
            chosen: hub id or absolute folder.
        Raises: PrerequisiteMissing where it cannot be had, BadInput where it is no CLIP model.
        """
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        folder = local_folder(chosen, FIELD)
        model = load_folder(CLIPModel, folder, FIELD)
        try:
            processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{folder} has no pre-processing of a CLIP model: {error}", field=FIELD) from error
        name = Path(chosen).name if Path(chosen).is_absolute() else chosen
        return cls(model.to(device), processor, tokenizer, name, sha256_tree(folder))

    def classify(self, crops: Sequence[Image.Image], labels: Sequence[str], candidates: Sequence[str]) -> list[str]:
        """The candidate colour of each crop, an object of the class in ``labels``."""
        import torch

        found: list[str] = []
        for start in range(0, len(crops), CROPS_PER_BATCH):
            shown = self._features(crops[start : start + CROPS_PER_BATCH])
            named = labels[start : start + CROPS_PER_BATCH]
            colours = torch.stack([self._colour_features(label, tuple(candidates)) for label in named])
            closest = torch.einsum("nd,ncd->nc", shown, colours).argmax(dim=1)
            found += [candidates[int(at)] for at in closest]
        return found

    def _features(self, crops: Sequence[Image.Image]) -> Any:
        """One direction per crop [crops, width]."""
        import torch

        shown = self._processor(images=list(crops), return_tensors="pt")["pixel_values"].to(self.model.device)
        with torch.inference_mode():
            return _unit(self.model.get_image_features(pixel_values=shown).pooler_output)

    def _encode_colours(self, label: str, candidates: tuple[str, ...]) -> Any:
        """One direction per colour [colours, width]: the mean of its sentences' directions, made a unit again."""
        import torch

        sentences = [text.format(colour=colour, label=label) for colour in candidates for text in TEMPLATES]
        words = self._tokenizer(sentences, padding=True, truncation=True, return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            directions = _unit(self.model.get_text_features(**words).pooler_output)
        return _unit(directions.unflatten(0, (len(candidates), len(TEMPLATES))).mean(dim=1))


def _unit(vectors: Any) -> Any:
    return vectors / vectors.norm(dim=-1, keepdim=True)

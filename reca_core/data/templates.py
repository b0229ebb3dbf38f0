"""Instructions that stand beside the picture in RecA's condition: what the model is told while it redraws.

RecA wants many and varied ones, from a plain "what is this" to long inventories of attributes (arXiv 2509.07295,
section 3.2; reference "reca_recipe", section 1.2, rule 2). This list is our own: one per line, 4 to 40 words each.
A checkpoint whose language is small brings its own list instead (``templates.txt``).
"""

from __future__ import annotations

_TEXT = """
What does this picture show?
Describe the image in detail.
Tell me everything you can see here.
Give a short caption for this photo.
Name each object in the picture, its colour, its size and where it stands.
"""

TEMPLATES: tuple[str, ...] = tuple(line for line in _TEXT.strip().splitlines() if line)
"""In a fixed order: a template is drawn by its index."""

"""GenEval's two geometric rules: overlap of boxes and where one box lies relative to another.

Boxes are x1, y1, x2, y2 in pixels, y downwards. Source: djghosh13/geneval @ af4902f, evaluation protocol.
"""

from __future__ import annotations

import math

from evaluation.records import Box

INCLUSIVE_PIXEL = 1.0
"""Corners are pixel positions that both belong to the box, so a side is ``x2 - x1 + 1`` long."""
NO_RELATION_BELOW = 1e-3
"""Offsets smaller than this on both axes are no relation at all."""
DIRECTION_COSINE = 0.5
"""A relation holds where the offset's share of the centre distance is strictly larger: within 60 degrees."""
DEFAULT_POSITION_MARGIN = 0.1
"""Fraction of the summed box sizes by which centres may differ without being apart."""


def iou(box_a: Box, box_b: Box) -> float:
    """Intersection over union with inclusive pixel areas; 0 where both boxes are empty."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = box_a, box_b
    shared = _area((max(ax1, bx1), max(ay1, by1), min(ax2, bx2), min(ay2, by2)))
    union = _area(box_a) + _area(box_b) - shared
    return shared / union if union else 0.0


def _area(box: Box) -> float:
    x1, y1, x2, y2 = box
    return max(x2 - x1 + INCLUSIVE_PIXEL, 0.0) * max(y2 - y1 + INCLUSIVE_PIXEL, 0.0)


def relative_position(subject: Box, target: Box, margin: float = DEFAULT_POSITION_MARGIN) -> list[str]:
    """Relations of ``subject`` to ``target``, sorted: none, one, or two neighbouring ones such as above and left of.

    The centre offset is shrunk per axis by ``margin`` times the summed sizes, then divided by the length of the offset
    *before* shrinking: on one axis a relation therefore needs more than twice the margin.
    """
    offset = tuple(_centre(subject, axis) - _centre(target, axis) for axis in (0, 1))
    shrunk = tuple(_shrink(offset[axis], margin * (_side(subject, axis) + _side(target, axis))) for axis in (0, 1))
    if all(abs(part) < NO_RELATION_BELOW for part in shrunk):
        return []
    distance = math.hypot(*offset)
    x, y = (part / distance for part in shrunk)
    holds = {
        "above": y < -DIRECTION_COSINE,
        "below": y > DIRECTION_COSINE,
        "left of": x < -DIRECTION_COSINE,
        "right of": x > DIRECTION_COSINE,
    }
    return [name for name, true in holds.items() if true]


def _centre(box: Box, axis: int) -> float:
    return (box[axis] + box[axis + 2]) / 2


def _side(box: Box, axis: int) -> float:
    return abs(box[axis + 2] - box[axis])


def _shrink(offset: float, by: float) -> float:
    """Towards 0, and never away from an exact 0: a margin may be negative."""
    return math.copysign(max(abs(offset) - by, 0.0), offset) if offset else 0.0

"""Names of GenEval's published detector, and what results say about its conversion. Torch-free."""

from __future__ import annotations

from pathlib import Path

PUBLISHED_NAME = "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756"
PUBLISHED_SHA256_PREFIX = "743b7d99"
"""mmdetection puts the first digits of a file's SHA-256 into its name."""
CONVERSION_LABEL = "converted from mmdetection; not yet run on the original file"
CHECKED_LABEL = "converted from mmdetection; original file and known photographs checked"
MARKS = "detectors"
"""Folder in the cache with one file per checked original."""


def conversion_label(cache: Path, sha256: str) -> str:
    """What results say about weights converted from mmdetection."""
    return CHECKED_LABEL if (cache / MARKS / f"{sha256}.json").is_file() else CONVERSION_LABEL

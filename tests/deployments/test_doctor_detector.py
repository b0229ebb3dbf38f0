"""`reca doctor --detector FILE`: GenEval's published detector is recognised, tried and remembered; no other is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments.cli import main
from evaluation.judges import detector_sanity
from evaluation.judges.detector_convert import build
from evaluation.judges.detector_label import CHECKED_LABEL, CONVERSION_LABEL, conversion_label
from reca_core.contracts.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_STAGE_FAILED
from reca_core.contracts.hashing import sha256_file
from tests.evaluation.tiny_detector import TINY, random_state


def test_only_the_published_file_that_converts_and_sees_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    home, file = tmp_path / "home", tmp_path / "detector.pth"
    words = ["--json", "doctor", "--home", str(home), "--detector", str(file)]
    assert main(words) == EXIT_BAD_INPUT
    file.write_bytes(b"weights")
    assert main(words) == EXIT_STAGE_FAILED
    assert "743b7d99" in capfd.readouterr().err
    sha256 = sha256_file(file)
    assert conversion_label(home / "cache", sha256) == CONVERSION_LABEL
    monkeypatch.setattr(detector_sanity, "PUBLISHED_SHA256_PREFIX", sha256[:8])
    monkeypatch.setattr("evaluation.judges.detector_convert.load_original", lambda path: build(random_state(), TINY))
    monkeypatch.setattr(detector_sanity, "COUNTED_SCORE", -1.0)
    assert main(words) == EXIT_DONE
    facts = [finding["fact"] for finding in json.loads(capfd.readouterr().out)["findings"]]
    assert facts[0] == f"SHA-256 {sha256}"
    assert [fact.split(":")[0] for fact in facts[1:]] == ["person", "cat", "cup"]
    assert conversion_label(home / "cache", sha256) == CHECKED_LABEL

"""The key of a judge: from the environment, or from a Prefect Secret block, for its child's time only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from evaluation.judges.vlm_endpoint import KEY_VARIABLE
from reca_core.contracts.errors import BadInput
from reca_core.contracts.hashing import sha256_file
from reca_core.contracts.judging import JudgeSettings, SettledJudge
from tasks.judging import SECRET_BLOCK, api_key, full_id, settled


@pytest.mark.servers
def test_the_key_is_the_environments_or_that_of_the_secret_block_and_is_gone_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prefect.blocks.system import Secret
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        monkeypatch.delenv(KEY_VARIABLE, raising=False)
        with api_key():
            assert KEY_VARIABLE not in os.environ
        Secret(value="sk-of-the-block").save(SECRET_BLOCK)
        with api_key():
            assert os.environ[KEY_VARIABLE] == "sk-of-the-block"
        assert KEY_VARIABLE not in os.environ
        with pytest.raises(RuntimeError, match="the child failed"), api_key():
            raise RuntimeError("the child failed")
        assert KEY_VARIABLE not in os.environ
        monkeypatch.setenv(KEY_VARIABLE, "sk-of-the-environment")
        with api_key():
            assert os.environ[KEY_VARIABLE] == "sk-of-the-environment"
        assert os.environ[KEY_VARIABLE] == "sk-of-the-environment"


def test_weights_are_part_of_the_identity_by_content_not_by_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "yolov8m.onnx").write_bytes(b"weights")
    first, second = (
        settled(JudgeSettings(judge="onnx", weights=str(tmp_path / name / "yolov8m.onnx"))) for name in ("one", "two")
    )
    assert first.weights_sha256 == second.weights_sha256 == sha256_file(tmp_path / "one" / "yolov8m.onnx")
    assert full_id("geneval", first) == "geneval.yolov8m"
    with pytest.raises(BadInput, match="is not there"):
        settled(JudgeSettings(judge="onnx", weights=str(tmp_path / "nowhere.onnx")))


def test_the_hash_is_filled_in_and_never_typed_and_what_was_asked_for_while_it_was_a_field_is_still_read() -> None:
    assert JudgeSettings.model_validate({"judge": "vqa", "weights_sha256": ""}) == JudgeSettings(judge="vqa")
    with pytest.raises(ValidationError, match="weights_sha256"):
        JudgeSettings.model_validate({"weights_sha256": "0" * 64})
    assert settled(SettledJudge(weights_sha256="0" * 64)) == SettledJudge()

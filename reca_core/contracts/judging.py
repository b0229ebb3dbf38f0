"""Which judge answers a benchmark's questions, and how far it may go. One form for all judges; each reads its own part.

What is computed is no field of the form: ``SettledJudge``, which requests carry, adds it. The API key is no setting: it
comes from the environment variable ``OPENAI_API_KEY`` and is written nowhere.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from reca_core.contracts.base import Config, unhashed

JudgeName = Literal["published", "shapeworld", "detector", "onnx", "vqa", "openai", "local"]


class JudgeSettings(Config):
    """Who judges."""

    model_config = ConfigDict(title="Judge")

    judge: JudgeName = Field("published", title="Judge")
    """published: the one that the benchmark's id names, or its paper's; any other gives the id a suffix."""
    protocol: Literal["default", "published"] = Field("default", title="Protocol")
    """For openai and local. default asks at temperature 0; published asks as upstream did, of the paper's model."""
    model: str = Field("", title="Model")
    """For openai: the name the endpoint knows; for local, detector and vqa: a hub id. Empty: the published one."""
    weights: str = unhashed("", title="Weights")
    """Absolute path of weights to use instead: a file for onnx, a folder for detector, local and vqa."""
    colour_model: str = Field("", title="Colour classifier")
    """For detector and onnx: CLIP weights, hub id or absolute folder. Empty: the published ones for detector, none for
    onnx, whose questions about colours then stay unanswered."""
    interpreter: str = unhashed("", title="Interpreter")
    """For vqa: absolute path of the Python that has modelscope (docs/judges.md says how to make one)."""
    url: str = unhashed("", title="Endpoint")
    """For openai: base address up to and including /v1. Empty: api.openai.com."""
    date: str = Field("", pattern=r"^(\d{4}-\d{2}-\d{2})?$", title="Date")
    """For openai: judges behind an address change. Empty: the day on which this judging began."""
    concurrency: int = unhashed(8, ge=1, le=256, title="Requests at once")
    """For openai: more may be refused by the endpoint's rate limit."""
    timeout_seconds: float = unhashed(60.0, gt=0, le=3600, title="Seconds per attempt")
    """For openai and vqa: longest wait for one reply."""
    attempts: int = unhashed(5, ge=1, le=100, title="Attempts")
    """For openai and vqa: how often one question is tried before it counts as an outage."""
    max_requests: int = unhashed(0, ge=0, title="Most requests")
    """For openai: requests of one judging, repeated ones included; 0 is no limit. What was answered is kept."""
    max_cost_dollars: float = unhashed(0.0, ge=0, title="Most dollars")
    """For openai: needs both prices; 0 is no limit."""
    dollars_per_million_input_tokens: float = unhashed(0.0, ge=0, title="Price of input")
    """As your endpoint charges for what it is sent."""
    dollars_per_million_output_tokens: float = unhashed(0.0, ge=0, title="Price of output")
    """As your endpoint charges for what it replies."""
    pictures_per_batch: int = unhashed(8, ge=1, le=1024, title="Pictures per batch")
    """For detector and onnx: looked at together; results do not depend on it."""
    decoding_processes: int = unhashed(2, ge=0, le=64, title="Decoding processes")
    """For detector and onnx: helpers that decode the next pictures meanwhile; 0 decodes in the judge's own process."""
    cpu_threads: int = unhashed(0, ge=0, le=1024, title="CPU threads")
    """For detector and onnx on a CPU: 0 takes every core for weights of real size and one for smaller ones."""
    device: Literal["auto", "cpu", "cuda"] = unhashed("auto", title="Device")
    """auto takes a GPU where there is one."""

    @model_validator(mode="before")
    @classmethod
    def _without_empty_hash(cls, given: Any) -> Any:
        """What was asked for while the hash was a field of the form has it, empty: it is filled in later as ever."""
        if cls is JudgeSettings and isinstance(given, dict) and given.get("weights_sha256") == "":
            return {name: value for name, value in given.items() if name != "weights_sha256"}
        return given


class SettledJudge(JudgeSettings):
    """A judge as a request has it: what a person chose, and what the pipeline found out about it."""

    model_config = ConfigDict(title="Judge")

    weights_sha256: str = ""
    """Of the weights: their content is part of the identity, their place is not. Empty where there are none."""

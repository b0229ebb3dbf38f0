"""``prepare``: pictures become a set with an identity, the unusable ones a list with reasons."""

from __future__ import annotations

from pathlib import Path

from reca_core.contracts.home import RunDirectory
from reca_core.contracts.records import PreparedData
from reca_core.contracts.requests import ImageSource
from tasks import plan
from tasks.home import current_home
from tasks.policies import verb
from tasks.progress import note
from tasks.results import Prepared
from tasks.stage import Stage, run_or_reuse


@verb("prepare", "prepare {images.source}")
def prepare(images: ImageSource) -> Prepared:
    """The prepared set of a source. Its pictures may have changed, so the child always looks; it reads none twice."""
    request = plan.prepare_request(current_home(), images)
    stage = Stage(
        name="prepare",
        module="reca_core.launch",
        command="prepare",
        request=request,
        directory=RunDirectory(Path(request.run_directory)),
        result=PreparedData,
        fault=manifest_fault,
        always=True,
    )
    finished = run_or_reuse(stage)
    data = finished.result
    note(f"prepare: {data.pictures} pictures, {data.quarantined} unusable files, digest {data.digest}")
    return Prepared(stage="prepare", seconds=finished.seconds, reused=data.reused, data=data)


def manifest_fault(data: PreparedData) -> str:
    """Why a prepared set cannot be used; empty where it can."""
    manifest = Path(data.directory) / "manifest.jsonl"
    return "" if manifest.is_file() else f"{manifest} is missing"

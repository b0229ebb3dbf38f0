"""The judge ``vqa``: DPG-Bench's published one, mPLUG-large, in an interpreter of its own.

ModelScope ``damo/mplug_visual-question-answering_coco_large_en`` v1.0.0 needs old packages, hence another environment
(docs/judges.md). Questions are cut to 25 BERT tokens as upstream; only the exact answer ``yes`` counts, which the
rules decide. Not yet run on the original weights. Any other model as ``dpg.<name>``: the judges local and openai.
"""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.benchmark import JudgeTask
from evaluation.judges.opening import JudgePlace
from evaluation.judges.vqa_process import Asked, WorkerProcess
from evaluation.records import JudgeIdentity, Reply
from reca_core.contracts.errors import BadInput
from reca_core.contracts.judging import JudgeSettings

BENCHMARK = "dpg"
PUBLISHED_MODEL = "damo/mplug_visual-question-answering_coco_large_en"
PUBLISHED_REVISION = "v1.0.0"
LABEL = "not yet run on the original weights"
QUESTIONS_PER_CALL = 64


class VqaJudge:
    """Asks mPLUG."""

    batch_size = QUESTIONS_PER_CALL

    def __init__(self, worker: WorkerProcess, identity: JudgeIdentity) -> None:
        self.identity = identity
        self._worker = worker

    @classmethod
    def open(cls, place: JudgePlace, settings: JudgeSettings) -> VqaJudge:
        """Start the interpreter and load the model.

        Raises: BadInput for another benchmark; PrerequisiteMissing for an interpreter that does not get ready.
        """
        if place.benchmark != BENCHMARK:
            fact = f"mPLUG answers yes or no, {place.benchmark} asks for something else"
            raise BadInput(fact, field="judge.judge", choices=("openai", "local", "detector"))
        model = settings.weights or settings.model or PUBLISHED_MODEL
        attempts, timeout = settings.attempts, settings.timeout_seconds
        worker = WorkerProcess(settings.interpreter, model, PUBLISHED_REVISION, timeout, attempts)
        worker.start()
        identity = JudgeIdentity(
            name="vqa",
            model=settings.model or (PUBLISHED_MODEL if not settings.weights else "mplug"),
            sha256=str(worker.ready.get("sha256", "")),
            settings={"revision": PUBLISHED_REVISION, "note": LABEL},
        )
        return cls(worker, identity)

    def answer(self, tasks: Sequence[JudgeTask]) -> list[Reply]:
        """One reply per task: the model's own words, or why there are none."""
        told = self._worker.ask([Asked(task.picture.absolute(), task.question.text) for task in tasks])
        return [Reply(text=item.answer, error=item.error) for item in told]

    def close(self) -> None:
        """End the interpreter."""
        self._worker.end()

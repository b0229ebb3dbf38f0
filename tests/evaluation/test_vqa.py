"""mPLUG's interpreter may crash, hang, talk rubbish or stop half-way: what it answered is kept, the rest is open."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from evaluation.benchmark import JudgeTask
from evaluation.judges import vqa_process
from evaluation.judges.vqa import LABEL, VqaJudge
from evaluation.judges.vqa_worker import MARKS, MOST_TOKENS, truncated
from evaluation.records import Reply
from reca_core.contracts.errors import BadInput, PrerequisiteMissing, StageFailed
from reca_core.contracts.judging import JudgeSettings
from tests.evaluation.judging import place, save_picture, task, text_question

STAND_IN = """
    import json, os, sys, time
    worker, folder, model, revision = sys.argv[1:]
    state = {state!r}
    starts = len(open(state).read()) if os.path.exists(state) else 0
    open(state, "a").write("x")
    def ready():
        with open(folder + "/r.tmp", "w") as stream:
            json.dump({{"sha256": "f" * 64}}, stream)
        os.replace(folder + "/r.tmp", folder + "/ready.json")
    def wait(number):
        path = folder + "/questions-%06d.jsonl" % number
        while not os.path.exists(path):
            time.sleep(0.01)
        return [json.loads(line) for line in open(path)]
    def out(number):
        return open(folder + "/answers-%06d.jsonl" % number, "a", buffering=1)
    def tell(number, rows):
        with out(number) as stream:
            for row in rows:
                stream.write(json.dumps({{"id": row["id"], "answer": row["question"].upper()}}) + "\\n")
"""
FAITHFUL = """
ready()
number = 1
while True:
    tell(number, wait(number))
    number += 1
"""


@pytest.fixture
def pictures(tmp_path: Path) -> list[JudgeTask]:
    picture = save_picture(tmp_path / "a.png")
    return [task(picture, text_question(f"q{at}", ("sample", "text")), name=f"p{at}") for at in range(4)]


def stand_in(folder: Path, body: str) -> Path:
    """An executable that speaks the worker's files and does what ``body`` says."""
    path = folder / "python"
    program = textwrap.dedent(STAND_IN).format(state=str(folder / "starts"))
    path.write_text(f"#!{sys.executable}\n{program}\n{textwrap.dedent(body)}")
    path.chmod(0o755)
    return path


def opened(folder: Path, body: str, **settings: object) -> VqaJudge:
    given = {"judge": "vqa", "interpreter": str(stand_in(folder, body)), "timeout_seconds": 0.5, "attempts": 2}
    return VqaJudge.open(place(folder, "dpg"), JudgeSettings.model_validate({**given, **settings}))


def answers(folder: Path, body: str, tasks: list[JudgeTask]) -> list[Reply]:
    judge = opened(folder, body)
    try:
        return judge.answer(tasks)
    finally:
        judge.close()


def said(count: int) -> list[Reply]:
    return [Reply(text=f"Q{at}") for at in range(count)]


def test_answers_come_back_in_order_call_after_call(tmp_path: Path, pictures: list[JudgeTask]) -> None:
    judge = opened(tmp_path, FAITHFUL)
    assert judge.answer(pictures) == said(4)
    assert judge.answer(pictures[2:]) == said(4)[2:]
    judge.close()
    assert judge.identity.sha256 == "f" * 64
    assert judge.identity.settings["note"] == LABEL


HALF = "ready()\nrows = wait(1)\ntell(1, rows[:2])\n"
RECOVERS: dict[str, str] = {
    "crashes half-way": f"if starts:\n{textwrap.indent(FAITHFUL, '    ')}\n{HALF}sys.exit(3)\n",
    "hangs half-way": f"if starts:\n{textwrap.indent(FAITHFUL, '    ')}\n{HALF}time.sleep(60)\n",
    "is killed half-way": f"if starts:\n{textwrap.indent(FAITHFUL, '    ')}\n{HALF}os.kill(os.getpid(), 9)\n",
    "leaves half a line": (
        f"if starts:\n{textwrap.indent(FAITHFUL, '    ')}\n{HALF}"
        "out(1).write(json.dumps({'id': 2, 'answer': 'WRONG'})[:-3])\nsys.exit(1)\n"
    ),
    "talks rubbish in between": (
        "ready()\nrows = wait(1)\nstream = out(1)\n"
        'for row in rows:\n    stream.write(\'garbage\\n[1]\\n{"id": true, "answer": "x"}\\n\\x00\\xff\\n\')\n'
        "    stream.write(json.dumps({'id': 99, 'answer': 'x'}) + '\\n')\n    tell(1, [row])\ntime.sleep(60)\n"
    ),
    "answers twice": "ready()\nrows = wait(1)\ntell(1, rows[:3])\ntell(1, rows[:3])\ntell(1, rows)\ntime.sleep(60)\n",
    "answers out of order": "ready()\nrows = wait(1)\ntell(1, rows[::-1])\ntime.sleep(60)\n",
}


@pytest.mark.parametrize("fault", RECOVERS)
def test_a_passing_fault_costs_no_answer(tmp_path: Path, pictures: list[JudgeTask], fault: str) -> None:
    assert answers(tmp_path, RECOVERS[fault], pictures) == said(4)


FIRST_ONLY = "ready()\ntell(1, [row for row in wait(1) if row['id'] == 0])\n"
LASTS: dict[str, tuple[str, str]] = {
    "crashes": (f"{FIRST_ONLY}sys.exit(3)\n", "crashed 2 times"),
    "hangs": (f"{FIRST_ONLY}time.sleep(60)\n", "hung 2 times"),
}


@pytest.mark.parametrize("fault", LASTS)
def test_a_lasting_fault_is_an_outage_of_what_was_not_answered(
    tmp_path: Path, pictures: list[JudgeTask], fault: str
) -> None:
    body, reason = LASTS[fault]
    first, *others = answers(tmp_path, body, pictures[:3])
    assert first == Reply(text="Q0")
    assert [reply.text for reply in others] == ["", ""]
    assert all(reason in reply.error for reply in others)


def test_an_interpreter_that_answers_nothing_any_more_stops_the_judging(
    tmp_path: Path, pictures: list[JudgeTask]
) -> None:
    body = "ready()\nwait(1)\nout(1).write('<html>' * 1000 + '\\n')\nsys.exit(1)\n"
    with pytest.raises(StageFailed, match="crashed 6 times in a row"):
        answers(tmp_path, body, pictures)


def test_one_bad_picture_stops_no_other(tmp_path: Path, pictures: list[JudgeTask]) -> None:
    body = """
    ready()
    number = 1
    while True:
        for row in wait(number):
            if row["question"] == "q1":
                os._exit(1)
            tell(number, [row])
        number += 1
    """
    replies = answers(tmp_path, body, pictures)
    assert [reply.text for reply in replies] == ["Q0", "", "Q2", "Q3"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [('{"error": "no such file"}', "no such file"), ('{"answer": 1}', "no text"), ("{}", "no text")],
)
def test_a_row_without_an_answer_is_no_answer(tmp_path: Path, pictures: list[JudgeTask], row: str, reason: str) -> None:
    body = f"""
    ready()
    stream = out(1)
    for row in wait(1):
        stream.write(json.dumps({{**json.loads({row!r}), "id": row["id"]}}) + "\\n")
    time.sleep(60)
    """
    assert [reply.error for reply in answers(tmp_path, body, pictures)] == [
        reason if "such" in reason else f"the answer is {reason}"
    ] * 4


@pytest.mark.parametrize("body", ["sys.exit('no module named modelscope')", "os.kill(os.getpid(), 11)"])
def test_an_interpreter_that_does_not_get_ready_says_why(tmp_path: Path, body: str) -> None:
    with pytest.raises(PrerequisiteMissing, match=r"modelscope|wrote nothing"):
        opened(tmp_path, body)


def test_an_interpreter_that_never_gets_ready_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vqa_process, "START_SECONDS", 0.5)
    with pytest.raises(PrerequisiteMissing, match="did not get ready"):
        opened(tmp_path, "time.sleep(60)")


def test_a_missing_interpreter_and_another_benchmark_are_named(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteMissing, match="no such file"):
        VqaJudge.open(place(tmp_path, "dpg"), JudgeSettings(judge="vqa", interpreter="/absent/python"))
    with pytest.raises(BadInput, match="asks for something else"):
        VqaJudge.open(place(tmp_path, "gedit"), JudgeSettings(judge="vqa"))


def test_the_interpreter_does_not_get_the_key(
    tmp_path: Path, pictures: list[JudgeTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    body = """
    ready()
    stream = out(1)
    for row in wait(1):
        stream.write(json.dumps({"id": row["id"], "answer": os.environ.get("OPENAI_API_KEY", "none")}) + "\\n")
    time.sleep(60)
    """
    assert {reply.text for reply in answers(tmp_path, body, pictures)} == {"none"}


def test_nothing_is_left_when_the_judge_is_killed(tmp_path: Path) -> None:
    """Its interpreter ignores its standard input, and still ends with it."""
    body = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\nready()\ntime.sleep(60)\n"
    program = (
        "from pathlib import Path\nfrom evaluation.judges.vqa_process import WorkerProcess\nimport time\n"
        f"worker = WorkerProcess({str(stand_in(tmp_path, body))!r}, 'm', 'v', 1.0, 1)\n"
        "worker.start()\nprint('started', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        pid = int((tmp_path / "pid").read_text())
        assert psutil.pid_exists(pid)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


# --- the worker itself ------------------------------------------------------------------------------------------------

MODELSCOPE = """
from types import SimpleNamespace
from PIL import Image

class Tokenizer:
    def tokenize(self, text):
        return text.split()

class Pipeline:
    preprocessor = SimpleNamespace(tokenizer=Tokenizer())
    model = SimpleNamespace(model_dir={folder!r})

    def __call__(self, given):
        assert isinstance(given["image"], Image.Image) and given["image"].mode == "RGB"
        return {{"text": "yes" if "red" in given["question"] else given["question"]}}

def pipeline(task, model, model_revision):
    assert (task, model_revision) == ("visual-question-answering", "v1.0.0"), (task, model_revision)
    return Pipeline()
"""


@pytest.fixture
def modelscope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of that name with the same entrances."""
    root = tmp_path / "site"
    (root / "modelscope" / "utils").mkdir(parents=True)
    (root / "modelscope" / "__init__.py").touch()
    (root / "modelscope" / "utils" / "__init__.py").touch()
    constants = "class Tasks:\n    visual_question_answering = 'visual-question-answering'\n"
    (root / "modelscope" / "utils" / "constant.py").write_text(constants)
    (root / "modelscope" / "pipelines.py").write_text(MODELSCOPE.format(folder=str(tmp_path)))
    (tmp_path / "pytorch_model.bin").write_bytes(b"weights")
    monkeypatch.setenv("PYTHONPATH", str(root))
    return root


@pytest.mark.usefixtures("modelscope")
def test_the_worker_answers_through_modelscope(tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "a.png")
    broken = tmp_path / "b.png"
    broken.write_bytes(b"no picture")
    long = "Is " + " ".join(["word"] * 40) + " red?"
    questions = [(picture, "Is it red?"), (broken, "Is it red?"), (picture, "Is it?"), (picture, long)]
    tasks = [task(path, text_question(text, ("sample", "text"))) for path, text in questions]
    settings = JudgeSettings(judge="vqa", interpreter=sys.executable, timeout_seconds=20)
    judge = VqaJudge.open(place(tmp_path, "dpg"), settings)
    yes, unread, no, cut = judge.answer(tasks)
    judge.close()
    assert yes == Reply(text="yes")
    assert "UnidentifiedImageError" in unread.error
    assert no == Reply(text="is it?")
    assert cut.text.split() == ["is", *["word"] * (MOST_TOKENS - MARKS - 1)], "the end is not read, as upstream"
    assert len(judge.identity.sha256) == 64


def test_the_worker_needs_nothing_of_this_project() -> None:
    """Its interpreter has other, older packages."""
    worker = Path(vqa_process.WORKER)
    imports = [line for line in worker.read_text().splitlines() if line.strip().startswith(("import ", "from "))]
    named = {line.split()[1].split(".")[0] for line in imports}
    assert named - set(sys.stdlib_module_names) == {"modelscope", "PIL"}


def bert(folder: Path) -> object:
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "is", "the", "un", "##aff", "##able", "red", "?", ",", "a"]
    (folder / "vocab.txt").write_text("\n".join(words))
    return BertTokenizer(str(folder / "vocab.txt"))


@pytest.mark.parametrize(
    "question",
    [
        "Is the red?",
        "IS  the\n unaffable red?",
        "a " * 22 + "unaffable red?",
        "a " * 21 + "unaffable red?",
        "unaffable " * 9,
        "a," * 30,
        "xyz " * 30,
        "",
    ],
)
def test_a_cut_question_has_exactly_the_tokens_that_the_model_reads(tmp_path: Path, question: str) -> None:
    tokenizer = bert(tmp_path)
    full = tokenizer(question.lower(), truncation=True, max_length=MOST_TOKENS)["input_ids"]  # type: ignore[operator]
    cut = truncated(question, tokenizer)
    assert tokenizer(cut)["input_ids"] == full  # type: ignore[operator]
    assert truncated(cut, tokenizer) == cut


def test_files_are_plain_json_lines(tmp_path: Path, pictures: list[JudgeTask]) -> None:
    body = f"""
    ready()
    open({str(tmp_path / "seen")!r}, "w").write(json.dumps(wait(1)))
    tell(1, wait(1))
    time.sleep(60)
    """
    answers(tmp_path, body, pictures)
    (first, *_) = json.loads((tmp_path / "seen").read_text())
    assert first == {"id": 0, "picture": str(pictures[0].picture), "question": "q0"}
    assert os.path.isabs(first["picture"])

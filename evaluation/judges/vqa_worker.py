"""Answers DPG-Bench's questions with mPLUG-large inside the interpreter that has modelscope (docs/judges.md).

Run by ``evaluation/judges/vqa_process.py`` as ``PYTHON vqa_worker.py FOLDER MODEL REVISION``; talks through files in
FOLDER: ``ready.json`` when the model is loaded; then for every ``questions-NNNNNN.jsonl`` an ``answers-NNNNNN.jsonl``,
a line per question as soon as it is answered. Ends when its standard input closes. Old interpreters run it: standard
library and modelscope only, nothing of this project. Not yet run on the original weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time

MOST_TOKENS = 25
"""BERT tokens of a question, the two marks at its ends included (modelscope, MPlugPreprocessor)."""
MARKS = 2
POLL_SECONDS = 0.05
CHUNK_BYTES = 1 << 20
WEIGHTS_FILE = "pytorch_model.bin"
ARGUMENTS = 4


def truncated(question, tokenizer):
    """The beginning of a question that the model reads, in its own spelling; unchanged if all of it is read.

    Args:
        question: any text; the model reads it in lower case.
        tokenizer: a BERT tokenizer with ``tokenize``.
    """
    words = question.lower().split()
    kept, used = [], 0
    for word in words:
        pieces = len(tokenizer.tokenize(word))
        if used + pieces > MOST_TOKENS - MARKS:
            return " ".join(kept + part_of(word, MOST_TOKENS - MARKS - used, tokenizer))
        kept.append(word)
        used += pieces
    return " ".join(kept)


def part_of(word, room, tokenizer):
    """The longest beginning of a word with exactly ``room`` pieces, as a list that is empty where there is none."""
    whole = tokenizer.tokenize(word)[:room]
    for end in range(len(word), 0, -1):
        if room and tokenizer.tokenize(word[:end]) == whole:
            return [word[:end]]
    return []


class Model:
    """mPLUG through modelscope's pipeline."""

    def __init__(self, model, revision):
        from modelscope.pipelines import pipeline
        from modelscope.utils.constant import Tasks

        self.pipeline = pipeline(Tasks.visual_question_answering, model=model, model_revision=revision)
        self.tokenizer = self.pipeline.preprocessor.tokenizer
        self.folder = self.pipeline.model.model_dir

    def answer(self, picture, question):
        """Question as it was read, and the answer, both as text."""
        from PIL import Image

        read = truncated(question, self.tokenizer)
        with Image.open(picture) as opened:
            said = self.pipeline({"image": opened.convert("RGB"), "question": read})
        return read, said["text"]


def file_hash(path):
    """Hex SHA-256 of a file; empty where it is not there."""
    if not os.path.isfile(path):
        return ""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK_BYTES), b""):
            digest.update(chunk)
    return digest.hexdigest()


def write(path, text):
    """Write a file that appears complete."""
    with open(path + ".tmp", "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(path + ".tmp", path)


def serve(folder, model):
    """Answer every questions file in the order of their numbers, for ever."""
    number = 1
    while True:
        questions = os.path.join(folder, f"questions-{number:06d}.jsonl")
        if not os.path.isfile(questions):
            time.sleep(POLL_SECONDS)
            continue
        with open(questions, encoding="utf-8") as stream:
            rows = [json.loads(line) for line in stream]
        with open(os.path.join(folder, f"answers-{number:06d}.jsonl"), "w", encoding="utf-8") as stream:
            for row in rows:
                stream.write(json.dumps(answered(row, model)) + "\n")
                stream.flush()
        number += 1


def answered(row, model):
    """The answer's line: ``{"id", "read", "answer"}``, or ``{"id", "error"}`` for a picture that cannot be read."""
    try:
        read, answer = model.answer(row["picture"], row["question"])
    except (OSError, ValueError, RuntimeError) as error:
        return {"id": row["id"], "error": f"{type(error).__name__}: {error}"}
    return {"id": row["id"], "read": read, "answer": answer}


def end_with_parent():
    """Leave when standard input closes: whoever started this is gone."""
    sys.stdin.read()
    os._exit(1)


def main():
    """Load, say so, serve."""
    if len(sys.argv) != ARGUMENTS:
        sys.exit("usage: vqa_worker.py FOLDER MODEL REVISION")
    _, folder, name, revision = sys.argv
    threading.Thread(target=end_with_parent, daemon=True).start()
    model = Model(name, revision)
    ready = {"sha256": file_hash(os.path.join(model.folder, WEIGHTS_FILE)), "most_tokens": MOST_TOKENS}
    write(os.path.join(folder, "ready.json"), json.dumps(ready))
    serve(folder, model)


if __name__ == "__main__":
    main()

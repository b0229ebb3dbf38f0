"""`reca score` as a test calls it: files written into its own folder, exit status, result and what was said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.cli import main

HEADER = "item_id,proposition_id,dependency,tuple,question_natural_language\n"
Found = tuple[int, dict[str, Any], str]


class Command:
    """Writes files into a folder of its own and scores them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def file(self, name: str, content: Any) -> Path:
        path = self.folder / name
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def __call__(self, *words: str | Path) -> Found:
        """Exit status, result, and what was said."""
        output = self.folder / "result.json"
        output.unlink(missing_ok=True)
        status = main(["score", *map(str, words), "--output", str(output)])
        said = self.capsys.readouterr()
        return status, json.loads(output.read_text()) if output.exists() else {}, said.out + said.err

    def geneval(self, *lines: str, end: str = "\n") -> Found:
        return self("geneval", "--answers", self.file("pictures.jsonl", end.join(lines)))

    def dpg(self, rows: str, answers: Any, *more: str) -> Found:
        table, said = self.file("table.csv", HEADER + rows), self.file("answers.json", answers)
        return self("dpg", "--questions", table, "--answers", said, "--layout", "first_image", *more)

    def imgedit(self, answers: Any, *more: str | Path) -> Found:
        return self("imgedit", "--answers", self.file("replies.json", answers), *more)

    def gedit(self, *lines: Any, arithmetic: str = "corrected") -> Found:
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        return self("gedit", "--replies", self.file("replies.jsonl", text), "--arithmetic", arithmetic)

    def rows(self, rows: list[Any], arithmetic: str) -> Found:
        runs = [{"name": "r", "rows": rows}]
        return self("gedit", "--rows", self.file("rows.json", runs), "--arithmetic", arithmetic)


def values(result: dict[str, Any]) -> list[Any]:
    return [item["values"] for item in result["items"]]

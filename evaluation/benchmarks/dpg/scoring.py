"""From answers to the score of one picture file: exact ``yes``, zeroed parents, mean over all questions.

A *file* is what the judge was given at once: upstream a grid of several pictures of one item, in RecA's copy one
picture. It fails as a whole when a parent is asked for that the item does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.aggregate import plain_mean
from evaluation.benchmarks.dpg.table import DpgQuestion
from evaluation.records import Scored, Unscored

YES = "yes"
"""The only reply that counts: case, spaces and punctuation matter."""
SCORE = "score"

Questions = Mapping[int, DpgQuestion]
Answers = Mapping[int, str]


class MissingParent(LookupError):
    """A question depends on one that its item does not have."""


def raw_scores(questions: Questions, answers: Answers) -> dict[int, float]:
    """1 for an exact ``yes``, else 0. Raises KeyError for a question without an answer."""
    return {number: float(answers[number] == YES) for number in questions}


def zeroed_scores(questions: Questions, raw: Mapping[int, float]) -> dict[int, float]:
    """Scores after dependencies: walking in file order, a question with a parent at 0 becomes 0 itself.

    In place, so zeros cascade where parents come first; a child listed before its parent sees the parent's raw score.
    Parents are looked at until the first zero, so a missing one behind it goes unnoticed, as upstream.

    Raises: MissingParent.
    """
    scores = dict(raw)
    for number, question in questions.items():
        for parent in question.parents:
            if parent not in scores:
                raise MissingParent(f"question {number} depends on question {parent}, which the item does not have")
            if scores[parent] == 0:
                scores[number] = 0.0
                break
    return scores


def unscored_file(questions: Questions | None, pictures: int, reason: str, outage: bool = False) -> Unscored:
    """A file without a score; its questions are still expected in the categories."""
    evidence = {"categories": _categories(questions or {}), "pictures": pictures}
    return Unscored(reason=reason, evidence=evidence, outage=outage)


def _categories(questions: Questions) -> dict[str, str]:
    return {str(number): question.category for number, question in questions.items()}


def score_file(questions: Questions | None, pictures: Sequence[Answers], expected: int) -> Scored | Unscored:
    """The score of a file: the mean over its pictures of the mean over all questions, zeroed ones included.

    Args:
        pictures: the answers about each picture; extra ones are not looked at.
        expected: how many pictures the file must have.
    """
    if not questions:
        return unscored_file(questions, expected, "the question table has no question about this item")
    if len(pictures) < expected:
        return unscored_file(questions, expected, f"answers about {len(pictures)} of {expected} pictures")
    pictures = pictures[:expected]
    for number, answers in enumerate(pictures):
        if unanswered := [str(question) for question in questions if question not in answers]:
            reason = f"picture {number}: no answer to question {', '.join(unanswered)}"
            return unscored_file(questions, expected, reason)
    raw = [raw_scores(questions, answers) for answers in pictures]
    try:
        zeroed = [zeroed_scores(questions, scores) for scores in raw]
    except MissingParent as error:
        return unscored_file(questions, expected, str(error))
    image_scores = [plain_mean(list(scores.values())) for scores in zeroed]
    evidence = {
        "image_scores": image_scores,
        "raw_scores": {str(number): score for number, score in raw[-1].items()},
        "categories": _categories(questions),
        "pictures": expected,
        "raw": [list(scores.values()) for scores in raw],
        "zeroed": [list(scores.values()) for scores in zeroed],
    }
    return Scored(values={SCORE: plain_mean(image_scores)}, evidence=evidence)

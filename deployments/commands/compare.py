"""``reca compare A B``: two judged sets of pictures, paired by prompt, with intervals; unequal ones are refused."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from deployments.context import Context
from deployments.outcome import model_name, show_comparison
from evaluation.compare import RESULT_FILE, read_measurement
from evaluation.compare import compare as compare_measurements
from reca_core.contracts.errors import EXIT_DONE, BadInput
from reca_core.contracts.home import Home
from tasks.report_scores import Scores, section


def compare(options: Namespace, context: Context) -> int:
    """Print and return the comparison. Raises ComparisonRefused with the reason where the two are not comparable."""
    home = context.surroundings.home
    base, trained = (find_answers(typed, context.path(typed), home) for typed in (options.base, options.trained))
    before, after = (read_measurement(side, options.arithmetic) for side in (base, trained))
    comparison = compare_measurements(before, after, options.resamples)
    scores = Scores(comparison.benchmark, before.table, after.table, comparison)
    show_comparison(section(scores), model_name(base), model_name(trained), context.terminal)
    document = {"base": str(base), "trained": str(trained), "comparison": comparison.model_dump(mode="json")}
    context.terminal.answer(document)
    return EXIT_DONE


def find_answers(typed: str, path: Path, home: Home) -> Path:
    """A folder of answers, by path or by the beginning of its hash. Raises BadInput with what there is."""
    if (path / RESULT_FILE).is_file():
        return path
    known = sorted(folder.parent for folder in home.root.glob(f"answers/*/{RESULT_FILE}"))
    found = [folder for folder in known if typed and folder.name.startswith(typed)]
    if len(found) == 1:
        return found[0]
    fact = f"{len(found)} folders of answers begin so" if found else "no folder of answers has this name"
    raise BadInput(
        fact, field=typed, choices=[folder.name for folder in found or known], remedy="see answers/ below the home"
    )

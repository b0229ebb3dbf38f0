"""``reca doctor``: prints every finding with its remedy; exit status 0 if nothing is wrong, else 3.

``reca doctor --detector FILE`` looks at mmdetection's weights alone: the published hash, conversion, three photographs.
"""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from deployments.context import Context
from deployments.stack_doctor import Finding, examine
from reca_core.contracts.errors import EXIT_DONE, EXIT_PREREQUISITE, BadInput


def doctor(options: Namespace, context: Context) -> int:
    """Examine the home and the machine, or one detector file. Raises BadInput, StageFailed for a wrong file."""
    if options.detector:
        findings = detector_findings(context.path(options.detector), context.surroundings.home.cache)
    else:
        findings = examine(context.surroundings, os.environ)
    for finding in findings:
        context.terminal.line(f"{'MEND' if finding.remedy else 'ok':<5} {finding.check:<12} {finding.fact}")
        if finding.remedy:
            context.terminal.line(f"{'':<18} remedy: {finding.remedy}")
    wrong = [finding for finding in findings if finding.remedy]
    exit_code = EXIT_PREREQUISITE if wrong else EXIT_DONE
    context.terminal.answer({"findings": [asdict(finding) for finding in findings]}, exit_code)
    return exit_code


def detector_findings(file: Path, cache: Path) -> list[Finding]:
    """What was found out about mmdetection's file; from then on results made with it say that it was checked."""
    from evaluation.judges.detector_sanity import check_original
    from evaluation.judges.devices import pick_device

    if not file.is_file():
        raise BadInput("is no file", field=f"--detector {file}", remedy="docs/judges.md says where it is published")
    return [Finding("detector", fact) for fact in check_original(file, cache, pick_device("auto"))]

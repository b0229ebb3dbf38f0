"""``reca doctor``: prints every finding with its remedy; exit status 0 if nothing is wrong, else 3."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import asdict

from deployments.context import Context
from deployments.stack_doctor import examine
from reca_core.contracts.errors import EXIT_DONE, EXIT_PREREQUISITE


def doctor(options: Namespace, context: Context) -> int:
    """Examine the home and the machine."""
    findings = examine(context.surroundings, os.environ)
    for finding in findings:
        context.terminal.line(f"{'MEND' if finding.remedy else 'ok':<5} {finding.check:<12} {finding.fact}")
        if finding.remedy:
            context.terminal.line(f"{'':<18} remedy: {finding.remedy}")
    wrong = [finding for finding in findings if finding.remedy]
    exit_code = EXIT_PREREQUISITE if wrong else EXIT_DONE
    context.terminal.answer({"findings": [asdict(finding) for finding in findings]}, exit_code)
    return exit_code

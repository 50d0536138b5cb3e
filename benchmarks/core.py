"""Measures the core against its targets: sends, events, streams and the import.

See README.md beside this file for what each line means.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from _core.environments import Contender, default_home, interpreter
from _core.measure import JOBS, Job, Plan, measure
from _core.report import print_report

FULL = Plan(rounds=5, budget=0.3, imports=4)
QUICK = Plan(rounds=2, budget=0.1, imports=2)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    jobs = [job for job in JOBS if not options.only or job.scenario in options.only]
    plan = QUICK if options.quick else FULL
    results = measure(plan, jobs, _interpreters(jobs, options.envs.resolve(), options.python))
    all_met = print_report(results, options.tolerance)
    return 1 if options.check and not all_met else 0


def _interpreters(jobs: Sequence[Job], home: Path, python: str) -> dict[Contender, Path]:
    contenders = dict.fromkeys(contender for job in jobs for contender in job.contenders)
    return {contender: interpreter(contender, home, python) for contender in contenders}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="the interpreter to make environments with")
    parser.add_argument("--envs", type=Path, default=default_home(), help="where environments are kept (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repeats: figures are coarse")
    parser.add_argument("--only", action="append", choices=sorted({job.scenario for job in JOBS}))
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--tolerance", type=float, default=0.0, help="excess allowed: 0.1 is a tenth of a limit")
    return parser


if __name__ == "__main__":
    sys.exit(main())

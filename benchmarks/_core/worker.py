"""Runs one scenario in the environment of one contender and prints its values as JSON."""

from __future__ import annotations

import argparse
import json
import logging

import anyio

from _core.scenarios import SCENARIOS
from _core.timing import Clock

BACKENDS = {"asyncio": ("asyncio", {}), "uvloop": ("asyncio", {"use_uvloop": True}), "trio": ("trio", {})}


def main() -> None:
    arguments = _arguments()
    logging.getLogger("cqrs").setLevel(logging.WARNING)
    backend, options = BACKENDS[arguments.backend]
    clock = Clock(budget_seconds=arguments.budget)
    values = anyio.run(SCENARIOS[arguments.scenario], clock, backend=backend, backend_options=options)
    print(json.dumps(values))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--backend", choices=BACKENDS, default="asyncio")
    parser.add_argument("--budget", type=float, default=0.5, help="seconds to spend on a line")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Runs a program of a trial: `python -m tests.adversary.child CONFIG`, CONFIG being JSON."""

from __future__ import annotations

import json
import sys

from tests.adversary.messages import MessageProgram
from tests.adversary.program import Program
from tests.adversary.statements import DatabaseProgram
from tests.adversary.steps import BROKERS, DATABASES

__all__: list[str] = []


def main() -> None:
    config = json.loads(sys.argv[1])
    kind = Program
    if config["scheme"] in DATABASES:
        kind = DatabaseProgram
    elif config["scheme"] in BROKERS:
        kind = MessageProgram
    kind(config).run()


if __name__ == "__main__":
    main()

"""`python -m trunkline`: the same as the command `trunkline`."""

from __future__ import annotations

import sys

from trunkline.cli import main

if __name__ == "__main__":
    sys.exit(main())

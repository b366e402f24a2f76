"""`python -m trunkline`: the same as the command `trunkline`."""

from __future__ import annotations

import sys

from trunkline.system.interpreter import leave_current_folder

if __name__ == "__main__":
    leave_current_folder()
    from trunkline.cli import main

    sys.exit(main())

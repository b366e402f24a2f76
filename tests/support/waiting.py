"""The waits of tests, which users' tests have, too."""

from trunkline.testing.waiting import Background, until

__all__ = ["Background", "until"]

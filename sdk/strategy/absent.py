"""Globals that only the platform FMZ has.

Using such a global raises an error that names a replacement.
"""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["ABSENT", "Absent"]


class Absent:
    """A global without an implementation.

    The bare name is harmless; calling it or reading an attribute raises.
    """

    def __init__(self, name: str, instead: str) -> None:
        self._name = name
        self._instead = instead

    def __call__(self, *args: Any, **named: Any) -> NoReturn:
        self._raise_explanation(self._name)

    def __getattr__(self, name: str) -> NoReturn:
        self._raise_explanation(f"{self._name}.{name}")

    def _raise_explanation(self, what: str) -> NoReturn:
        raise AttributeError(
            f"{what} belongs to the original's platform and is not here; {self._instead}"
        )

    def __repr__(self) -> str:
        return f"<{self._name}: not here>"


ABSENT: dict[str, Absent] = {
    name: Absent(name, instead)
    for name, instead in {
        "Chart": "LogStatus draws tables, LogProfit a curve",
        "KLineChart": "LogStatus draws tables, LogProfit a curve",
        "TA": "use a library of indicators, such as TA-Lib or pandas-ta",
        "ext": "import the module that the template stands for",
        "threading": "import Python's threading, or multiprocessing with the handle of fd()",
        "SetChannelData": "write to a connection that both strategies dial, such as nats or mqtt",
        "GetChannelData": "read from a connection that both strategies dial, such as nats or mqtt",
        "__Serve": "Python's http.server, or a message broker",
    }.items()
}

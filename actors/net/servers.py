"""The failover rule for addresses with several servers, the same for all schemes.

The servers are tried in order. After any failure (connection refused, another protocol, a refused
login) the next server is tried. When the last server has failed too, the error tells every reason.
Every server gets an equal share of the remaining time: a silent server leaves time for the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from trunkline.actors.driver import FatalError
from trunkline.deadline import Deadline
from trunkline.errors import DialError

__all__ = ["first_that_opens", "first_that_opens_here", "join_failures", "time_to_tell"]

S = TypeVar("S")
T = TypeVar("T")


async def first_that_opens(
    servers: Sequence[S], attempt: Callable[[S, Deadline], Awaitable[T]], deadline: Deadline
) -> T:
    """Try the servers in order, and return the result of the first `attempt` that succeeds.

    An attempt fails with DialError or OSError. Any other error is raised at once. When no attempt
    succeeds, the joined error of `join_failures` is raised."""
    failures: list[Exception] = []
    for server, share in _turns(servers, deadline):
        try:
            return await attempt(server, share)
        except (DialError, OSError) as error:
            failures.append(error)
    raise join_failures(failures)


def first_that_opens_here(
    servers: Sequence[S], attempt: Callable[[S, Deadline], T], deadline: Deadline
) -> T:
    """As `first_that_opens`, for drivers that block the calling thread."""
    failures: list[Exception] = []
    for server, share in _turns(servers, deadline):
        try:
            return attempt(server, share)
        except (DialError, OSError) as error:
            failures.append(error)
    raise join_failures(failures)


def time_to_tell(deadline: Deadline) -> float:
    """How many seconds before the deadline an attempt should give up.

    The remaining time is for an error with the name of the silent server. At the deadline the
    caller would only learn of the timeout."""
    return min(1.0, deadline.left() / 4)


def _turns(servers: Sequence[S], deadline: Deadline) -> Iterator[tuple[S, Deadline]]:
    """The servers with the deadlines of their attempts: equal shares of the remaining time."""
    for number, server in enumerate(servers):
        left, behind = deadline.timeout(), len(servers) - number
        yield server, deadline if left is None or behind == 1 else Deadline(left / behind)


def join_failures(failures: Sequence[Exception]) -> Exception:
    """Join the errors of the servers into one error with every reason.

    A FatalError only where every failure is fatal. `code`: the common code, or None.
    `retry_after_s`: the shortest wait that a server asks for."""
    if len(failures) == 1:
        return failures[0]
    text = "; ".join(dict.fromkeys(str(error) or type(error).__name__ for error in failures))
    codes = {getattr(error, "code", None) for error in failures}
    asked = [s for error in failures if (s := getattr(error, "retry_after_s", None)) is not None]
    kind = FatalError if all(isinstance(error, FatalError) for error in failures) else DialError
    return kind(
        text,
        code=codes.pop() if len(codes) == 1 else None,
        retry_after_s=min(asked) if asked else None,
    )

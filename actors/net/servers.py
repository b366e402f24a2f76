"""Which of the servers in an address is taken: one rule for every scheme.

The servers are tried in order. Whatever is wrong with one of them (nobody listens there, it speaks something
else, it refuses the login), the next one is tried; when all have failed, the error has the reason of each.
Each server gets its share of the time that is left, so that a silent one leaves some for those behind it.
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
    """What `attempt` returned for the first server with which it raised neither DialError nor OSError. Raises
    what `join_failures` makes of the errors of all of them."""
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
    """The same for drivers that block the thread that they are called on."""
    failures: list[Exception] = []
    for server, share in _turns(servers, deadline):
        try:
            return attempt(server, share)
        except (DialError, OSError) as error:
            failures.append(error)
    raise join_failures(failures)


def time_to_tell(deadline: Deadline) -> float:
    """The seconds that an attempt leaves of its deadline, so that a server that does not answer can be named
    before the caller hears only that his time is over."""
    return min(1.0, deadline.left() / 4)


def _turns(servers: Sequence[S], deadline: Deadline) -> Iterator[tuple[S, Deadline]]:
    """Each server, and the time that its attempt may take: an equal share of what is left."""
    for number, server in enumerate(servers):
        left, behind = deadline.timeout(), len(servers) - number
        yield server, deadline if left is None or behind == 1 else Deadline(left / behind)


def join_failures(failures: Sequence[Exception]) -> Exception:
    """One error with the reasons of all; a FatalError only where another attempt would help with none."""
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

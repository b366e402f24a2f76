"""Requests to begin and to end a transaction. Runs on the event loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from trunkline.actors.database.admission import (
    Entry,
    admit_transaction,
    explain_transaction_given_up,
    explain_transaction_over,
)
from trunkline.actors.database.handover import Handover
from trunkline.actors.database.interrupts import Interrupts
from trunkline.actors.database.jobs import (
    AnswerJob,
    Job,
    begin_transaction,
    commit_transaction,
    roll_back_transaction,
)
from trunkline.actors.database.line import Line, Waiting
from trunkline.wire import values

__all__ = ["Transactions"]

MOST_GIVEN_UP = 256
"""How many transactions that were given up before they began are remembered."""


class Transactions:
    """Takes the requests of one connection to begin, commit or roll back."""

    def __init__(
        self,
        line: Line[Job],
        handover: Handover,
        interrupts: Interrupts,
        *,
        answer: AnswerJob,
        enqueue: Callable[[Waiting[Job]], None],
    ) -> None:
        """`answer` answers a job. `enqueue` puts a job into the line."""
        self._line = line
        self._handover = handover
        self._interrupts = interrupts
        self._answer = answer
        self._enqueue = enqueue
        self._given_up: deque[bytes] = deque(maxlen=MOST_GIVEN_UP)
        """Tokens of transactions whose rollback came before their BEGIN. Such a BEGIN is not run.
        """

    def take_request(self, holder: bytes, token: bytes, job: Job, modes: str) -> None:
        """Put a request into the line, or answer the request now.

        `job.what` is "begin", "commit" or "rollback"; any other word raises KeyError.
        `modes` stand behind BEGIN.
        """
        begins = job.what == "begin"
        if begins:
            job.run = partial(begin_transaction, modes=modes)
        else:
            job.run = {"commit": commit_transaction, "rollback": roll_back_transaction}[job.what]
        is_given_up = token in self._given_up
        entry = admit_transaction(
            job.what, is_given_up=is_given_up, is_over=self._line.stale(token)
        )
        if entry is Entry.WAIT:
            job.begins = token if begins else None
            self._enqueue(Waiting(holder, None if begins else token, job))
        elif entry is Entry.GIVEN_UP:
            self._answer(job, error=explain_transaction_given_up())
        elif entry is Entry.OVER:
            self._answer(job, error=explain_transaction_over())
        else:
            self._forget_begin(token)
            # The rollback may have overtaken its BEGIN, which is refused when it comes.
            self._given_up.append(token)
            self._answer(job, body=values.pack(None))

    def _forget_begin(self, token: bytes) -> None:
        """Give up the BEGIN of a transaction that no caller waits for.

        A waiting BEGIN is taken out of the line. A running BEGIN is stopped.
        """
        waiting = self._line.find(lambda each: each.job.begins == token)
        running = self._handover.running
        if waiting and self._line.remove(waiting[0]):
            self._answer(waiting[0].job, error=explain_transaction_given_up())
        elif running is not None and running.job.begins == token:
            self._interrupts.give_up(running)

"""Which subjects the server lets this link publish to, as far as that is known. No I/O.

A server says that a subject is refused, and says nothing where it is allowed: after a round trip without a
refusal a subject counts as allowed. nats-py makes the server's words lower case, so that refused subjects are
compared in lower case.
"""

from __future__ import annotations

__all__ = ["PublishRights"]

_SUBJECTS_KEPT = 1000


class PublishRights:
    """See the module. `own_subject`: the address's subject to write to, None for none."""

    def __init__(self, own_subject: str | None) -> None:
        self._own_subject = own_subject
        self.is_own_allowed = False
        """The server has let the link publish to its own subject."""
        self._allowed: set[str] = set()
        """Subjects of messages with a topic of their own that the server lets us publish to."""
        self._checking: set[str] = set()
        """Subjects, in lower case, whose first message the server has not looked at yet."""
        self._refused: dict[str, str] = {}
        """What the server said of subjects, in lower case, that we may not publish to."""

    def is_known(self, subject: str) -> bool:
        """A message with this topic of its own was let through before."""
        return subject in self._allowed

    def begin_check(self, subject: str) -> None:
        """A message to `subject` goes out, and it is not known whether it may."""
        self._refused.pop(subject.lower(), None)
        self._checking.add(subject.lower())

    def end_check(self, subject: str) -> str | None:
        """The words of the refusal, where the server has refused the subject meanwhile."""
        self._checking.discard(subject.lower())
        return self._refused.pop(subject.lower(), None)

    def note_own_allowed(self, subject: str) -> None:
        """The server has looked at a message to `subject` and did not refuse it."""
        if subject == self._own_subject:
            self.is_own_allowed = True

    def note_allowed(self, subject: str) -> None:
        """Messages with this topic of their own need not be checked again."""
        if len(self._allowed) < _SUBJECTS_KEPT:
            self._allowed.add(subject)

    def withdraw(self, low_subject: str) -> None:
        """The server has refused a subject: what was known before may be true no longer."""
        self.is_own_allowed = False
        self._allowed.discard(low_subject)

    def is_checking(self, low_subject: str) -> bool:
        """A message to this subject was sent a moment ago."""
        return low_subject in self._checking

    def is_writers(self, low_subject: str) -> bool:
        """The subject is one that the program writes to, not one of JetStream's questions."""
        return self.is_checking(low_subject) or low_subject == (self._own_subject or "").lower()

    def note_refused(self, low_subject: str, words: str) -> None:
        self._refused[low_subject] = words

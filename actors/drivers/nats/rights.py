"""The subjects that the server lets this link publish to, as far as is known. No I/O.

A server reports a refused subject and is silent about an allowed one. After a round trip without a
refusal a subject counts as allowed. nats-py changes the server's words to lower case, so refused
subjects are compared in lower case.
"""

from __future__ import annotations

__all__ = ["PublishRights"]

_SUBJECTS_KEPT = 1000


class PublishRights:
    """The known rights of one link.

    `own_subject`: the address's subject for writing, or None.
    """

    def __init__(self, own_subject: str | None) -> None:
        self._own_subject = own_subject
        self.is_own_allowed = False
        """Whether the server has let the link publish to its own subject."""
        self._allowed: set[str] = set()
        """Allowed subjects of messages that name their own topic."""
        self._checking: set[str] = set()
        """Subjects, in lower case, whose first message the server has not looked at yet."""
        self._refused: dict[str, str] = {}
        """The server's words of refusal, by subject in lower case."""

    def is_known(self, subject: str) -> bool:
        """Whether a message to this topic was let through before."""
        return subject in self._allowed

    def begin_check(self, subject: str) -> None:
        """Note that a message goes out to a subject of which the rights are unknown."""
        self._refused.pop(subject.lower(), None)
        self._checking.add(subject.lower())

    def end_check(self, subject: str) -> str | None:
        """End the check; return the words of the refusal, or None where the server has not refused
        the subject.
        """
        self._checking.discard(subject.lower())
        return self._refused.pop(subject.lower(), None)

    def note_own_allowed(self, subject: str) -> None:
        """Note that the server has processed a message to `subject` without refusing it."""
        if subject == self._own_subject:
            self.is_own_allowed = True

    def note_allowed(self, subject: str) -> None:
        """Note that messages to this topic need no check any more. At most 1000 topics are kept."""
        if len(self._allowed) < _SUBJECTS_KEPT:
            self._allowed.add(subject)

    def withdraw(self, low_subject: str) -> None:
        """Forget earlier permissions: the server has refused a subject, so rights may have
        changed.
        """
        self.is_own_allowed = False
        self._allowed.discard(low_subject)

    def is_checking(self, low_subject: str) -> bool:
        """Whether the first message to this subject was sent a moment ago."""
        return low_subject in self._checking

    def is_writers(self, low_subject: str) -> bool:
        """Whether the program writes to the subject.

        Otherwise a question of JetStream's API goes there.
        """
        return self.is_checking(low_subject) or low_subject == (self._own_subject or "").lower()

    def note_refused(self, low_subject: str, words: str) -> None:
        self._refused[low_subject] = words

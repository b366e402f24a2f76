"""The sentences about a link that fails, in errors and beside the mark of a loss. Pure.

No sentence shows a secret of the address, even where a peer repeats a secret.
"""

from __future__ import annotations

from trunkline.actors.driver import PeerClosed
from trunkline.actors.net import tls
from trunkline.actors.net.peer_words import own_secrets, without_secrets
from trunkline.address import Address
from trunkline.address.host import join_host_port
from trunkline.errors import BrokenError, DialError, DialTimeout, TrunklineError
from trunkline.wire.envelope import Mark
from trunkline.wire.loss import Loss

__all__ = ["LinkWords"]


class LinkWords:
    """The sentences about the link of one address."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def describe_loss(self, mark: Mark, reason: BaseException | None) -> Loss:
        """Why the link was lost. `reason`: None where the peer ended the link in good order."""
        # `str` of an OSError begins with its number, `strerror` does not.
        said = getattr(reason, "strerror", None) or str(reason)
        text = "closed by the peer" if reason is None else said or type(reason).__name__
        text = tls.lost(reason) or text
        secrets = own_secrets(self._address) if isinstance(reason, PeerClosed) else ()
        words = without_secrets(reason.reason, secrets) if isinstance(reason, PeerClosed) else None
        shown = without_secrets(text, secrets) if secrets else text
        return Loss.of(mark, shown, _code_of(reason), words)

    def broken(self, what: str, cause: BaseException | Loss | None) -> BrokenError:
        """The error of a call without a link: `what` with the cause, its code and its reason."""
        if cause is None:
            return BrokenError(what)
        loss = cause if isinstance(cause, Loss) else self.describe_loss(Mark.DOWN, cause)
        return BrokenError(f"{what}: {loss.text}", code=loss.code, reason=loss.reason)

    def describe_failure(self, error: BaseException, last_words: str) -> BaseException:
        """The error of a failed attempt, for users. `last_words`: from `LinkSink.last_words`."""
        if isinstance(error, TrunklineError) and not isinstance(error, DialTimeout):
            return error
        if isinstance(error, TimeoutError):
            text = str(error) or "no answer in the time allowed"
            return DialTimeout(self.name_peer("could not be opened", text))
        if isinstance(error, (OSError, EOFError)):
            loss = self.describe_loss(Mark.DOWN, error)
            text = tls.lost(error) or str(getattr(error, "strerror", None) or loss.text)
            if last_words:
                text += f"; it said last: {without_secrets(last_words, own_secrets(self._address))}"
            return DialError(
                self.name_peer("could not be opened", text), code=loss.code, reason=loss.reason
            )
        return error

    def name_peer(self, what: str, text: str) -> str:
        """`text` as a sentence that names the peer.

        Where `text` does not name the peer already, the address and `what` stand before `text`."""
        address = self._address
        place = f"{join_host_port(address.host or '', None)}:"
        if address.display in text or (address.host and place in text):
            return text
        return f"{address.display} {what}: {text}"


def _code_of(reason: BaseException | None) -> str | int | None:
    """The code of a loss: of the peer's close frame, else the errno; None without either."""
    found = getattr(reason, "code", None)
    found = getattr(reason, "errno", None) if found is None else found
    return found if isinstance(found, (str, int)) else None

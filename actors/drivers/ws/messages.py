"""The WebSocket receiving rules of RFC 6455 for both engines. No I/O: frames in, events out.

The engine reads frames and feeds them in. The result of each is a message (`str` for text, `bytes`
for binary), a `Ping` to answer, a `Pong`, the peer's `Close`, or None for a fragment. A frame that
breaks the rules raises `Violation`, which carries the close code to send.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Final, Protocol

from trunkline.actors.driver import PeerClosed

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "GOING_AWAY",
    "INVALID_TEXT",
    "NORMAL",
    "PING",
    "PONG",
    "PROTOCOL_ERROR",
    "TEXT",
    "TOO_BIG",
    "Assembler",
    "Close",
    "Inflater",
    "Ping",
    "Pong",
    "Violation",
    "close_payload",
    "loss",
    "text_or_bytes",
    "too_big",
]

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

NORMAL, GOING_AWAY, PROTOCOL_ERROR, INVALID_TEXT, TOO_BIG = 1000, 1001, 1002, 1007, 1009
RSV1: Final = 0x4
_MAX_CONTROL = 125


class Violation(ConnectionError):
    """The peer broke the protocol, or has sent more than allowed.

    `code` is the close code to send.
    """

    def __init__(self, code: int, text: str, said: PeerClosed | None = None) -> None:
        what = text if code == TOO_BIG else f"the peer broke the WebSocket protocol: {text}"
        super().__init__(f"{what} (closed with {code})")
        self.code = code
        self.cause: ConnectionError = self if said is None else said
        """Why the link ends. The words of a close frame count, even where the frame itself breaks a
        rule.
        """


@dataclass(frozen=True, slots=True)
class Ping:
    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The peer's close frame. `code` is None where the peer named none."""

    code: int | None
    reason: str


class Inflater(Protocol):
    """The part of permessage-deflate that the assembler uses."""

    def inflate(self, data: bytes, final: bool, limit: int) -> bytes:
        """Return a fragment's plain payload.

        Raises Violation, also where it is longer than `limit` bytes.
        """


class Assembler:
    """The state of the incoming side of one link.

    An engine may deliver a whole, uncompressed message by itself while `fragmented` is False. With
    `strict_text` a text message that is not UTF-8 is a violation (RFC 6455, 8.1). Otherwise it
    comes as `bytes`.
    """

    __slots__ = (
        "_compressed", "_decoder", "_first", "_inflater", "_is_text", "_max_size", "_size", "_strict",
        "_whole", "fragmented",
    )  # fmt: skip

    def __init__(
        self, max_size: int, inflater: Inflater | None = None, *, strict_text: bool = True
    ) -> None:
        self._max_size = max_size
        self._strict = strict_text
        self._is_text = False
        self._inflater = inflater
        self._decoder: codecs.IncrementalDecoder | None = None
        self._first: str | bytes = b""
        """The message, where it has one frame only."""
        self._whole = bytearray()
        """All bytes of a message in several frames. A peer may make frames small or even empty."""
        self._size = 0
        self._compressed = False
        self.fragmented = False
        """Whether a message has begun and not ended."""

    def feed(
        self, opcode: int, fin: bool, rsv: int, payload: bytes
    ) -> str | bytes | Ping | Pong | Close | None:
        """Take one frame and return its event.

        `rsv` holds the three reserved bits, with RSV1 as 4.
        """
        if opcode >= CLOSE:
            return self._control(opcode, fin, rsv, payload)
        self._begin(opcode, rsv)
        self._add(payload, fin)
        self.fragmented = not fin
        return self._end() if fin else None

    def too_big(self) -> Violation:
        """Return the violation for a message that is longer than allowed."""
        return too_big(self._max_size)

    def room(self) -> int:
        """Return how many payload bytes the present message may still have."""
        return self._max_size - self._size

    def _begin(self, opcode: int, rsv: int) -> None:
        """Check the first frame of a message, or a continuation."""
        if opcode == CONTINUATION:
            if not self.fragmented:
                raise Violation(PROTOCOL_ERROR, "a continuation frame without a beginning")
            if rsv:
                raise Violation(PROTOCOL_ERROR, "a reserved bit is set")
            return
        if opcode not in (TEXT, BINARY):
            raise Violation(PROTOCOL_ERROR, f"unknown opcode {opcode}")
        if self.fragmented:
            raise Violation(PROTOCOL_ERROR, "a new message inside an unfinished one")
        if rsv & ~RSV1 or (rsv and self._inflater is None):
            raise Violation(PROTOCOL_ERROR, "a reserved bit is set")
        self._compressed = bool(rsv)
        self._is_text = opcode == TEXT
        strict_text = self._is_text and self._strict
        self._decoder = codecs.getincrementaldecoder("utf-8")() if strict_text else None

    def _add(self, payload: bytes, fin: bool) -> None:
        """Add a frame's payload to the message. Text is checked piece by piece, so a wrong byte
        ends the link at once.
        """
        if self._compressed:
            assert self._inflater is not None
            payload = self._inflater.inflate(payload, fin, self.room())
        self._size += len(payload)
        if self._size > self._max_size:
            raise self.too_big()
        data: str | bytes = payload
        if self._decoder is not None:
            try:
                data = self._decoder.decode(payload, fin)
            except UnicodeDecodeError:
                raise Violation(INVALID_TEXT, "a text message that is not UTF-8") from None
        if fin and not self.fragmented:
            self._first = data
        else:
            self._whole += payload

    def _end(self) -> str | bytes:
        """Return the whole message, and get ready for the next one."""
        data: str | bytes = self._first
        if self._whole:
            data = self._whole.decode() if self._decoder is not None else bytes(self._whole)
        self._first, self._whole, self._size = b"", bytearray(), 0
        if self._is_text and isinstance(data, bytes):
            return text_or_bytes(data)
        return data

    def _control(self, opcode: int, fin: bool, rsv: int, payload: bytes) -> Ping | Pong | Close:
        """Return the event of a control frame."""
        if opcode > PONG:
            raise Violation(PROTOCOL_ERROR, f"unknown opcode {opcode}")
        if rsv:
            raise Violation(PROTOCOL_ERROR, "a reserved bit is set")
        if not fin or len(payload) > _MAX_CONTROL:
            raise Violation(PROTOCOL_ERROR, "a control frame that is fragmented or too long")
        if opcode == CLOSE:
            return _parse_close(payload)
        return Ping(payload) if opcode == PING else Pong(payload)


def too_big(max_size: int) -> Violation:
    """Return the violation for a message of more than `max_size` bytes."""
    return Violation(
        TOO_BIG, f"the peer sent a message of more than {max_size} bytes (option max_size)"
    )


def text_or_bytes(data: bytes) -> str | bytes:
    """Return the payload of a text message as `str`; as `bytes` where it is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _parse_close(payload: bytes) -> Close:
    """Read a close frame; Violation for a wrong code or reason."""
    if not payload:
        return Close(None, "")
    if len(payload) == 1:
        raise Violation(PROTOCOL_ERROR, "a close frame with half a code")
    close = Close(int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace"))
    if not _may_be_sent(close.code or 0):
        raise Violation(PROTOCOL_ERROR, "a close frame with an invalid code", loss(close))
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise Violation(INVALID_TEXT, "a close reason that is not UTF-8", loss(close)) from None
    return close


def _may_be_sent(code: int) -> bool:
    """Whether the code may stand in a close frame.

    These are the codes of RFC 6455, section 7.4, and those registered since; 1004 to 1006 and 1015
    are never sent.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def close_payload(code: int | None, reason: str = "") -> bytes:
    """Return the payload of a close frame. A reason that is too long is cut between characters."""
    if code is None:
        return b""
    text = reason.encode()[: _MAX_CONTROL - 2].decode(errors="ignore")
    return code.to_bytes(2, "big") + text.encode()


def loss(close: Close) -> PeerClosed:
    """Return the end of the link in the peer's words."""
    return PeerClosed(close.code, close.reason)

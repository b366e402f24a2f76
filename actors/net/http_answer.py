"""Reading an HTTP/1 answer by RFC 9110 and 9112: bytes in, an `Answer` out. Pure: no I/O, no clock.

Both WebSocket engines read the answer to the opening handshake with this module, and the dialer
the answer of a proxy. The reader accepts everything that the RFCs ask a client to accept: a
status line without a phrase, bytes above ASCII, folded and empty headers, bare line feeds,
informational answers before the final answer. Limits bound the memory that a hostile peer can
make a worker use.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus

from trunkline.actors.net.peer_words import first_line, hidden, shown

__all__ = [
    "MAX_BODY",
    "MAX_HEAD",
    "Answer",
    "AnswerReader",
    "Malformed",
    "body_is_complete",
    "body_words",
]

MAX_HEAD = 256 * 1024
"""Largest head in bytes. An incomplete head counts with all informational heads (1xx) before it."""
MAX_INFORMATIONAL = 100
"""Largest number of informational answers (1xx) before the final answer."""
MAX_BODY = 8 * 1024
"""How many bytes of a refusal's body are read."""
_LONGEST_STATUS_LINE = 16 * 1024
_STATUS = re.compile(rb"HTTP/(\d)\.(\d)[ \t]+(\d{3})(?:[ \t]+(.*))?", re.DOTALL)
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_START = b"HTTP/"
_TLS_RECORD = re.compile(rb"[\x14-\x17]\x03[\x00-\x04]", re.DOTALL)


class Malformed(ValueError):
    """The bytes are no HTTP/1 answer. The text ends a sentence and describes the bytes.

    `quoted`: the bytes that the text describes. The text leaves them out, because a peer may repeat
    a secret that was sent to it.
    """

    def __init__(self, text: str, quoted: bytes = b"") -> None:
        super().__init__(text)
        self._quoted = quoted

    def said(self, secrets: Iterable[str]) -> str:
        """The text with the quoted bytes, in which `secrets` are hidden."""
        return f"{self} {shown(hidden(self._quoted, secrets))}" if self._quoted else str(self)


@dataclass(frozen=True)
class Answer:
    """A final answer: status, headers, and the bytes that came behind the head."""

    status: int
    phrase: str
    headers: tuple[tuple[str, str], ...]
    """Names in lower case and values, in order. A name may be repeated."""
    rest: bytes = field(default=b"", repr=False)

    def get(self, name: str) -> str | None:
        """All values of a header, joined by commas (RFC 9110, 5.3); None without the header."""
        values = self.all(name)
        return ", ".join(values) if values else None

    def all(self, name: str) -> list[str]:
        """The values of each header line of this name."""
        return [value for key, value in self.headers if key == name.lower()]

    def tokens(self, name: str) -> set[str]:
        """The elements of a header with a comma list, in lower case."""
        items = (self.get(name) or "").split(",")
        return {item.strip(" \t").lower() for item in items} - {""}


class AnswerReader:
    """Takes the bytes of one exchange until the head of the final answer is complete."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._scanned = 0
        """The search for the end of the head goes on from this index."""
        self._size = 0
        self._informational = 0

    @property
    def begun(self) -> bool:
        """Whether the peer has sent at least one byte."""
        return self._size > 0

    def feed(self, data: bytes) -> Answer | None:
        """Take more bytes.

        Returns the final answer as soon as its head is complete, else None. Raises Malformed."""
        self._data += data
        self._size += len(data)
        while True:
            self._check_beginning()
            end = self._end_of_head()
            if end is None:
                if self._size > MAX_HEAD:
                    raise Malformed(
                        f"the headers of its answer are longer than {MAX_HEAD // 1024} KB"
                    )
                return None
            head, rest = bytes(self._data[:end]), bytes(self._data[end:])
            if len(head) > MAX_HEAD:
                raise Malformed(f"the headers of its answer are longer than {MAX_HEAD // 1024} KB")
            answer = parse_head(head, rest)
            if not 100 <= answer.status < 200 or answer.status == 101:
                return answer
            # RFC 9110, 15.2: any number of informational answers may come before the final one.
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                raise Malformed(f"it gives more than {MAX_INFORMATIONAL} informational answers")
            self._data, self._scanned = bytearray(rest), 0
            if not rest:
                return None

    def _check_beginning(self) -> None:
        """Raise Malformed as soon as the bytes do not begin as HTTP.

        A peer of another protocol may wait for bytes from here, so there may be no further
        bytes."""
        # RFC 9112, 2.2: ignore empty lines before the status line.
        while bytes(self._data[:1]) in (b"\r", b"\n"):
            del self._data[:1]
            self._scanned = 0
        begin = bytes(self._data[: len(_START)])
        if _START.startswith(begin) or begin == _START:
            if b"\n" not in self._data and len(self._data) > _LONGEST_STATUS_LINE:
                raise Malformed(f"its status line is longer than {_LONGEST_STATUS_LINE // 1024} KB")
            return
        if _TLS_RECORD.match(begin):
            raise Malformed("it speaks TLS on this port; give a scheme with TLS (wss://)")
        line = bytes(self._data[:_LONGEST_STATUS_LINE]).split(b"\n")[0]
        raise Malformed("it does not speak HTTP; its answer begins with", line)

    def _end_of_head(self) -> int | None:
        """The index behind the empty line that ends the head; None while the head is incomplete.

        Lines may end with CR LF or with a bare LF."""
        at = self._scanned
        while (newline := self._data.find(b"\n", at)) >= 0:
            after = bytes(self._data[newline + 1 : newline + 3])
            if after[:1] == b"\n":
                return newline + 2
            if after == b"\r\n":
                return newline + 3
            if after in (b"", b"\r"):  # the bytes that decide have not come yet
                self._scanned = newline
                return None
            at = newline + 1
        self._scanned = len(self._data)
        return None


def parse_head(head: bytes, rest: bytes = b"") -> Answer:
    """Parse a complete head into an answer with these bytes behind it. Raises Malformed."""
    first, *lines = head.rstrip(b"\r\n").split(b"\n")
    match = _STATUS.fullmatch(first.rstrip(b"\r"))
    if match is None:
        raise Malformed("its status line is", first.rstrip(b"\r"))
    if match[1] != b"1":
        raise Malformed(f"it answers in HTTP/{int(match[1])}, where HTTP/1.1 is needed")
    headers: list[tuple[str, str]] = []
    for raw in lines:
        line = raw.rstrip(b"\r")
        if line[:1] in (b" ", b"\t"):
            _unfold(headers, line)
        else:
            headers.append(_header(line))
    return Answer(int(match[3]), _text(match[4] or b""), tuple(headers), rest)


def _header(line: bytes) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    name = name.rstrip(b" \t")
    if not colon:
        raise Malformed("a header line of its answer has no colon:", line)
    if not _NAME.fullmatch(name):
        raise Malformed("a header line of its answer has no valid name:", line)
    return name.decode("ascii").lower(), _text(value)


def _unfold(headers: list[tuple[str, str]], line: bytes) -> None:
    """Append a folded line, which begins with white space, to the last value (RFC 9112, 5.2)."""
    if not headers:
        raise Malformed("the first header line of its answer begins with a space")
    name, value = headers.pop()
    headers.append((name, f"{value} {_text(line)}".strip()))


def _text(value: bytes) -> str:
    """A header value or phrase as text.

    RFC 9110, 5.5: bytes above ASCII are opaque (Latin-1 keeps them), control characters become
    spaces."""
    text = value.decode("latin-1").strip(" \t\r")
    return "".join(c if c == "\t" or ord(c) >= 32 else " " for c in text)


# The body of a refusal


def body_is_complete(answer: Answer, body: bytes) -> bool:
    """Whether the body is complete, or as long as needed."""
    if answer.status in (204, 304) or len(body) >= MAX_BODY:
        return True
    if "chunked" in answer.tokens("transfer-encoding"):
        return re.search(rb"(?:^|\n)0+[ \t]*(?:;[^\n]*)?\r?\n", body) is not None
    length = answer.get("content-length")
    return length is not None and length.isdecimal() and len(body) >= int(length)


def body_words(answer: Answer, body: bytes) -> str:
    """The first line of the body in printable characters, shortened; "" where there is no line.

    Without a body: the phrase of the status line, where it differs from the usual phrase of the
    status.
    """
    if answer.status in (204, 304):
        return ""
    if "chunked" in answer.tokens("transfer-encoding"):
        body = _unchunked(body)
    words = first_line(_decompressed(body[:MAX_BODY], answer.tokens("content-encoding")))
    return words or _unusual_phrase(answer)


def _unusual_phrase(answer: Answer) -> str:
    with contextlib.suppress(ValueError):  # a status that Python has no name for
        if answer.phrase.lower() == HTTPStatus(answer.status).phrase.lower():
            return ""
    return first_line(answer.phrase)


def _unchunked(body: bytes) -> bytes:
    plain = b""
    while match := re.match(rb"([0-9A-Fa-f]{1,8})[^\n]*\n", body):
        size = int(match[1], 16)
        plain += body[match.end() : match.end() + size]
        body = body[match.end() + size :].removeprefix(b"\r").removeprefix(b"\n")
        if not size:
            break
    return plain


def _decompressed(body: bytes, codings: set[str]) -> bytes:
    if not codings or not body or codings == {"identity"}:
        return body
    if not codings & {"gzip", "x-gzip", "deflate"}:
        return b""
    try:
        return zlib.decompressobj(47).decompress(body, MAX_BODY)
    except zlib.error:
        return b""

"""permessage-deflate (RFC 7692) for a client: negotiating, inflating with a limit, deflating.

No I/O.
"""

from __future__ import annotations

import zlib

from trunkline.actors.drivers.ws.messages import PROTOCOL_ERROR, TOO_BIG, Violation

__all__ = ["OFFER", "Deflate", "NegotiationError", "negotiate"]

OFFER = "permessage-deflate; client_max_window_bits"
_TAIL = b"\x00\x00\xff\xff"
_FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
_BITS = ("server_max_window_bits", "client_max_window_bits")


class NegotiationError(ValueError):
    """The server accepted an extension or a parameter that was not offered."""


def negotiate(header: str | None) -> Deflate | None:
    """Read the server's `Sec-WebSocket-Extensions`: the agreed compression, or None where it
    declined the offer.
    """
    if not (header or "").strip():
        return None
    name, _, rest = (header or "").partition(";")
    if name.strip().lower() != "permessage-deflate" or "," in rest:
        raise NegotiationError(f"the server chose an extension that was not offered: {header}")
    given: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in rest.split(";"))):
        key, _, value = (text.strip() for text in item.partition("="))
        if key in given:
            raise NegotiationError(f"permessage-deflate parameter {key} is given twice")
        given[key] = value.strip('"')
    return Deflate(**_checked(given))


def _checked(given: dict[str, str]) -> dict[str, int]:
    """Return the parameters of the server as numbers; NegotiationError for unknown ones."""
    found: dict[str, int] = {}
    for key, value in given.items():
        if key in _FLAGS and not value:
            found[key] = 1
        elif key in _BITS and value.isdigit() and 8 <= int(value) <= 15:
            found[key] = int(value)
        else:
            raise NegotiationError(f"permessage-deflate parameter {key}={value} is not understood")
    return found


class Deflate:
    """The compression of one link, in both directions: `inflate` for the assembler, `deflate` for
    messages sent.
    """

    def __init__(
        self,
        server_no_context_takeover: int = 0,
        client_no_context_takeover: int = 0,
        server_max_window_bits: int = 15,
        client_max_window_bits: int = 15,
    ) -> None:
        self._forget_in = bool(server_no_context_takeover)
        self._forget_out = bool(client_no_context_takeover)
        self._out_bits = client_max_window_bits
        self._unpacker = zlib.decompressobj(-15)
        self._packer = self._new_packer()

    def inflate(self, data: bytes, final: bool, limit: int) -> bytes:
        """Return one fragment decompressed.

        Violation where it is broken or longer than `limit` bytes.
        """
        rest = data + _TAIL if final else data
        output: list[bytes] = []
        while rest:
            piece, rest = self._step(rest, limit)
            limit -= len(piece)
            output.append(piece)
        if final and self._forget_in:
            self._unpacker = zlib.decompressobj(-15)
        return output[0] if len(output) == 1 else b"".join(output)

    def _step(self, data: bytes, limit: int) -> tuple[bytes, bytes]:
        """Inflate up to the limit; return the output and the input that is left."""
        try:
            piece = self._unpacker.decompress(data, limit + 1)
        except zlib.error as error:
            raise Violation(
                PROTOCOL_ERROR, f"compressed data that cannot be read: {error}"
            ) from None
        if len(piece) > limit:
            raise Violation(
                TOO_BIG, "the peer sent a compressed message that is too big (option max_size)"
            )
        if not self._unpacker.eof:
            return piece, self._unpacker.unconsumed_tail
        # A block marked as the last one may stand inside a message (RFC 7692, 7.2.3.5). A new
        # stream follows then.
        rest = self._unpacker.unused_data
        self._unpacker = zlib.decompressobj(-15)
        return piece, b"" if rest == _TAIL else rest

    def deflate(self, data: bytes) -> bytes | None:
        """Return `data` as a compressed payload, or None where it must be sent uncompressed."""
        if self._packer is None:
            return None
        packed = self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        if self._forget_out:
            self._packer = self._new_packer()
        return packed[: -len(_TAIL)]

    def _new_packer(self) -> zlib._Compress | None:
        """Return a compressor, or None where messages must be sent uncompressed."""
        # zlib cannot make a raw stream with a window of 256 bytes. Uncompressed messages are always
        # allowed.
        if self._out_bits < 9:
            return None
        return zlib.compressobj(wbits=-self._out_bits)

"""Message compression: the options `compress=` and `mode=`. Pure: no I/O, no log.

Exchanges disagree about the meaning of "gzip", so decompression looks at the data as well as at the
option. Under `gzip_raw` and `deflate` (both raw DEFLATE) a frame with a gzip or zlib header is
decompressed too. A gzip frame may have several members. A raw stream may end in a sync flush
instead of a final block.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from trunkline.address import Address

__all__ = ["METHODS", "MODES", "Codec", "CompressionError", "codec_of"]

_GZIP, _ZLIB, _RAW = 31, 15, -15
_WBITS = {"gzip": _GZIP, "gzip_raw": _RAW, "deflate": _RAW, "zlib": _ZLIB}
METHODS = tuple(_WBITS)
MODES = ("recv", "send", "dual")
_SYNC_FLUSH = b"\x00\x00\xff\xff"
_PIECE = 1 << 20
"""Bytes of output that are decompressed in one go. Larger output is counted before it is kept."""


class CompressionError(ValueError):
    """A frame could not be decompressed. The link is not affected."""


class Codec:
    """Compresses outgoing and decompresses incoming messages, each message on its own.

    `max_size` is the limit of a decompressed message in bytes. A decompression bomb is detected by
    counting the output piece by piece, in about one megabyte of memory.
    """

    def __init__(self, method: str, mode: str = "recv", *, max_size: int) -> None:
        if method not in _WBITS:
            raise ValueError(f"compress={method} is not one of {', '.join(METHODS)}")
        if mode not in MODES:
            raise ValueError(f"mode={mode} is not one of {', '.join(MODES)}")
        self.method = method
        self.receives = mode in ("recv", "dual")
        self.sends = mode in ("send", "dual")
        self._wbits = _WBITS[method]
        self._max_size = max_size

    def outgoing(self, data: str | bytes) -> str | bytes:
        """`data` in the form to send: compressed bytes, or `data` unchanged under `mode=recv`."""
        if not self.sends:
            return data
        packer = zlib.compressobj(wbits=self._wbits)
        raw = data.encode() if isinstance(data, str) else data
        return packer.compress(raw) + packer.flush()

    def incoming(self, data: str | bytes) -> str | bytes:
        """The message inside `data`: `str` when it is valid UTF-8, else `bytes`.

        Text is returned unchanged, and so is data without any sign of compression. Raises
        CompressionError.
        """
        if isinstance(data, str) or not data or not self.receives:
            return data
        failure: CompressionError | None = None
        for wbits in self._candidates(data):
            try:
                return _as_text(_unpack(data, wbits, self._max_size))
            except CompressionError as error:
                failure = failure or error
            except _TooBig as error:
                raise CompressionError(str(error)) from None
        if failure is None or (self._wbits == _RAW and _is_text(data)):
            return data
        raise failure

    def _candidates(self, data: bytes) -> Iterator[int]:
        """The formats that `data` may have, the likeliest first. Raw DEFLATE has no header."""
        raw = self._wbits == _RAW
        if data[:2] == b"\x1f\x8b" and (raw or self._wbits == _GZIP):
            yield _GZIP
        if _has_zlib_header(data) and (raw or self._wbits == _ZLIB):
            yield _ZLIB
        if raw:
            yield _RAW


class _TooBig(Exception):
    """The output exceeds the limit, so no other format is tried."""


def codec_of(address: Address) -> Codec | None:
    """The codec by options `compress`, `mode` and `max_size`; None without `compress`."""
    method = address.option("compress")
    if not method:
        return None
    return Codec(str(method), str(address.option("mode")), max_size=int(address.option("max_size")))


def _has_zlib_header(data: bytes) -> bool:
    return (
        len(data) > 1
        and data[0] & 0x0F == 8
        and data[0] >> 4 <= 7
        and (data[0] << 8 | data[1]) % 31 == 0
    )


def _unpack(data: bytes, wbits: int, limit: int) -> bytes:
    """Decompress `data` member by member. Only gzip data has more than one member."""
    pieces: list[bytes] = []
    rest = data
    while rest:
        piece, rest = _unpack_member(rest, wbits, limit)
        limit -= len(piece)
        pieces.append(piece)
        rest = rest.lstrip(b"\0") if wbits == _GZIP else rest
        if rest and wbits != _GZIP:
            raise CompressionError(f"{len(rest)} bytes follow the end of the compressed data")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _unpack_member(data: bytes, wbits: int, limit: int) -> tuple[bytes, bytes]:
    unpacker = zlib.decompressobj(wbits)
    try:
        output = unpacker.decompress(data, min(_PIECE, limit + 1))
        if unpacker.unconsumed_tail or len(output) >= _PIECE:
            _check_size(data, wbits, limit)
            output += unpacker.decompress(unpacker.unconsumed_tail, limit + 1)
    except zlib.error as error:
        raise CompressionError(f"cannot be decompressed: {error}") from None
    if len(output) > limit:
        raise _TooBig(_too_big(limit))
    if not unpacker.eof and not (wbits == _RAW and data.endswith(_SYNC_FLUSH)):
        raise CompressionError("the compressed data is cut short")
    return output, unpacker.unused_data


def _check_size(data: bytes, wbits: int, limit: int) -> None:
    """Decompress piece by piece without keeping the output. `_TooBig` beyond `limit` bytes."""
    unpacker = zlib.decompressobj(wbits)
    total, rest = 0, data
    while rest and not unpacker.eof:
        total += len(unpacker.decompress(rest, _PIECE))
        rest = unpacker.unconsumed_tail
        if total > limit:
            raise _TooBig(_too_big(limit))


def _too_big(limit: int) -> str:
    return f"decompresses to more than {limit} bytes (option max_size)"


def _as_text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _is_text(data: bytes) -> bool:
    return isinstance(_as_text(data), str)

"""`Encode`: hashes, HMACs, text codecs and Ed25519 signatures between raw, hex and base64."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable

__all__ = ["ALGORITHMS", "encode"]

FORMATS = ("raw", "string", "hex", "base64")


def _make_hash(name: str) -> Callable[[bytes], bytes]:
    """A hash of `hashlib` by its name.

    The error for a missing hash comes only with the first use.
    """

    def digest(data: bytes) -> bytes:
        try:
            return hashlib.new(name, data).digest()
        except ValueError as error:
            raise ValueError(f"Encode: this Python's OpenSSL does not offer {name}") from error

    return digest


def _make_blake(name: str, bits: int) -> Callable[[bytes], bytes]:
    """BLAKE2 with a digest of `bits` bits."""
    kind = getattr(hashlib, name)
    return lambda data: bytes(kind(data, digest_size=bits // 8).digest())


def _make_keccak(bits: int) -> Callable[[bytes], bytes]:
    """Keccak as Ethereum uses it, from before the standard SHA-3. `hashlib` has only SHA-3."""

    def digest(data: bytes) -> bytes:
        try:
            from Crypto.Hash import keccak
        except ModuleNotFoundError as error:
            hint = "pip install 'trunkline[strategy]'"
            raise ValueError(f"Encode: keccak needs the package pycryptodome: {hint}") from error
        return keccak.new(data=data, digest_bits=bits).digest()

    return digest


_HASHES: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    # Name: the function, and its block size in bytes for HMAC.
    "md4": (_make_hash("md4"), 64),
    "md5": (_make_hash("md5"), 64),
    "sha1": (_make_hash("sha1"), 64),
    "sha224": (_make_hash("sha224"), 64),
    "sha256": (_make_hash("sha256"), 64),
    "sha384": (_make_hash("sha384"), 128),
    "sha512": (_make_hash("sha512"), 128),
    "sha512.224": (_make_hash("sha512_224"), 128),
    "sha512.256": (_make_hash("sha512_256"), 128),
    "sha512.384": (_make_hash("sha384"), 128),
    "sha3.224": (_make_hash("sha3_224"), 144),
    "sha3.256": (_make_hash("sha3_256"), 136),
    "sha3.384": (_make_hash("sha3_384"), 104),
    "sha3.512": (_make_hash("sha3_512"), 72),
    "keccak256": (_make_keccak(256), 136),
    "sha3.keccak256": (_make_keccak(256), 136),
    "sha3.keccak512": (_make_keccak(512), 72),
    "ripemd160": (_make_hash("ripemd160"), 64),
    "blake2b.256": (_make_blake("blake2b", 256), 128),
    "blake2b.512": (_make_blake("blake2b", 512), 128),
    "blake2s.128": (_make_blake("blake2s", 128), 64),
    "blake2s.256": (_make_blake("blake2s", 256), 64),
}
_SUMS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "adler32": lambda data: zlib.adler32(data).to_bytes(4, "big"),
}
_CODECS = ("utf8", "gbk")
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
ALGORITHMS = (
    *_SUMS,
    *_HASHES,
    *(f"text.{way}.{codec}" for way in ("encoder", "decoder") for codec in _CODECS),
    "ed25519",
    "ed25519.seed",
    "ed25519.md5",
    "ed25519.sha512",
)


def encode(
    algo: str,
    in_format: str,
    out_format: str,
    data: str | bytes,
    key_format: str | None = None,
    key: str | bytes | None = None,
) -> str | bytes:
    """Hash or sign `data` with `algo`: returns `bytes` for the format raw, else `str`.

    With a key *and* a key format, a hash becomes an HMAC. Without a key format, the key is ignored,
    as on FMZ. Raises ValueError for unknown names and undecodable values.
    """
    if key is None and key_format:
        # The key may be a secret that is not set (`os.environ.get`): the result would silently be a
        # plain hash.
        raise ValueError("Encode: a key format is given, and the key is None")
    algo = algo.lower()
    name = algo.replace("_", ".") if algo not in ALGORITHMS else algo
    secret = _read_value(key, key_format, "key") if key is not None and key_format else None
    if name.startswith("text."):
        return _convert_text(name, in_format, out_format, data)
    return _write_value(
        _apply_algorithm(name, _read_value(data, in_format, "data"), secret), out_format
    )


def _apply_algorithm(name: str, data: bytes, key: bytes | None) -> bytes:
    """Hash, HMAC, checksum or signature of `data`; ValueError for an unknown name."""
    if name in _SUMS:
        return _SUMS[name](data)
    if name in _HASHES:
        digest, block = _HASHES[name]
        return digest(data) if key is None else _make_hmac(digest, block, key, data)
    if name in ALGORITHMS:
        return _sign_ed25519(name.partition(".")[2], data, key)
    raise ValueError(f"Encode: there is no algorithm {name!r}; there are {', '.join(ALGORITHMS)}")


def _make_hmac(digest: Callable[[bytes], bytes], block: int, key: bytes, data: bytes) -> bytes:
    """HMAC (RFC 2104) with any of the hashes; `block` is the hash's block size in bytes."""
    key = (digest(key) if len(key) > block else key).ljust(block, b"\0")
    inner = digest(key.translate(_INNER) + data)
    return digest(key.translate(_OUTER) + inner)


def _sign_ed25519(variant: str, data: bytes, key: bytes | None) -> bytes:
    """Sign with Ed25519, by a 32-byte seed or by Go's 64-byte key (the seed and the public key).

    The variants `md5` and `sha512` sign this digest of the data.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise ValueError("Encode: ed25519 needs cryptography: pip install cryptography") from error
    if key is None or len(key) not in (32, 64):
        raise ValueError("Encode: ed25519 needs a key of 32 or 64 bytes and its format")
    message = _HASHES[variant][0](data) if variant in _HASHES else data
    return Ed25519PrivateKey.from_private_bytes(key[:32]).sign(message)


def _convert_text(name: str, in_format: str, out_format: str, data: str | bytes) -> str | bytes:
    """Convert text between UTF-8 and another codec."""
    _, way, codec = name.split(".")
    if way == "encoder":
        return _write_value(
            _read_value(data, in_format, "data").decode().encode(codec, "replace"), out_format
        )
    return _write_value(
        _read_value(data, in_format, "data").decode(codec, "replace").encode(), out_format
    )


def _read_value(value: str | bytes, form: str, what: str) -> bytes:
    """The bytes of a value in a format; `what` names the value in errors."""
    if not isinstance(value, (str, bytes, bytearray, memoryview)):
        # bytes(5) would be five zero bytes, and would be signed so.
        raise ValueError(f"Encode: the {what} must be text or bytes, not {type(value).__name__}")
    data = value.encode() if isinstance(value, str) else bytes(value)
    try:
        if form == "hex":
            return bytes.fromhex(data.decode())
        if form == "base64":
            return base64.b64decode(data, validate=True)
    except ValueError:
        # The value may be a secret: the error neither quotes the value nor chains the error that
        # does.
        raise ValueError(f"Encode: the {what} is not {form}") from None
    _check_format(form)
    return data


def _write_value(data: bytes, form: str) -> str | bytes:
    """The bytes as a value in a format: `bytes` for raw, else `str`."""
    if form == "hex":
        return data.hex()
    if form == "base64":
        return base64.b64encode(data).decode()
    _check_format(form)
    return data if form == "raw" else data.decode("utf-8", "replace")


def _check_format(form: str) -> None:
    if form not in FORMATS:
        raise ValueError(f"Encode: there is no format {form!r}; there are {', '.join(FORMATS)}")

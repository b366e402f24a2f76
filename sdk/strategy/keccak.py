"""Keccak as it was before it became SHA-3: what Ethereum hashes with and `hashlib` does not offer."""

from __future__ import annotations

__all__ = ["keccak"]

_MASK = (1 << 64) - 1


def keccak(data: bytes, bits: int) -> bytes:
    """The Keccak digest of `bits` bits (224, 256, 384, 512)."""
    rate = 200 - bits // 4
    padded = bytearray(data + b"\x01" + bytes(-(len(data) + 1) % rate))
    padded[-1] |= 0x80
    lanes = [0] * 25
    for start in range(0, len(padded), rate):
        for i in range(rate // 8):
            at = start + 8 * i
            lanes[i] ^= int.from_bytes(padded[at : at + 8], "little")
        lanes = _permute(lanes)
    return b"".join(lane.to_bytes(8, "little") for lane in lanes)[: bits // 8]


def _permute(a: list[int]) -> list[int]:
    """Keccak-f[1600]; lane (x, y) is a[x + 5 * y]."""
    register = 1
    for _ in range(24):
        a = _chi(_rho_pi(_theta(a)))
        for j in range(7):
            # The round constants come from a linear feedback shift register, one bit at 2**j - 1.
            if register & 1:
                a[0] ^= 1 << ((1 << j) - 1)
            register = (register << 1) ^ (0x171 if register & 0x80 else 0)
    return a


def _theta(a: list[int]) -> list[int]:
    c = [a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20] for x in range(5)]
    return [lane ^ c[(i - 1) % 5] ^ _rotate(c[(i + 1) % 5], 1) for i, lane in ((i, a[i]) for i in range(25))]


def _rho_pi(a: list[int]) -> list[int]:
    b = list(a)
    x, y = 1, 0
    current = a[1]
    for t in range(24):
        x, y = y, (2 * x + 3 * y) % 5
        current, b[x + 5 * y] = a[x + 5 * y], _rotate(current, (t + 1) * (t + 2) // 2 % 64)
    return b


def _chi(a: list[int]) -> list[int]:
    return [a[i] ^ (~a[i // 5 * 5 + (i + 1) % 5] & a[i // 5 * 5 + (i + 2) % 5] & _MASK) for i in range(25)]


def _rotate(lane: int, by: int) -> int:
    return ((lane << by) | (lane >> (64 - by))) & _MASK

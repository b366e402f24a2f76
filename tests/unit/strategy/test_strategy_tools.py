"""The globals that are functions of their arguments: time, numbers, codes, signatures, secrets."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.strategy.encode import ALGORITHMS, encode
from trunkline.strategy.exchange import Exchange, Secrets
from trunkline.strategy.tools import TOOLS

_D, _N, _Cross = TOOLS["_D"], TOOLS["_N"], TOOLS["_Cross"]


@pytest.fixture
def _utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_utc")
@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0, "1970-01-01 00:00:00"),
        (1_700_000_000, "2023-11-14 22:13:20"),
        (1_700_000_000.9, "2023-11-14 22:13:20"),
        (1_700_000_000_000, "2023-11-14 22:13:20"),
        (1_700_000_000_999, "2023-11-14 22:13:20"),
    ],
)
def test_a_time_may_be_in_seconds_or_milliseconds(moment: float, text: str) -> None:
    assert _D(moment) == text


@pytest.mark.usefixtures("_utc")
def test_a_time_has_a_format_and_is_now_without_one() -> None:
    assert _D(0, "%H~%M") == "00~00"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", _D())


@pytest.mark.parametrize(
    ("number", "precision", "cut"),
    [
        (3.1415, 2, 3.14),
        (-3.1415, 2, -3.14),
        (1300, -3, 1000),
        (-1300, -3, -2000),
        (1.15, 2, 1.15),
        (0.29, 2, 0.29),
        (9.99999, 4, 9.9999),
        (5, 4, 5.0),
        (1e300, 4, 1e300),
        (7.9, 0, 7.0),
        (float("inf"), 2, float("inf")),
    ],
)
def test_numbers_are_cut_not_rounded(number: float, precision: int, cut: float) -> None:
    assert _N(number, precision) == cut


@given(st.floats(-1e9, 1e9), st.integers(0, 8))
def test_cutting_moves_towards_zero_by_less_than_a_step(number: float, precision: int) -> None:
    cut = _N(number, precision)
    assert abs(cut) <= abs(number)
    assert abs(number - cut) < 10**-precision + 1e-6


def test_crossings_are_counted_from_now_back() -> None:
    fast, slow = [1, 2, 3, 4, 5, 6, 8, 8, 9], [2, 3, 4, 5, 6, 7, 7, 7, 7]
    assert _Cross(fast, slow) == 3
    assert _Cross(slow, fast) == -3
    assert _Cross([1, 2], [0, 2]) == 0
    assert _Cross([None, 2, 3], [1, 1, 1]) == 2
    assert _Cross([], []) == 0
    with pytest.raises(ValueError, match="differ in length"):
        _Cross([1], [1, 2])


def test_the_machine_and_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TOOLS["GetPid"]() == os.getpid()
    assert re.fullmatch(r"\w+/\w+", TOOLS["GetOS"]())
    assert abs(TOOLS["Unix"]() - time.time()) < 2
    assert TOOLS["UnixNano"]() > 10**18
    assert len(TOOLS["UUID"]()) == 36
    assert TOOLS["MD5"]("hello world") == "5eb63bbbe01eeed093cb22bb8f5acdc3"
    assert TOOLS["JSONParse"]('{"a": [1]}') == {"a": [1]}
    monkeypatch.delenv("TRUNKLINE_META", raising=False)
    assert TOOLS["GetMeta"]() is None
    monkeypatch.setenv("TRUNKLINE_META", "m" * 200)
    assert TOOLS["GetMeta"]() == "m" * 190


PLAIN = "50d858e0985ecc7f60418aaf0cc5ab587f42c2570a884095a9e8ccacd0f6545c"
KECCAK512_OF_NOTHING = (
    "0eab42de4c3ceb9235fc91acffe746b29c29a8c366b7c60e4e67c466f36a4304"
    "c00fa9caf9d87976ba469bcbe06713b435f091ef2769fb160cdab33d3670680e"
)
KEYED = "698d54f0494528a759f19c8e87a9f99e75a5881b9267ee3926bcf62c992d84ba"


@pytest.mark.parametrize(
    ("given_", "result"),
    [
        (("raw", "raw", "hex", "example", "raw", "123"), "6578616d706c65"),
        (("raw", "raw", "base64", "123"), "MTIz"),
        (("sha256", "raw", "hex", "example"), PLAIN),
        (("sha256", "raw", "hex", "example", "", "123"), PLAIN),
        (("sha256", "raw", "hex", "example", None, "123"), PLAIN),
        (("sha256", "raw", "hex", "example", "raw", "123"), KEYED),
        (("sha256", "raw", "hex", "example", "string", "123"), KEYED),
        (("sha256", "raw", "hex", "example", "hex", "313233"), KEYED),
        (("sha256", "raw", "hex", "example", "base64", "MTIz"), KEYED),
        (("text.encoder.utf8", "raw", "hex", "你好", "", ""), "e4bda0e5a5bd"),
        (("text.decoder.utf8", "hex", "string", "e4bda0e5a5bd", "", ""), "你好"),
        (("text.encoder.gbk", "raw", "hex", "你好", "", ""), "c4e3bac3"),
        (("text.decoder.gbk", "hex", "string", "c4e3bac3", "", ""), "你好"),
        (("raw", "hex", "raw", "00ff"), b"\x00\xff"),
        (("crc32", "raw", "hex", "123456789"), "cbf43926"),
        (("adler32", "raw", "hex", "Wikipedia"), "11e60398"),
        (
            ("keccak256", "raw", "hex", ""),
            "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470",
        ),
        (("sha3.keccak512", "raw", "hex", ""), KECCAK512_OF_NOTHING),
        (("sha3.256", "raw", "hex", "abc"), hashlib.sha3_256(b"abc").hexdigest()),
        (("blake2s.128", "raw", "hex", "abc"), hashlib.blake2s(b"abc", digest_size=16).hexdigest()),
    ],
)
def test_encode_gives_what_the_documentation_says(
    given_: tuple[Any, ...], result: str | bytes
) -> None:
    assert encode(*given_) == result


@pytest.mark.parametrize(
    "name", ["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3.512"]
)
@given(key=st.binary(max_size=300), data=st.binary(max_size=300))
def test_a_key_makes_an_hmac(name: str, key: bytes, data: bytes) -> None:
    digest = name.replace(".", "_")
    assert encode(name, "raw", "raw", data, "raw", key) == hmac.digest(key, data, digest)


def test_keccak_differs_from_sha3_and_takes_any_length() -> None:
    lengths = {encode("keccak256", "raw", "hex", "a" * length) for length in range(130, 140)}
    assert len(lengths) == 10
    assert (
        encode("keccak256", "raw", "hex", "abc")
        == "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"
    )


def test_keccak_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Crypto.Hash", None)
    for name in ("keccak256", "sha3.keccak256", "sha3.keccak512"):
        with pytest.raises(
            ValueError, match=r"needs the package pycryptodome: pip install 'trunkline\[str"
        ):
            encode(name, "raw", "hex", "x")
    assert encode("sha3.256", "raw", "hex", "x")


def test_ed25519_signs_with_a_seed() -> None:
    # RFC 8032, test 2
    seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
    signature = encode("ed25519.seed", "hex", "hex", "72", "hex", seed)
    assert str(signature).startswith(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    )
    assert encode("ed25519", "hex", "hex", "72", "hex", seed + "00" * 32) == signature


@pytest.mark.parametrize(
    ("given_", "text"),
    [
        (("sha257", "raw", "hex", "x"), "no algorithm 'sha257'"),
        (("md5", "utf9", "hex", "x"), "no format 'utf9'"),
        (("md5", "hex", "hex", "secret"), "the data is not hex"),
        (("md5", "raw", "hex", "x", "base64", "%%secret"), "the key is not base64"),
        (("ed25519.seed", "raw", "hex", "x", "raw", "short-secret"), "32 or 64 bytes"),
    ],
)
def test_what_encode_cannot_do_is_said_without_the_secret(
    given_: tuple[Any, ...], text: str
) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        encode(*given_)
    assert "secret" not in str(caught.value)


def test_a_key_that_is_none_makes_no_plain_hash() -> None:
    with pytest.raises(ValueError, match="the key is None"):
        encode("sha256", "raw", "hex", "x", "raw", None)
    with pytest.raises(ValueError, match="the key is None"):
        Exchange(Secrets()).HMAC("sha256", "hex", "x", None)  # type: ignore[arg-type]
    assert encode("sha256", "raw", "hex", "x", "", None) == encode("sha256", "raw", "hex", "x")


def test_every_algorithm_is_named_in_the_error() -> None:
    with pytest.raises(ValueError, match=re.escape(", ".join(ALGORITHMS))):
        encode("none", "raw", "raw", "")


def test_secrets_come_from_the_environment_and_leave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_SECRETKEY", "123")
    monkeypatch.setenv("TRUNKLINE_SECRET_OTHER", "456")
    secrets = Secrets()
    assert not [name for name in os.environ if name.startswith("TRUNKLINE_SECRET")]
    exchange = Exchange(secrets)
    assert exchange.Encode("sha256", "raw", "hex", "example", "raw", "{{secretkey}}") == KEYED
    assert exchange.HMAC("sha256", "hex", "example", "{{SECRETKEY}}") == KEYED
    assert exchange.Encode("raw", "raw", "string", "{{other}} {{unknown}}") == "456 {{unknown}}"
    assert "123" not in repr(secrets) + repr(exchange) + str(vars(exchange))


@pytest.mark.parametrize(
    "text",
    [
        "# mine\nSecretKey = 123\n",
        '{"secretkey": "123"}',
        '=\nexport TRUNKLINE_SECRETKEY="123"\n',
        "\ufeffTRUNKLINE_SECRET_SECRETKEY='123'\r\n",
        '{"TRUNKLINE_SECRETKEY": 123}',
    ],
)
def test_secrets_come_from_a_file_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "secrets"
    file.touch(mode=0o600)
    file.write_text(text)
    monkeypatch.setenv("TRUNKLINE_SECRETS", str(file))
    assert Exchange(Secrets()).HMAC("sha256", "hex", "example", "{{secretkey}}") == KEYED
    file.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="is not text in UTF-8"):
        Secrets()
    file.chmod(0o640)
    with pytest.raises(ValueError, match="can be read by others"):
        Secrets()


def test_a_missing_secret_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUNKLINE_SECRETS", raising=False)
    with pytest.raises(ValueError, match=r"\{\{accesskey\}\} is not set"):
        Exchange(Secrets()).HMAC("md5", "hex", "x", "{{accesskey}}")
    with pytest.raises(
        ValueError, match=r"\{\{passphrase\}\} is not set; put it into TRUNKLINE_PASSPHRASE"
    ):
        Exchange(Secrets()).Encode("raw", "raw", "string", '{"p": "{{passphrase}}"}')
    with pytest.raises(
        ValueError, match=r"\{\{other\}\} is not set; put it into TRUNKLINE_SECRET_OTHER"
    ):
        Exchange(Secrets()).HMAC("md5", "hex", "x", "{{other}}")


@pytest.mark.parametrize("value", [5, None, 1.5, [1]])
def test_what_is_neither_text_nor_bytes_is_not_signed(value: Any) -> None:
    with pytest.raises(ValueError, match="the data must be text or bytes"):
        encode("sha256", "raw", "hex", value)
    with pytest.raises(ValueError, match="the data must be text or bytes"):
        Exchange(Secrets()).HMAC("sha256", "hex", value, "k")
    with pytest.raises(TypeError, match="MD5 takes text or bytes"):
        TOOLS["MD5"](value)


def test_the_exchange_says_that_it_is_no_gateway() -> None:
    with pytest.raises(AttributeError, match="no exchange gateway"):
        Exchange(Secrets()).GetTicker()

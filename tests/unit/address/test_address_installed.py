"""Schemes whose drivers other distributions bring: they parse as plain URLs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.distributions import install
from trunkline.address import OPTIONS, SCHEMES, Address, parse_address, redact, schemes
from trunkline.errors import AddressError, UnknownScheme


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        tmp_path,
        "others",
        {"echo+test": "others:Echo", "Mixed": "others:Mixed", "ws": "others:Ws"},
        monkeypatch,
    )


def test_every_part_of_the_url() -> None:
    text = "echo+test://us%40er:p%3Aw@host:81/a%20b/c?x=1%2B1&y=a+b&z"
    address = parse_address(f"{text}|reconnect=true&payload=hi")
    assert address == Address(
        "echo+test",
        text,
        host="host",
        port=81,
        user="us@er",
        password="p:w",
        path="/a%20b/c",
        params={"x": "1+1", "y": "a+b", "z": ""},
        options={"reconnect": True, "payload": ("hi",)},
    )
    assert not address.tls


@pytest.mark.parametrize(
    ("rest", "host", "port", "user", "path"),
    [
        ("h", "h", None, None, ""),
        ("h:1", "h", 1, None, ""),
        ("[::1]:1/", "::1", 1, None, "/"),
        ("/dev/tty0", None, None, None, "/dev/tty0"),
        ("user@/db", None, None, "user", "/db"),
        ("/", None, None, None, "/"),
        ("h?a=b", "h", None, None, ""),
        ("bücher.example", "xn--bcher-kva.example", None, None, ""),
    ],
)
def test_parts_may_be_absent(
    rest: str, host: str | None, port: int | None, user: str | None, path: str
) -> None:
    address = parse_address(f"echo+test://{rest}")
    assert (address.host, address.port, address.user, address.path) == (host, port, user, path)
    assert address.target == f"echo+test://{rest}"


@pytest.mark.parametrize(
    ("rest", "sentence"),
    [
        ("", "a echo+test address names no host: write one after the '://'"),
        ("?a=b", "a echo+test address names no host: write one after the '://'"),
        (":1/x", "a echo+test address names no host: write one after the '://'"),
        ("h:99999", "a echo+test address has port 99999: a port is 1 to 65535"),
        ("h#x", "a echo+test address has no '#' part: write %23 for a '#' that belongs to it"),
        ("h\x01", "a echo+test address must be one line without control characters"),
        ("h|reconect=true", "unknown option 'reconect': did you mean 'reconnect'"),
    ],
)
def test_what_is_no_such_url(rest: str, sentence: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(f"echo+test://{rest}")
    assert str(caught.value) == sentence


@pytest.mark.parametrize("scheme", ["ECHO+Test", "mixed", "MIXED"])
def test_upper_and_lower_case_are_the_same(scheme: str) -> None:
    assert parse_address(f"{scheme}://h").scheme == scheme.lower()


def test_every_option_is_taken() -> None:
    given: dict[str, object] = {
        "compress": "gzip",
        "mode": "dual",
        "proxy": "socks5://u:p@h:1",
        "headers": {"A": "b"},
        "local_ip": "127.0.0.1",
        "pingType": "text",
        "decode": "bytes",
        "cafile": "ca.pem",
        "subprotocols": "a",
        "buffer_bytes": 4096,
        "servername": "h.example",
    }
    for name, option in OPTIONS.items():
        given.setdefault(
            name, True if option.kind == "bool" else 1 if option.kind != "text" else "text"
        )
    given |= {"payload": "a", "pingMessage": "b"}
    address = parse_address("echo+test://h", given)
    assert set(address.options) == set(OPTIONS)
    assert address.resolved("/home").options["cafile"] == "/home/ca.pem"


def test_defaults_are_those_of_any_stream() -> None:
    address = parse_address("echo+test://h")
    assert address.option("buffer") == 2000
    assert address.option("pingInterval") == 0


def test_no_secret_is_shown() -> None:
    text = "echo+test://us3r:s3cret@h:1/p?token=t0ken&a=b|payload=pr1vate"
    address = parse_address(text)
    for shown in (str(address), repr(address), address.display, redact(text)):
        assert not any(secret in shown for secret in ("us3r", "s3cret", "t0ken", "pr1vate"))
    assert address.display == "echo+test://h:1/p"
    assert "a=b" in str(address)


def test_it_travels_to_a_process_that_knows_nothing_of_the_distribution(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = parse_address("echo+test://u:p@h:1/p?a=b|buffer=5")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    with pytest.raises(UnknownScheme):
        parse_address("echo+test://h")
    again = Address.from_wire(address.to_wire())
    assert again == address
    assert (str(again), again.tls) == (str(address), False)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("echo", f"use one of {', '.join(SCHEMES)}"),
        ("wsss", "did you mean 'wss'"),
        ("http", "did you mean 'ws'"),
    ],
)
def test_a_scheme_that_nobody_knows_is_refused_as_ever(name: str, hint: str) -> None:
    with pytest.raises(UnknownScheme) as caught:
        parse_address(f"{name}://h")
    assert str(caught.value) == f"unknown scheme '{name}': {hint}"


def test_trunklines_own_schemes_are_never_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemes, "is_installed", lambda name: pytest.fail(f"{name} was looked up"))
    assert {schemes.find_scheme(name).name for name in SCHEMES} == set(SCHEMES)
    assert schemes.find_scheme("postgresql").family == "database"


def test_broken_metadata_of_somebody_else_is_no_traceback(tmp_path: Path) -> None:
    broken = tmp_path / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[trunkline.drivers]\nno equals sign\n")
    with pytest.raises(UnknownScheme):
        parse_address("quic://h")


def test_known_schemes_do_without_the_metadata_of_installed_distributions() -> None:
    code = (
        "import sys\n"
        "before = 'importlib.metadata' in sys.modules\n"
        "from trunkline.address import parse_address\n"
        "parse_address('wss://h')\n"
        "assert before or 'importlib.metadata' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)

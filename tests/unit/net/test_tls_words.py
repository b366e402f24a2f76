"""What TLS errors and names are turned into, without a server."""

from __future__ import annotations

import ssl

import pytest

from trunkline.actors.net import tls
from trunkline.address import parse_address
from trunkline.errors import AddressError


def test_openssls_own_marks_are_left_out() -> None:
    error = ssl.SSLError(1, "[SSL] unknown error (_ssl.c:1006)")
    assert str(tls.explain(error, "h", 1)) == "TLS handshake with h:1 failed: unknown error"


def test_the_dot_at_the_end_of_a_name_is_not_sent() -> None:
    assert tls.server_hostname(parse_address("tls://localhost.:1")) == "localhost"


@pytest.mark.parametrize("name", [".", "a..b", "a" * 64, "*.x", "a b", "a/b", "http://a"])
@pytest.mark.parametrize("scheme", ["tls://h:1", "wss://h/", "mqtts://h?topic=t", "kafka://h/t"])
def test_a_servername_that_is_no_name_is_refused(scheme: str, name: str) -> None:
    with pytest.raises(
        AddressError, match=r"option 'servername' does not take .* use a host's name"
    ):
        parse_address(scheme, {"servername": name})


def test_a_servername_is_taken_in_every_spelling() -> None:
    for given, name in (
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("::1", "::1"),
        ("[::1]", "::1"),
    ):
        assert parse_address("tls://h:1", {"servername": given}).option("servername") == name

"""What TLS alerts mean, in whatever library's words they come."""

from __future__ import annotations

import ssl

import pytest
from clickhouse_driver import errors

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.clickhouse.errors import refuse_dial
from trunkline.actors.net import tls, tls_alerts
from trunkline.errors import DialError


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (
            "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required (_ssl.c:2580)",
            "wants a",
        ),
        ("SSL error: tlsv13 alert certificate required", "wants a client certificate"),
        ("ssl/tls alert handshake failure", "refused the TLS handshake"),
        (
            "error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42",
            "bad certificate",
        ),
        ("tlsv1 alert unknown ca", "unknown ca"),
        (
            "[SSL: TLSV1_ALERT_PROTOCOL_VERSION] tlsv1 alert protocol version",
            "shares no TLS version",
        ),
        ("[SSL: TLSV1_UNRECOGNIZED_NAME] tlsv1 unrecognized name", "servername="),
    ],
)
def test_an_alert_is_found_in_any_words(text: str, meaning: str) -> None:
    assert meaning in str(tls_alerts.alert_in(text))


@pytest.mark.parametrize(
    "text", ["", "certificate verify failed", "connection reset by peer", "alert"]
)
def test_what_is_no_alert(text: str) -> None:
    assert tls_alerts.alert_in(text) is None


def test_an_alert_that_ends_an_open_link_is_told_in_words() -> None:
    error = ssl.SSLError(
        1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required"
    )
    assert tls.lost(error) == "the peer wants a client certificate; give certfile= and keyfile="
    assert tls.lost(ConnectionResetError()) is None
    explained = tls.explain(error, "h", 1)
    assert isinstance(explained, FatalError)
    assert str(explained) == "h:1 wants a client certificate; give certfile= and keyfile="


def test_a_server_of_clickhouse_that_hangs_up_over_tls_may_want_a_certificate() -> None:
    error = errors.NetworkError("EOF occurred in violation of protocol (_ssl.c:2427)")
    with pytest.raises(
        DialError, match="if it wants a client certificate, give certfile= and keyfile="
    ):
        refuse_dial(error, "h:9440", "d")

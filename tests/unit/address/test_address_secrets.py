"""No secret in any text that people see: str, repr, display, errors and what hangs on them."""

from __future__ import annotations

import string
import traceback
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.address import Address, Proxy, parse_address, redact
from trunkline.errors import AddressError

# one capital letter makes sure that no sentence of ours holds the secret by chance
PLAIN = st.text(string.ascii_letters + string.digits, min_size=8, max_size=24).map(
    lambda text: f"Zq{text}"
)
ANY = st.text(string.printable, min_size=8, max_size=24).map(lambda text: f"Zq{text}")

WELL_FORMED = [
    "wss://user:{s}@h/p|reconnect=true",
    "wss://{s}@h/p",
    "wss://h/ws?token={s}&x=1",
    "wss://h/ws?signature={s}",
    "wss://h/ws?listenKey={s}",
    "wss://h/ws?api_key={s}&pwd={s}",
    "wss://h|payload={s}",
    'wss://h|payload={{"apiKey":"{s}"}}&mode=dual',
    "wss://h|pingMessage={s}",
    'wss://h|headers={{"X-API":"{s}"}}',
    "wss://h|proxy=socks5://name:{s}@p:1080",
    "wss://h|proxy=http://{s}@p:1080",
    "mqtt://u:{s}@h?topic=t",
    "mqtt://h?topic=t&password={s}",
    "mqtt://h?topic=t&will_topic=w&will_payload={s}",
    "nats://{s}@h?topic=t",
    "nats://h?topic=t&token={s}|reconnect=true",
    "nats://h?topic=t&nkey={s}",
    "amqp://u:{s}@h/?queue=q",
    "kafka://u:{s}@h/t",
    "kafka://h/t?sasl.password={s}",
    "kafka://h/t?sasl_password={s}",
    "kafka://h/t?ssl.key.password={s}|sasl.username=u",
    "kafka://h/t?sasl.oauthbearer.client.secret={s}",
    "kafka://h/t?key={s}",
    "kafka://h/t|key={s}",
    "mqtt://u@h,i?topic=t|password={s}&reconnect=false",
    "mqtt://h?topic=t|will_topic=w&will_payload={s}",
    'mqtt://h?topic=t&version=5|headers={{"Authorization":"{s}"}}',
    "wss+mqtt://u:{s}@h/mqtt?topic=t",
    "nats://u:{s}@a:1,b:2?topic=t",
    "nats://u:p@a,u2:{s}@b?topic=t",
    "nats://{s}@a,{s}@b?subject=t",
    "nats://u:p@a,nats://u2:{s}@b?topic=t",
    "nats://h?topic=t&username={s}",
    "nats://h?topic=t&creds={s}.creds",
    "tls+nats://h?topic=t|nkey={s}&token={s}",
    "amqps://u:{s}@a,b:5671/v?queue=q&routing_key=r",
    "amqp://h/?queue=q&username=u&password={s}",
    "mysql://u:{s}@tcp(h:1)/d",
    "mysql://u:{s}@h:3306/d",
    "postgres://u:{s}@h/d",
    "postgres://h/d?password={s}",
    "postgres://user=u password={s} host=h",
    "clickhouse://u:{s}@h:9000/d",
    "clickhouse://tcp://h:9000?username=u&password={s}",
    "clickhouse://http://h/?http_proxy=http%3A%2F%2Fu%3A{s}%40p",
    "sqlite3://file:a.db?_auth&_auth_user=u&_auth_pass={s}",
]
MALFORMED = [
    "wss://user:{s}@h:port/p",
    "wss://user:{s}@h p/p",
    "wss://user:{s}@h|reconect=true",
    "wss://user:{s}@h/p|mode=x&payload=y",
    "ws://h|proxy=socks4://u:{s}@h:1",
    "ws://h|proxy=socks5://u:{s}@h:x",
    "ws://h|proxy=socks5://u:{s}@",
    "ws://h|headers={s}",
    "tcp://u:{s}@h:1",
    "mqtt://u:{s}@h",
    "mqtt://u:{s}@h?topic=t|qos=9",
    "nats://{s}@?topic=t",
    "amqp://u:{s}@h,i:x/?queue=q",
    "kafka://u:{s}@h:0/t",
    "kafka://u:p@a,v:{s}@b/t",
    "kafka://h/t?sasl.password={s}&sasl_password={s}",
    "kafka://h/t?key={s}&queue=q",
    "nats://{s}@h?topic=t&token={s}",
    "nats://u:{s}@a,b:{s}?topic=t",
    "nats://u:p@a,u2:{s}@b c?topic=t",
    "nats://h?topic=t&token={s}&token={s}",
    "mqtt://u:{s}@h?topic=t&username=u",
    "mqtt://h?topic=t&password={s}&qos=x",
    "mqtt://u:{s}@h?topic=t&reconnect=true",
    "amqp://u:{s}@h/?queue=q&qos=1",
    "wss+mqtt://u:{s}@h/mqtt",
    "mysql://u:{s}@tcp(h:1)",
    "mysql://u:{s}@tcp(h:1/d",
    "mysql://u:{s}@tcp(h:1)/d?tls=x",
    "mysql://u:{s}@tcp(h:1)/d|payload=x",
    "mysql://u:{s}/d",
    "postgres://u:p@h/d|token={s}",
    "clickhouse://u:p@h/d||token={s}",
    "postgres://u:{s}@h:x/d",
    "postgres://u:{s}@h h/d",
    "postgres://user=u password={s} {s}",
    "postgres://user=u password='{s}",
    "postgres://user=u password={s} sslmode=x",
    "clickhouse://u:{s}@h:x/d",
    "clickhouse://tcp://h:9?password={s}&secure=x",
    "sqlite3://a.db?_auth_pass={s}&_fk=x",
    "u:{s}@h",
    "wsss://u:{s}@h",
]


def _seen_by_people(address: Address) -> str:
    return "\n".join((str(address), repr(address), address.display, f"{address.options['proxy']!r}"
                      if "proxy" in address.options else ""))  # fmt: skip


@pytest.mark.parametrize("template", WELL_FORMED)
@settings(max_examples=20)
@given(secret=PLAIN)
def test_secret_is_kept_and_never_shown(template: str, secret: str) -> None:
    address = parse_address(template.format(s=secret), environ={})
    assert secret not in _seen_by_people(address)
    assert secret in str(address.to_wire())
    assert secret not in redact(template.format(s=secret))


@pytest.mark.parametrize("template", MALFORMED)
@settings(max_examples=20)
@given(secret=PLAIN)
def test_secret_is_in_no_error(template: str, secret: str) -> None:
    text = template.format(s=secret)
    with pytest.raises(AddressError) as caught:
        parse_address(text, environ={})
    assert secret not in str(caught.value)
    assert secret not in redact(text)


@pytest.mark.parametrize("template", [*WELL_FORMED, *MALFORMED])
@settings(max_examples=20)
@given(secret=ANY)
def test_secret_of_any_letters_is_never_shown(template: str, secret: str) -> None:
    """Written raw, it may tear the address apart: then the error is what must not show it."""
    for written in (secret, quote(secret, safe="")):
        try:
            shown = _seen_by_people(parse_address(template.format(s=written), environ={}))
        except AddressError as error:
            shown = str(error)
        assert secret not in shown
        assert written not in shown


@pytest.mark.parametrize("template", MALFORMED)
def test_nothing_hangs_on_an_error(template: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(template.format(s="Zq1Secret1"), environ={})
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert frames[-1] == "parse_address"
    assert "Zq1Secret1" not in repr(error)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "wss://u:p@h:1/p?token=x&a=b|reconnect=true",
            "wss://***@h:1/p?token=***&a=b|reconnect=true",
        ),
        ("wss://u@h", "wss://***@h:443"),
        ("nats://tok@h?topic=t", "nats://***@h:4222?topic=t"),
        ("mysql://u:p@tcp(h:1)/d?parseTime=true", "mysql://u:***@h:1/d?parseTime=true"),
        ("mysql://u@tcp(h:1)/d", "mysql://u@h:1/d"),
        ("ws://h|payload=a&payload=b&mode=send", "ws://h:80|payload=***&mode=send"),
        ("ws://h|proxy=socks5://u:p@x:1", "ws://h:80|proxy=socks5://***@x:1"),
        ("ws://h?a=%0Aforged%1B[31m", "ws://h:80?a=%0Aforged%1B[31m"),
        ("amqp://h?queue=q&routing_key=r", "amqp://h:5672?queue=q&routing_key=r"),
    ],
)
def test_str_shows_the_rest(text: str, shown: str) -> None:
    assert str(parse_address(text)) == shown
    assert repr(parse_address(text)) == f"<Address {shown}>"


def test_proxy_hides_its_account() -> None:
    proxy = Proxy.parse("socks5://name:pwd@h:1")
    assert (str(proxy), repr(proxy)) == ("socks5://***@h:1", "<Proxy socks5://***@h:1>")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("wss://h/ws/btcusdt@trade", "wss://h/ws/btcusdt@trade"),
        ("wss://u:p@h/ws/a@b", "wss://***@b"),
        ("mysql://u:a/b@c@tcp(h:1)/d", "mysql://***@tcp(h:1)/d"),
        (
            "could not open 'postgres://u:p w@h/d': refused",
            "could not open 'postgres://***@h/d': refused",
        ),
        ("host=h password='a b\\' c' user=u", "host=h password=*** user=u"),
        ("wss://h|payload=x&mode=recv", "wss://h|payload=***"),
        ("wss://h?sign=ab&a=1", "wss://h?sign=***&a=1"),
        ("u:p@h", "***@h"),
        ("nothing to hide", "nothing to hide"),
        ("mysql://u:pw/d", "mysql://u:***/d"),
        ("tcp://h:80", "tcp://h:80"),
        ("sqlite3://file:test.db?mode=ro", "sqlite3://file:test.db?mode=ro"),
        ("password=my secret words user=u", "password=*** user=u"),
        ("a=b some;password=x y", "a=b some;password=***"),
        ("wss://h|proxy=socks5://u:p@x:1&mode=recv", "wss://h|proxy=***&mode=recv"),
        (f"wss://h/ws/{'b2' * 20}", "wss://h/ws/***"),
    ],
)
def test_redact(text: str, shown: str) -> None:
    assert redact(text) == shown


@given(st.text())
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    for prefix in (
        "",
        "ws://",
        "tcp://h:1|",
        "mqtt://",
        "mysql://",
        "postgres://",
        "clickhouse://",
        "sqlite3://",
    ):
        redact(prefix + text)
        try:
            address = parse_address(prefix + text, environ={})
        except AddressError:
            continue
        assert Address.from_wire(address.to_wire()) == address
        assert str(address)

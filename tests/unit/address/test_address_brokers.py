# ruff: noqa: E501 - the sentences are pinned whole, one to a line
"""The message brokers' addresses: parameters, several servers, logins, files, and the sentence for every slip."""

from __future__ import annotations

import string
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.librdkafka import property_names
from trunkline.address import OPTIONS, PARAMS, SCHEMES, Address, parse_address
from trunkline.errors import AddressError

BROKERS = [row.name for row in SCHEMES.values() if row.family == "broker"]
EXAMPLES = {name: SCHEMES[name].example for name in BROKERS}


@pytest.mark.parametrize("name", BROKERS)
def test_the_example_of_every_broker_parses(name: str) -> None:
    address = parse_address(EXAMPLES[name])
    assert (address.scheme, address.host, address.port) == (name, "host", SCHEMES[name].port)
    assert address.hosts == (("host", SCHEMES[name].port),)
    assert address.option("reconnect") is True
    assert address.option("pingInterval") == (0 if name == "kafka" else 20_000)
    assert address.tls is (name in ("mqtts", "wss+mqtt", "tls+nats", "amqps", "rediss"))


def test_every_parameter_is_described() -> None:
    for rows in PARAMS.values():
        for name, row in rows.items():
            assert row.name == name
            assert row.help
            assert name not in OPTIONS
            assert not set(row.also) & {*OPTIONS, *rows}


VALUES: list[tuple[str, str, str, Any]] = [
    ("mqtt", "qos", "2", 2),
    ("mqtt", "retain", "true", True),
    ("mqtt", "clean", "0", False),
    ("mqtt", "version", "5", "5"),
    ("mqtt", "version", "3.1.1", "3.1.1"),
    ("mqtt", "will_qos", "1", 1),
    ("mqtt", "will_retain", "YES", True),
    ("mqtt", "session_expiry", "4294967295", 2**32 - 1),
    ("nats", "deliver", "last_per_subject", "last_per_subject"),
    ("nats", "deliver", "17", 17),
    ("nats", "ack_wait", "500", 500),
    ("nats", "max_ack_pending", "1", 1),
    ("amqp", "type", "topic", "topic"),
    ("amqp", "type", "x-consistent-hash", "x-consistent-hash"),
    ("amqp", "durable", "no", False),
    ("amqp", "exclusive", "true", True),
    ("amqp", "auto_delete", "true", True),
    ("amqp", "passive", "true", True),
    ("amqp", "x-queue-type", "quorum", "quorum"),
    ("amqp", "x-message-ttl", "60000", 60_000),
    ("amqp", "x-single-active-consumer", "true", True),
    ("amqp", "x-dead-letter-routing-key", "42", "42"),
    ("amqp", "x-dead-letter-exchange", "true", "true"),
    ("amqp", "x-stream-offset", "17", 17),
    ("amqp", "x-stream-offset", "first", "first"),
    ("amqp", "x-of-a-plugin", "7", 7),
    ("amqp", "x-of-a-plugin", "False", False),
    ("amqp", "x-of-a-plugin", "7s", "7s"),
    ("amqp", "prefetch", "65535", 65_535),
    ("amqp", "heartbeat", "0", 0),
    ("amqp", "persistent", "true", True),
    ("amqp", "mandatory", "false", False),
    ("kafka", "offset", "earliest", "earliest"),
    ("kafka", "offset", "12345678901", 12_345_678_901),
    ("kafka", "partition", "3", 3),
]


@pytest.mark.parametrize(("scheme", "name", "text", "value"), VALUES)
def test_a_value_is_typed_wherever_it_stands(scheme: str, name: str, text: str, value: Any) -> None:
    start = EXAMPLES[scheme]
    query = f"{start}{'&' if '?' in start else '?'}{name}={text}"
    for address in (
        parse_address(query),
        parse_address(f"{start}|{name}={text}"),
        parse_address(start, {name: text}),
        parse_address(start, {name: value}),
    ):
        assert address.extra["typed"] == {name: value}
        assert address.params[name] in (text, str(value).lower())


@pytest.mark.parametrize("name", ["deliver", "offset"])
@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00",
        "2026-01-31 12:00",
        "2026-01-31T14:00:00+02:00",
    ],
)
def test_a_starting_time_is_utc_without_a_zone(name: str, text: str) -> None:
    start = "nats://h?topic=t&stream=s&deliver=" if name == "deliver" else "kafka://h/t?offset="
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert parse_address(start + text).extra["typed"] == {
        name: text,
        f"{name}_time": moment.timestamp(),
    }
    beside = parse_address(start.rpartition("&" if name == "deliver" else "?")[0], {name: moment})
    assert beside.extra["typed"][f"{name}_time"] == moment.timestamp()


def test_other_names_for_the_same() -> None:
    assert parse_address("nats://h?subject=a.>").params == {"topic": "a.>"}
    assert parse_address("nats://h?subject=a&write_subject=b").params == {
        "topic": "a",
        "write_topic": "b",
    }
    assert parse_address("amqp://h/?queue=q&write_key=k").params == {
        "queue": "q",
        "write_topic": "k",
    }
    assert parse_address("kafka://h/t?group.id=g").params == {"topic": "t", "group": "g"}
    assert parse_address("kafka://h/t|group_id=g").extra["librdkafka"] == {}


# topics


@pytest.mark.parametrize(
    "text",
    [
        "mqtt://h?topic=a/+/b,c/#",
        "mqtt://h?topic=a/+/b&topic=c/#",
        "mqtt://h?topic=a%2F%2B%2Fb,c%2F%23",
        "mqtt://h?topic=a/+/b|topic=c/#",
        "mqtt://h?write_topic=w|topic=a/+/b,c/#",
        "ws+mqtt://h/p?topic=a/+/b,c/#&write_topic=w",
    ],
)
def test_several_topics(text: str) -> None:
    address = parse_address(text)
    assert address.params["topic"] == "a/+/b,c/#"
    assert address.extra["topics"] == ["a/+/b", "c/#"]


def test_several_topics_beside_the_address() -> None:
    assert parse_address("nats://h", {"topic": ["a.*", "b.>"]}).extra["topics"] == ["a.*", "b.>"]
    assert parse_address("nats://h", topics_of("a.*,b.>")).extra["topics"] == ["a.*", "b.>"]
    assert parse_address("nats://h?topic=x", {"topic": ["a.*", "b.>"]}).extra["topics"] == ["x"]
    assert parse_address("kafka://h/a,b").extra["topics"] == ["a", "b"]
    assert parse_address("amqp://h/?exchange=e&routing_key=a.*,%23").extra["routing_keys"] == [
        "a.*",
        "#",
    ]


def topics_of(text: str) -> dict[str, str]:
    return {"subject": text}


def test_a_comma_that_belongs_to_a_topic() -> None:
    assert parse_address("mqtt://h?topic=a%2Cb,c").extra["topics"] == ["a,b", "c"]
    assert parse_address("mqtt://h|topic=a%2Cb,c").extra["topics"] == ["a,b", "c"]
    assert parse_address("mqtt://h", {"topic": ["a,b", "c"]}).extra["topics"] == ["a,b", "c"]


NAMES = st.text(
    string.ascii_letters + string.digits + "#+$*>/.,;:@&=?|%~!é€ \t", min_size=1, max_size=30
).filter(lambda name: name.strip() and "\t" not in name)


@given(st.lists(NAMES, min_size=1, max_size=3))
def test_any_topic_arrives_percent_encoded(topics: list[str]) -> None:
    written = ",".join(quote(topic, safe="") for topic in topics)
    for text in (
        f"mqtt://h?topic={written}",
        f"mqtt://h|topic={written}",
        f"mqtt://h?write_topic=w|topic={written}",
    ):
        address = parse_address(text)
        assert address.extra["topics"] == topics
        assert Address.from_wire(msgpack.unpackb(msgpack.packb(address.to_wire()))) == address
    assert parse_address("mqtt://h", {"topic": topics}).extra["topics"] == topics


@given(st.text(string.ascii_letters + string.digits + "#+$*>/.:_-", min_size=1))
def test_a_topic_with_wildcards_needs_no_encoding(topic: str) -> None:
    assert parse_address(f"mqtt://h?topic={topic}&qos=1").extra["topics"] == [topic]
    assert parse_address(f"nats://h?queue=q&topic={topic}").extra["topics"] == [topic]
    assert parse_address(f"amqp://h?routing_key={topic}|reconnect=false").extra["routing_keys"] == [
        topic
    ]


@given(st.text())
def test_any_query_is_an_address_or_an_address_error(text: str) -> None:
    for name in BROKERS:
        try:
            address = parse_address(f"{EXAMPLES[name]}{text}")
        except AddressError:
            continue
        assert Address.from_wire(msgpack.unpackb(msgpack.packb(address.to_wire()))) == address
        assert str(address)


# servers


@pytest.mark.parametrize(
    ("text", "hosts", "display"),
    [
        ("nats://a?topic=t", (("a", 4222),), "nats://a:4222?topic=t"),
        ("nats://u:p@a:1,b:2?topic=t", (("a", 1), ("b", 2)), "nats://a:1,b:2?topic=t"),
        ("nats://a:1, b?topic=t", (("a", 1), ("b", 4222)), "nats://a:1,b:4222?topic=t"),
        ("nats://a:1,nats://b:2?topic=t", (("a", 1), ("b", 2)), "nats://a:1,b:2?topic=t"),
        (
            "kafka://a,b,c:3,d/t",
            (("a", 9092), ("b", 9092), ("c", 3), ("d", 9092)),
            "kafka://a:9092,b:9092,+2/t",
        ),
        (
            "amqps://u:p@a,[::1]:5/v?queue=q",
            (("a", 5671), ("::1", 5)),
            "amqps://a:5671,[::1]:5/v?queue=q",
        ),
        (
            "wss+mqtt://a,b:444?topic=t",
            (("a", 443), ("b", 444)),
            "wss+mqtt://a:443,b:444/mqtt?topic=t",
        ),
    ],
)
def test_servers(text: str, hosts: tuple[tuple[str, int], ...], display: str) -> None:
    address = parse_address(text)
    assert address.hosts == hosts
    assert (address.host, address.port) == hosts[0]
    assert address.display == display
    assert "logins" not in address.extra


@pytest.mark.parametrize(
    ("text", "user", "password", "logins"),
    [
        ("nats://u:p@a,b?topic=t", "u", "p", None),
        ("nats://u:p@a,u:p@b?topic=t", "u", "p", None),
        ("nats://u:p@a,u2:p2@b?topic=t", "u", "p", [["u", "p"], ["u2", "p2"]]),
        ("nats://u:p@a,nats://u2:p2@b,c?topic=t", "u", "p", [["u", "p"], ["u2", "p2"], ["u", "p"]]),
        ("nats://u:p%2Cq@a?topic=t", "u", "p,q", None),
        ("nats://u:p,q@a,b?topic=t", "u", "p,q", None),
        ("amqp://u:p@q@a,b/?queue=q", "u", "p@q", None),
        ("mqtt://a,u2:p2@b?topic=t&username=u&password=p", "a,u2", "p2", None),
        ("kafka://u:p@a,b/t", "u", "p", None),
        ("mqtt://h?topic=t&username=u&password=p", "u", "p", None),
        ("mqtt://u@h?topic=t|password=p%26", "u", "p&", None),
    ],
)
def test_logins(text: str, user: str, password: str, logins: list[list[str]] | None) -> None:
    if text.startswith("mqtt://a,u2"):
        with pytest.raises(AddressError, match="names its username twice"):
            parse_address(text)
        return
    address = parse_address(text)
    assert (address.user, address.password) == (user, password)
    assert address.extra.get("logins") == logins
    assert not {"username", "password"} & set(address.params)


def test_a_login_beside_the_address_yields_to_the_one_in_it() -> None:
    beside = {"username": "u2", "password": "p2"}
    assert parse_address("amqp://h?queue=q", beside).user == "u2"
    address = parse_address("amqp://u@h?queue=q", beside)
    assert (address.user, address.password) == ("u", "p2")
    address = parse_address("amqp://u:p@h?queue=q", beside)
    assert (address.user, address.password) == ("u", "p")


def test_a_nats_user_without_a_password_is_a_token() -> None:
    assert parse_address("nats://admin@h?topic=t").extra["token"] == "admin"
    assert parse_address("nats://h?topic=t|token=a%26b").extra["token"] == "a&b"
    assert parse_address("nats://h?topic=t", {"username": "admin"}).extra["token"] == "admin"
    assert "token" not in parse_address("nats://u:p@h?topic=t").extra
    assert "token" not in parse_address("nats://h?topic=t").extra


# paths


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("ws+mqtt://h?topic=t", "/mqtt"),
        ("ws+mqtt://h/?topic=t", "/"),
        ("wss+mqtt://h/a/b%20c?topic=t", "/a/b%20c"),
    ],
)
def test_the_path_of_mqtt_over_websocket(text: str, path: str) -> None:
    assert parse_address(text).path == path


@pytest.mark.parametrize(
    ("path", "vhost"),
    [("", "/"), ("/", "/"), ("/%2F", "/"), ("/v", "v"), ("/%2Fv", "/v"), ("/a%20b", "a b")],
)
def test_the_path_of_amqp_is_the_virtual_host(path: str, vhost: str) -> None:
    assert parse_address(f"amqp://h{path}?queue=q").extra["vhost"] == vhost


# kafka's library


def test_properties_of_librdkafka_by_their_own_names() -> None:
    address = parse_address(
        "kafka://a,b:1/t?group=g&security_protocol=SASL_SSL&log_level=3&acks=1|sasl.username=u&client_id=c"
    )
    assert address.extra["librdkafka"] == {
        "security.protocol": "SASL_SSL",
        "log_level": "3",
        "acks": "1",
        "sasl.username": "u",
        "client.id": "c",
    }
    assert parse_address("kafka://h/t", {"enable.idempotence": False}).extra["librdkafka"] == {
        "enable.idempotence": "false"
    }


def test_headers_of_written_messages() -> None:
    for name in BROKERS:
        address = parse_address(
            EXAMPLES[name], {"headers": {"a": "b", "c": ["d", 5]}, "compress": "gzip"}
        )
        assert address.option("headers") == {"a": "b", "c": ["d", "5"]}
        assert Address.from_wire(msgpack.unpackb(msgpack.packb(address.to_wire()))) == address
    with pytest.raises(AddressError, match="join them with a comma"):
        parse_address("ws://h", {"headers": {"a": ["b"]}})


# files


def test_files_among_the_parameters_are_the_callers() -> None:
    seed = "SU" + "A" * 56
    address = parse_address("nats://h?topic=t&creds=a.creds&nkey=/k|cafile=ca.pem").resolved(
        "/home/u"
    )
    assert (address.params["creds"], address.params["nkey"]) == ("/home/u/a.creds", "/k")
    assert address.option("cafile") == "/home/u/ca.pem"
    assert parse_address(f"nats://h?topic=t&nkey={seed}").resolved("/home/u").params["nkey"] == seed
    kafka = parse_address(
        "kafka://h/t?ssl_ca_location=ca.pem&ssl.key.location=/k&https.ca.location=probe&sasl.kerberos.keytab=x"
    ).resolved("/home/u")
    assert kafka.extra["librdkafka"] == {
        "ssl.ca.location": "/home/u/ca.pem",
        "ssl.key.location": "/k",
        "https.ca.location": "probe",
        "sasl.kerberos.keytab": "/home/u/x",
    }
    assert kafka.resolved("/elsewhere") == kafka


# what is shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nats://tok@a,tok2@b?topic=t&queue=g", "nats://***@a:4222,b:4222?topic=t&queue=g"),
        (
            "kafka://h/t?group=g&key=k&sasl.password=p",
            "kafka://h:9092/t?group=g&key=***&sasl.password=***&topic=t",
        ),
        (
            "mqtt://h?topic=a/%23&client_id=c&will_payload=x",
            "mqtt://h:1883?topic=a/#&client_id=c&will_payload=***",
        ),
        ("amqp://u:p@h/v?queue=q&routing_key=a.b", "amqp://***@h:5672/v?queue=q&routing_key=a.b"),
        ("nats://h?topic=t&creds=a.creds&nkey=n", "nats://h:4222?topic=t&creds=***&nkey=***"),
    ],
)
def test_str_shows_what_is_no_secret(text: str, shown: str) -> None:
    assert str(parse_address(text)) == shown


@pytest.mark.parametrize(
    ("text", "display"),
    [
        ("kafka://h?topic=a,b", "kafka://h:9092?topic=a,b"),
        ("kafka://h/a,b", "kafka://h:9092/a,b"),
        ("nats://h?stream=s&queue=q", "nats://h:4222?stream=s"),
        ("amqp://u:p@h/v?exchange=e&routing_key=k", "amqp://h:5672/v?exchange=e"),
        ("mqtt://h?write_topic=w&password=p", "mqtt://h:1883?write_topic=w"),
        ("mqtt://h?topic=a%E2%80%A8b", "mqtt://h:1883?topic=a%E2%80%A8b"),
        (f"mqtt://h?topic={'a/' * 99}", f"mqtt://h:1883?topic={'a/' * 30}..."),
    ],
)
def test_the_short_form_says_what_is_read(text: str, display: str) -> None:
    assert parse_address(text).display == display


# slips


SENTENCES = [
    ("amqp://h/?queue=q&qos=1", "parameter 'qos' belongs to mqtt: amqp takes queue, exchange, type, routing_key, write_topic, durable, exclusive, auto_delete, passive, x-..., prefetch, heartbeat, persistent, mandatory, name, username, password"),
    ("amqp://h/?queue=q|qos=1", "parameter 'qos' belongs to mqtt: amqp takes queue, exchange, type, routing_key, write_topic, durable, exclusive, auto_delete, passive, x-..., prefetch, heartbeat, persistent, mandatory, name, username, password"),
    ("kafka://h/t?routing_key=1", "parameter 'routing_key' belongs to amqp: kafka takes topic, write_topic, group, offset, partition, key, username, password"),
    ("kafka://h/t?queue=q", "parameter 'queue' belongs to amqp and nats: kafka takes topic, write_topic, group, offset, partition, key, username, password"),
    ("kafka://h/t?write_topik=x", "unknown option 'write_topik': did you mean 'write_topic'"),
    ("mqtt://h?topic=t&qqos=1", "unknown option 'qqos': did you mean 'qos'"),
    ("nats://h?topic=t&reconnect=false", "option 'reconnect' stands behind a '|': write nats://host?topic=name|reconnect=value"),
    ("mqtt://h?topic=t&keepalive=5", "there is no parameter 'keepalive': use the option pingInterval, in ms"),
    ("amqp://h?queue=q|vhost=v", "there is no parameter 'vhost': the virtual host is the path, as in amqp://host/vhost?queue=name"),
    ("kafka://h/t?bootstrap.servers=a", "there is no parameter 'bootstrap.servers': the servers stand in the address, as in kafka://host1:9092,host2:9092/topic"),
    ("mqtt://h?topic=t&qos=1&qos=2", "parameter 'qos' is given twice: write it once"),
    ("mqtt://h?topic=t&qos=1|qos=2", "parameter 'qos' is given twice: write it once"),
    ("kafka://h/t?security.protocol=a&security_protocol=b", "parameter 'security.protocol' is given twice: write it once"),
    ("mqtt://h?topic=t&version=4", "parameter 'version' does not take '4': use one of 3.1.1, 5"),
    ("mqtt://h?topic=t&retain", "parameter 'retain' does not take '': use true or false"),
    ("mqtt://h?topic=a,,b", "parameter 'topic' does not take an empty name: write the names with one comma between them"),
    ("nats://h?topic=a%0D%0AUB", "parameter 'topic' does not take a value: use text of one line"),
    ("nats://h?topic=a%20b", "parameter 'topic' does not take a value with a space in it"),
    ("nats://h?topic=a&ack_wait=0", "parameter 'ack_wait' does not take '0': use a whole number from 1 to 2147483647"),
    ("nats://h?topic=a&deliver=soon", "parameter 'deliver' does not take 'soon': use one of all, last, new, last_per_subject, a sequence number, or a time such as 2026-01-31T12:00:00Z"),
    ("kafka://h/t?offset=-1", "parameter 'offset' does not take '-1': use one of earliest, latest, an offset, or a time such as 2026-01-31T12:00:00Z"),
    ("amqp://h?exchange=e&type=topics", "parameter 'type' does not take 'topics': use one of direct, fanout, topic, headers"),
    ("amqp://h?queue=q&x-message-ttl=1m", "parameter 'x-message-ttl' does not take '1m': use a whole number"),
    ("amqp://h?queue=q&x-single-active-consumer=2", "parameter 'x-single-active-consumer' does not take '2': use true or false"),
    ("amqp://h?queue=q&prefetch=65536", "parameter 'prefetch' does not take '65536': use a whole number from 0 to 65535"),
    ("kafka://h/a%20b", "a kafka address has the topic 'a b': a topic is letters, digits, '.', '_' and '-', 249 at most"),
    ("kafka://h/a?topic=b", "a kafka address names its topic twice: write it in the path alone"),
    ("kafka://u:p@a,v:q@b/t", "a kafka address has one user for all servers: write it before the first one"),
    ("kafka://h/t|proxy=socks5://p:1", "option 'proxy' cannot be had with kafka, whose library connects by itself: leave it out"),
    ("kafka://h/t|local_ip=127.0.0.1", "option 'local_ip' cannot be had with kafka, whose library connects by itself: leave it out"),
    ("mqtt://u@h?topic=t&username=v", "an mqtt address names its username twice: write it once"),
    ("nats://tok@h?topic=t&token=x", "a nats address names its token twice: write it once"),
    ("mqtt://a,?topic=t", "an mqtt address names no host: write one after the '://'"),
    ("mqtt://h#topic=t", "an mqtt address has no '#' part: write %23 for a '#' that belongs to it"),
    ("mqtt://h/t?topic=a", "an mqtt address has no path: write mqtt://host?topic=name"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), SENTENCES)
def test_sentence_of_a_slip(text: str, sentence: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert str(caught.value) == sentence
    assert "\n" not in sentence
    assert ". " not in sentence


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"topic": {"a": 1}}, "parameter 'topic' does not take a value: use text or a number"),
        ({"topic": "t", "will_payload": b"\xff"}, "parameter 'will_payload' does not take a value: use text or a number"),
        ({"topic": "t", "client_id": "\ud800"}, "option 'client_id' must be valid text: it holds half of a surrogate pair"),
        ({"topic": "t", "qos": 3}, "parameter 'qos' does not take '3': use a whole number from 0 to 2"),
        ({"topic": "t", "stream": "s"}, "parameter 'stream' belongs to nats and redis: mqtt takes topic, write_topic, qos, retain, client_id, clean, version, will_topic, will_payload, will_qos, will_retain, session_expiry, retain_handling, no_local, username, password"),
    ],
)  # fmt: skip
def test_sentence_of_a_slip_beside_the_address(options: Any, sentence: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address("mqtt://h", options)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("kafka://h/t?foo=1", "foo"),
        ("kafka://u:p@h/t|foo=1", "foo"),
        ("mqtt://h?password=abc&topic=a&foo=1", "foo"),
        ("nats://h?topic=a|buffer=5&foo=1", "foo"),
        ("mqtt://h?topic=a&password=abc&foo=1", ""),
        ("mqtt://h?topic=a|will_payload=abc&foo=1", ""),
        ("kafka://h/t|proxy=socks5://u:p&foo=@h:1", ""),
        ("mqtt://u:p|foo=1", ""),
    ],
)
def test_an_unknown_option_is_named_unless_it_may_be_the_rest_of_a_secret(
    text: str, shown: str
) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert (
        f"unknown option '{shown}'" in str(caught.value)
        if shown
        else "foo" not in str(caught.value)
    )


def test_every_property_of_librdkafka_is_one(tmp_path: Path) -> None:
    """Also those that look like a parameter (`partitioner`), with dots and with underscores."""
    refused = {"bootstrap.servers", "metadata.broker.list"}  # the servers stand in the address
    for name in sorted(property_names(tmp_path) - refused):
        for written in {name, name.replace(".", "_")}:
            found = parse_address(f"kafka://h/t?{written}=x").params
            assert found["group" if name == "group.id" else name] == "x", written
    for name in refused:
        with pytest.raises(AddressError, match="the servers stand in the address"):
            parse_address(f"kafka://h/t?{name}=x")

"""mqtt: paho-mqtt bare, and through Dial."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import trunkline
from benchmarks import feeds
from benchmarks.broker_lines import THREADS, from_threads, reading_lines, started, writing_lines
from benchmarks.measure import Line, p50_us
from benchmarks.reading import Reading, Tally, through_dial
from tests.servers.mosquitto import Mosquitto
from tests.servers.run import Run

__all__ = ["measure"]

HOST = "127.0.0.1"
_WAIT_S = 30.0


def _client(client_id: str = "") -> Any:
    import paho.mqtt.client as mqtt

    return mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=not client_id
    )


def _make_session(port: int, topic: str, client_id: str) -> None:
    """Make a session, for which the broker keeps messages from now on."""
    client = _client(client_id)
    client.on_connect = lambda *_: client.subscribe(topic, 1)
    client.on_subscribe = lambda *_: client.disconnect()
    client.connect(HOST, port)
    client.loop_forever()


def _bare_read(
    port: int,
    topic: str,
    count: int,
    qos: int,
    go: Callable[[], None] | None = None,
    client_id: str = "",
) -> Reading:
    """Read by `on_message` under `loop_forever`; paho acknowledges when the callback returns."""
    client = _client(client_id)
    tally = Tally(count, client.disconnect)
    client.on_connect = lambda *_: client.subscribe(topic, qos)

    def on_subscribe(*_: object) -> None:
        if go is not None:
            tally.start()
            go()

    def on_message(client: Any, userdata: object, message: Any) -> None:
        tally.add(message.payload)

    client.on_subscribe, client.on_message = on_subscribe, on_message
    client.connect(HOST, port)
    client.loop_forever()
    return tally.reading()


@contextlib.contextmanager
def _bare_writer(port: int, topic: str, data: bytes) -> Iterator[Callable[[], object]]:
    """Write by `publish(qos=1).wait_for_publish()` beside `loop_start`, from any thread."""
    client = _client()
    client.max_inflight_messages_set(0)
    client.connect(HOST, port)
    client.loop_start()

    def write() -> None:
        info = client.publish(topic, data, qos=1)
        info.wait_for_publish(_WAIT_S)
        if not info.is_published():
            raise AssertionError("paho's write was not confirmed")

    try:
        yield write
    finally:
        client.disconnect()
        client.loop_stop()


def measure(run: Run, quick: bool) -> Iterator[Line]:
    """The lines of mqtt."""
    # The tests' log of every packet would dominate the measured time.
    with started(run, Mosquitto, config="log_type none") as server:
        yield from _read(server, quick)
        yield from _session(server, quick, "20 in flight, mosquitto's default")
        yield from _write(server, quick)
    with started(run, Mosquitto, config="log_type none\nmax_inflight_messages 1000") as server:
        yield from _session(server, quick, "1000 in flight")


def _read(server: Mosquitto, quick: bool) -> Iterator[Line]:
    """Reading messages of qos 0, from a live feed."""
    count, rounds = (20_000, 1) if quick else (60_000, 5)

    def direct() -> Reading:
        topic = server.unique("t")
        with feeds.live("mqtt", server.port, topic, count) as go:
            return _bare_read(server.port, topic, count, 0, go)

    def dial(envelopes: bool) -> Reading:
        topic = server.unique("t")
        with feeds.live("mqtt", server.port, topic, count) as go:
            # The buffer holds the whole feed, so that no message is dropped.
            url = f"mqtt://{server.address}?topic={topic}"
            return through_dial(url, count, go, envelopes=envelopes, buffer=count + 10)

    yield from reading_lines("mqtt qos 0: read", rounds, {"paho-mqtt": direct}, dial)


def _session(server: Mosquitto, quick: bool, how: str) -> Iterator[Line]:
    """Reading the messages that the broker keeps for a session."""
    count, rounds = (20_000, 1) if quick else (40_000, 5)

    def kept() -> tuple[str, str]:
        topic, name = server.unique("t"), server.unique("c")
        _make_session(server.port, topic, name)
        feeds.fill_mqtt(server.port, topic, count)
        return topic, name

    def direct() -> Reading:
        topic, name = kept()
        return _bare_read(server.port, topic, count, 1, client_id=name)

    def dial(envelopes: bool) -> Reading:
        topic, name = kept()
        url = f"mqtt://{server.address}?topic={topic}&qos=1&client_id={name}&clean=false"
        return through_dial(url, count, envelopes=envelopes)

    yield from reading_lines(f"mqtt qos 1 ({how}): read", rounds, {"paho-mqtt": direct}, dial)


def _write(server: Mosquitto, quick: bool) -> Iterator[Line]:
    topic = server.unique("w")
    with (
        trunkline.connect(f"mqtt://{server.address}?write_topic={topic}&qos=1") as connection,
        _bare_writer(server.port, topic, feeds.payload(0)) as direct,
    ):
        yield from writing_lines(
            "mqtt qos 1: confirmed write",
            quick,
            connection,
            lambda count: p50_us(direct, count),
            lambda count: from_threads(direct, count, THREADS),
            f"from {THREADS}",
        )

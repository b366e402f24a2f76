"""Scheme -> driver. The class is imported by the worker that needs it, and only then its library.

Others add drivers with an entry point in the group `trunkline.drivers`: name the scheme, value
"module:Class". `trunkline.address` takes their schemes too. Trunkline's own come first.
"""

from __future__ import annotations

import contextlib
from importlib import import_module, metadata

from trunkline.actors.driver import Driver, ExecDriver, FatalError, StreamDriver
from trunkline.address.installed import GROUP
from trunkline.errors import MissingLibrary, UnknownScheme

__all__ = ["DRIVERS", "driver_class", "preload"]

_SOCK = "trunkline.actors.drivers.sock.driver"
_WS = "trunkline.actors.drivers.ws.driver:WsDriver"
_MQTT = "trunkline.actors.drivers.mqtt.driver:MqttDriver"
_NATS = "trunkline.actors.drivers.nats.driver:NatsDriver"
_AMQP = "trunkline.actors.drivers.amqp.driver:AmqpDriver"
_POSTGRES = "trunkline.actors.drivers.postgres.driver:PostgresDriver"

DRIVERS: dict[str, str] = {
    "tcp": f"{_SOCK}:TcpDriver",
    "udp": f"{_SOCK}:UdpDriver",
    "tls": f"{_SOCK}:TlsDriver",
    "unix": f"{_SOCK}:UnixDriver",
    "ws": _WS,
    "wss": _WS,
    "mqtt": _MQTT,
    "mqtts": _MQTT,
    "ws+mqtt": _MQTT,
    "wss+mqtt": _MQTT,
    "nats": _NATS,
    "tls+nats": _NATS,
    "amqp": _AMQP,
    "amqps": _AMQP,
    "kafka": "trunkline.actors.drivers.kafka.driver:KafkaDriver",
    "sqlite3": "trunkline.actors.drivers.sqlite.driver:SqliteDriver",
    "mysql": "trunkline.actors.drivers.mysql.driver:MysqlDriver",
    "postgres": _POSTGRES,
    "postgresql": _POSTGRES,
    "clickhouse": "trunkline.actors.drivers.clickhouse.driver:ClickhouseDriver",
}

EXTRAS: dict[str, str] = {
    "mqtt": "mqtt",
    "mqtts": "mqtt",
    "ws+mqtt": "mqtt",
    "wss+mqtt": "mqtt",
    "nats": "nats",
    "tls+nats": "nats",
    "amqp": "amqp",
    "amqps": "amqp",
    "kafka": "kafka",
    "mysql": "mysql",
    "postgres": "postgres",
    "postgresql": "postgres",
    "clickhouse": "clickhouse",
}
"""The extra that brings the library of a scheme that is not in the core."""


def driver_class(scheme: str) -> type[Driver]:
    """The driver of a scheme. UnknownScheme, MissingLibrary with what to install, or FatalError for what is
    registered as a driver and is none."""
    place = DRIVERS.get(scheme) or _from_entry_points(scheme)
    if place is None:
        raise UnknownScheme(
            f"this release has no driver for {scheme}://; `trunkline doctor` lists those it has"
        )
    module, _, name = place.partition(":")
    try:
        found: type[Driver] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(scheme)
        hint = f"pip install 'trunkline[{extra}]'" if extra else f"install the module {error.name}"
        raise MissingLibrary(
            f"{scheme}:// needs a library that is not installed ({error.name}): {hint}"
        ) from None
    if not (isinstance(found, type) and issubclass(found, (StreamDriver, ExecDriver))):
        raise FatalError(f"{place} is registered for {scheme}:// and is no StreamDriver or ExecDriver class")
    return found


def preload(scheme: str) -> None:
    """Import a driver now, if it can be."""
    with contextlib.suppress(UnknownScheme, MissingLibrary, ImportError, AttributeError):
        driver_class(scheme)


def _from_entry_points(scheme: str) -> str | None:
    for entry in metadata.entry_points(group=GROUP):
        if entry.name.lower() == scheme:
            return f"{entry.module}:{entry.attr}"
    return None

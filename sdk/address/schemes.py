"""The schemes, one row each: family, default port, and the protocol of the message brokers."""

from __future__ import annotations

from dataclasses import dataclass

from trunkline.address.installed import is_installed
from trunkline.address.nearest import nearest
from trunkline.address.params import find_param
from trunkline.errors import UnknownScheme

__all__ = [
    "BROKERS",
    "DATABASES",
    "SCHEMES",
    "SOCKETS",
    "WEBSOCKETS",
    "Scheme",
    "find_scheme",
    "is_param",
    "scheme_row",
]


@dataclass(frozen=True, slots=True)
class Scheme:
    """What the address parser knows of a scheme."""

    name: str
    family: str
    """`socket`, `websocket`, `broker` or `database`; `other` where another distribution brings the driver."""
    port: int | None
    tls: bool
    """The link is always TLS."""
    example: str
    protocol: str = ""
    """Of a message broker: `mqtt`, `nats`, `amqp` or `kafka`; its parameters are `PARAMS[protocol]`."""

    @property
    def whose(self) -> str:
        """How an error begins: `a tcp address`."""
        return f"{'an' if self.name[0] in 'am' and self.family == 'broker' else 'a'} {self.name} address"


SCHEMES: dict[str, Scheme] = {
    row.name: row
    for row in (
        Scheme("tcp", "socket", None, False, "tcp://host:port"),
        Scheme("udp", "socket", None, False, "udp://host:port"),
        Scheme("tls", "socket", None, True, "tls://host:port"),
        Scheme("unix", "socket", None, False, "unix:///path/to/socket"),
        Scheme("ws", "websocket", 80, False, "ws://host/path"),
        Scheme("wss", "websocket", 443, True, "wss://host/path"),
        Scheme("mqtt", "broker", 1883, False, "mqtt://host?topic=name", "mqtt"),
        Scheme("mqtts", "broker", 8883, True, "mqtts://host?topic=name", "mqtt"),
        Scheme("ws+mqtt", "broker", 80, False, "ws+mqtt://host/mqtt?topic=name", "mqtt"),
        Scheme("wss+mqtt", "broker", 443, True, "wss+mqtt://host/mqtt?topic=name", "mqtt"),
        Scheme("nats", "broker", 4222, False, "nats://host?topic=name", "nats"),
        Scheme("tls+nats", "broker", 4222, True, "tls+nats://host?topic=name", "nats"),
        Scheme("amqp", "broker", 5672, False, "amqp://user:password@host/?queue=name", "amqp"),
        Scheme("amqps", "broker", 5671, True, "amqps://user:password@host/?queue=name", "amqp"),
        Scheme("kafka", "broker", 9092, False, "kafka://host/topic", "kafka"),
        Scheme("sqlite3", "database", None, False, "sqlite3://file.db"),
        Scheme("mysql", "database", 3306, False, "mysql://user:password@tcp(host:3306)/database"),
        Scheme("postgres", "database", 5432, False, "postgres://user:password@host:5432/database"),
        Scheme("clickhouse", "database", 9000, False, "clickhouse://user:password@host:9000/database"),
    )
}
SOCKETS = tuple(row.name for row in SCHEMES.values() if row.family == "socket")
WEBSOCKETS = tuple(row.name for row in SCHEMES.values() if row.family == "websocket")
BROKERS = tuple(row.name for row in SCHEMES.values() if row.family == "broker")
DATABASES = tuple(row.name for row in SCHEMES.values() if row.family == "database")

_ALIASES = {"postgresql": "postgres"}
# what people bring from other programs, and what it is called here
_HINTS = {
    "http": "ws",
    "https": "wss",
    "ssl": "tls",
    "sqlite": "sqlite3",
    "file": "sqlite3",
    "mariadb": "mysql",
    "pg": "postgres",
    "pgsql": "postgres",
    "nats+tls": "tls+nats",
    "rabbitmq": "amqp",
    "amqp+ssl": "amqps",
    "mqtt+ws": "ws+mqtt",
    "mqtt+wss": "wss+mqtt",
    "mqtt+ssl": "mqtts",
}


def find_scheme(name: str) -> Scheme:
    """The scheme of that name in any case: Trunkline's own, else one whose driver others bring.
    Raises `UnknownScheme` with the nearest one."""
    key = name.lower()
    row = SCHEMES.get(_ALIASES.get(key, key))
    if row is not None:
        return row
    if is_installed(key):
        return scheme_row(key)
    near = _HINTS.get(key) or nearest(key, [*SCHEMES, *_ALIASES], 0.6)
    hint = f"did you mean '{near}'" if near else f"use one of {', '.join(SCHEMES)}"
    raise UnknownScheme(f"unknown scheme '{name[:20]}': {hint}")


def scheme_row(name: str) -> Scheme:
    """The row of a scheme that was found before, perhaps in another process: nothing is looked up."""
    return SCHEMES.get(name) or Scheme(name, "other", None, False, f"{name}://host:port/path")


def is_param(scheme: Scheme, name: str) -> bool:
    """Whether `name` is a parameter of this broker."""
    return find_param(scheme.protocol, name) is not None

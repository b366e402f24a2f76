"""The types of the rows: `Scheme` for a scheme, `Param` for a parameter of a message broker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from trunkline.address.golang import Dsn

__all__ = [
    "ALWAYS",
    "COMPRESSION",
    "DATABASE_REFUSALS",
    "DIALED",
    "FAMILIES",
    "LOGIN",
    "MESSAGES",
    "NAMED_TLS",
    "PING_20_S",
    "RECONNECTS",
    "RELINK",
    "SECURE_WEB_PROXY",
    "STREAM",
    "TLS",
    "TRUST",
    "WEB_PROXY",
    "AddressParts",
    "BrokerParts",
    "Param",
    "Scheme",
    "read_topics",
]


FAMILIES = ("socket", "websocket", "broker", "database")
"""The families of Trunkline's own schemes, in the order of the documents."""


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of a message broker: its spelling and its meaning."""

    name: str
    kind: str
    """How the value is read.

    `name` and `names`: text without control characters; `names` are repeated or separated by
        commas.
    `text`: any text. `bool`: a boolean. `count`: a whole number from `low` to `high`. `enum`: a
        word of `choices`.
    `file`: a path. `offset` and `deliver`: the place where reading starts.
    `property`: a property of librdkafka. `argument`: an AMQP argument (`x-...`).
    """
    help: str
    choices: tuple[str, ...] = ()
    low: int = 0
    high: int = 2**31 - 1
    secret: bool = False
    """The value is never shown, not even in the error that refuses the value."""
    also: tuple[str, ...] = ()
    """Other names of the same parameter."""


class BrokerParts(NamedTuple):
    """The parts of a message broker's address that the parser has already read."""

    path: str
    """Percent-decoded, with the first slash."""
    user: str | None
    password: str | None
    params: Mapping[str, str]
    """The parameters under their main names; lists are joined by commas."""
    given: Mapping[str, Sequence[str]]
    """The same parameters as lists."""


class AddressParts(Protocol):
    """The fields of an `Address` that the functions of a row may read."""

    @property
    def target(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def database(self) -> str | None: ...
    @property
    def params(self) -> dict[str, str]: ...
    @property
    def extra(self) -> dict[str, Any]: ...


def no_parameter(name: str, foreign: bool) -> Param | None:
    """The `make_param` of schemes whose parameters all have rows."""
    return None


def no_files(parts: AddressParts, folder: str) -> dict[str, Any]:
    """The `resolve_files` of schemes whose target and path are no files."""
    return {}


def read_topics(parts: BrokerParts) -> dict[str, Any]:
    """The `Address.extra` of a broker that reads topics: `topic` as text or None, `topics` as a
    list."""
    return {"topic": parts.params.get("topic"), "topics": parts.given.get("topic", [])}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """All facts about a scheme that Trunkline needs outside the scheme's parser and driver."""

    name: str
    family: str
    """A member of `FAMILIES`; `other` where another distribution brings the driver."""
    example: str
    """An address of this scheme, for errors."""
    more_examples: tuple[str, ...] = ()
    """Further addresses of this scheme, for the reference."""
    driver: str = ""
    """The driver class, "module:Class"; empty where another distribution brings the driver."""
    port: int | None = None
    """The port of an address without a port.

    None where an address must name its port, or has no port at all.
    """
    net: str = "tcp"
    """The carrier of the link: `tcp`, `udp`, `unix`.

    Empty where the target is a file, without a link.
    """
    tls: bool = False
    """The link always uses TLS."""
    extra: str = ""
    """The extra of pyproject.toml that brings the driver's library; empty where the core has the
    library."""
    packages: tuple[str, ...] = ()
    """The distributions of the extra."""
    aliases: tuple[str, ...] = ()
    """Other names of the scheme in an address."""
    mistaken: tuple[str, ...] = ()
    """Names of the scheme in other programs. The error for such a name suggests this scheme."""
    options: tuple[str, ...] = ()
    """The options that the driver, or the code around the driver, obeys.

    The parser refuses all other options.
    """
    defaults: tuple[tuple[str, Any], ...] = ()
    """Defaults of options that differ on this scheme: name and value."""
    refusals: tuple[tuple[str, str], ...] = ()
    """Reasons for refusing an option: the option's name, and the rest of the error's sentence."""
    proxy_variables: tuple[str, ...] = ()
    """Environment variables that may name the proxy, without `_proxy`.

    The first variable found wins.
    """
    resolve_files: Callable[[AddressParts, str], dict[str, Any]] = no_files
    """Resolves relative files against a folder. Returns the changed fields of the address.

    Files of a message broker need no function: the kinds of its parameters name them.
    """
    shown_place: Callable[[AddressParts], str] | None = None
    """The text after `scheme://` in an address's short form; None: host, port and path."""
    outlives_crash: Callable[[AddressParts], bool] | None = None
    """Whether a crashed worker is replaced. Only for schemes without the option `reconnect`."""
    protocol: str = ""
    """The protocol of a message broker. Schemes of the same protocol share their parameters."""
    params: tuple[Param, ...] = ()
    """The parameters of a message broker."""
    make_param: Callable[[str, bool], Param | None] = no_parameter
    """Makes the row of a parameter that is not among `params`; returns None for an unknown
    parameter.

    Arguments: the parameter's name, and whether another protocol has a parameter of the same name.
    """
    one_login: bool = False
    """All servers of an address share a user and a password."""
    beat: str = ""
    """The parameter or option that limits the silence of a peer, for protocols without answers to
    pings.

    On such a scheme `pingTimeout` without `pingType=text` is refused.
    """
    needs: tuple[str, ...] = ()
    """An address must give at least one of these parameters."""
    subjects: tuple[str, ...] = ()
    """The parameters that tell two connections to the same broker apart.

    The first given parameter is displayed.
    """
    path_holds: str = ""
    """The meaning of the path in a broker's address; empty where a path is an error.

    Either `topic`, or a part for the driver or `read_extra` (`vhost`, `database`, `url`).
    """
    default_path: str = ""
    """The path of a broker's address that has no path."""
    read_extra: Callable[[BrokerParts], dict[str, Any]] = read_topics
    """Checks the parts of a broker's address and returns the `Address.extra`; raises
    `AddressError`."""
    elsewhere: tuple[tuple[str, str], ...] = ()
    """Parameters of other programs: the foreign name, and Trunkline's spelling."""
    read_dsn: Callable[[str, Mapping[str, str]], tuple[str, Dsn]] | None = None
    """Reads the text after `scheme://` in a database's address; the mapping is the environment.

    Returns the DSN and its fields; raises `DsnError` or `AddressError`.
    """
    last_at: bool = False
    """The user info of a database's address ends at the last `@`, even behind a `/`."""
    dialect: str = ""
    """The value of the `Dialect` whose rules apply to the database's statements."""

    @property
    def whose(self) -> str:
        """The first words of an error: `a tcp address`."""
        return f"{'an' if self.name[0] in 'am' and self.family == 'broker' else 'a'} {self.name} address"


# Groups of options that the rows combine.
ALWAYS = ("timeout", "linger")
RELINK = (*ALWAYS, "reconnect", "interval", "maxInterval", "retry")
"""The options of every link to a server."""
STREAM = (
    *RELINK,
    *("payload", "payloadInterval", "limit", "idle", "buffer", "buffer_bytes", "decode"),
    *("pingInterval", "pingMessage", "pingType", "pingTimeout"),
)
COMPRESSION = ("compress", "mode", "max_size")
"""For schemes whose messages have bounds."""
DIALED = ("proxy", "local_ip")
"""For schemes whose TCP connection Trunkline makes, not the library."""
WEB_PROXY = ("ws", "socks", "https", "http", "all")
SECURE_WEB_PROXY = ("wss", "socks", "https", "all")
"""The `proxy_variables` of schemes over WebSocket."""
TRUST = ("cafile", "insecureSkipVerify")
"""Also for schemes without TLS: a proxy may present a certificate."""
TLS = (*TRUST, "certfile", "keyfile")
NAMED_TLS = (*TLS, "servername")
"""For schemes whose certificate check can be given another server name."""
MESSAGES = (*STREAM, *COMPRESSION, *DIALED, "headers")
"""For message brokers whose TCP connection Trunkline makes."""

PING_20_S = ("pingInterval", 20_000)
RECONNECTS = ("reconnect", True)

_CONNECTS = ", whose library connects by itself"
DATABASE_REFUSALS = (
    ("proxy", f"{_CONNECTS} (a proxy that forwards a local port can be had)"),
    ("local_ip", _CONNECTS),
)

LOGIN = (
    Param("username", "text", "user, where it does not stand before the host"),
    Param("password", "text", "password, where it does not stand before the host", secret=True),
)

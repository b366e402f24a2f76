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
    """One parameter: how it is written and what it means."""

    name: str
    kind: str
    """`name` and `names` (text without control characters; several: repeated, or a comma list), `text`,
    `bool`, `count` (a whole number), `enum`, `file`, `offset` and `deliver` (where to start reading),
    `property` (librdkafka's own) and `argument` (AMQP's `x-...`)."""
    help: str
    choices: tuple[str, ...] = ()
    low: int = 0
    high: int = 2**31 - 1
    secret: bool = False
    """The value is never shown, not even in the error that refuses it."""
    also: tuple[str, ...] = ()
    """Other names for the same."""


class BrokerParts(NamedTuple):
    """The parts of a message broker's address that are read already."""

    path: str
    """Percent-decoded, with its first slash."""
    user: str | None
    password: str | None
    params: Mapping[str, str]
    """Under their main names; lists are joined by commas."""
    given: Mapping[str, Sequence[str]]
    """The same parameters as lists."""


class AddressParts(Protocol):
    """The fields of an `Address` that functions of a row may look at."""

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
    """The `make_param` of a scheme all of whose parameters have rows."""
    return None


def no_files(parts: AddressParts, folder: str) -> dict[str, Any]:
    """The `resolve_files` of a scheme whose target and path are no files."""
    return {}


def read_topics(parts: BrokerParts) -> dict[str, Any]:
    """The `Address.extra` of a broker that reads topics: `topic` as text or None, `topics` as a list."""
    return {"topic": parts.params.get("topic"), "topics": parts.given.get("topic", [])}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """Everything that Trunkline knows of a scheme outside its parser and its driver."""

    name: str
    family: str
    """One of `FAMILIES`; `other` where another distribution brings the driver."""
    example: str
    """An address of this scheme, for errors."""
    more_examples: tuple[str, ...] = ()
    """Further addresses of this scheme, for the reference."""
    driver: str = ""
    """The driver class, "module:Class"; empty where another distribution brings the driver."""
    port: int | None = None
    """The port of an address without a port; None where an address has to name its port, or has none."""
    net: str = "tcp"
    """What carries the link: `tcp`, `udp`, `unix`; empty where the target is a file, and there is no link."""
    tls: bool = False
    """The link is always TLS."""
    extra: str = ""
    """The extra of pyproject.toml that brings the driver's library; empty where the core has the library."""
    packages: tuple[str, ...] = ()
    """The distributions of that extra."""
    aliases: tuple[str, ...] = ()
    """Other names of the scheme in an address."""
    mistaken: tuple[str, ...] = ()
    """Names of other programs for the scheme: their error suggests this one."""
    options: tuple[str, ...] = ()
    """The options that the driver, or the code around the driver, obeys. The parser refuses the others."""
    defaults: tuple[tuple[str, Any], ...] = ()
    """Defaults of options that differ on this scheme: name and value."""
    refusals: tuple[tuple[str, str], ...] = ()
    """Why an option is refused, where that needs a reason: name of the option, and how the error goes on."""
    proxy_variables: tuple[str, ...] = ()
    """Variables of the environment that may name the proxy, `_proxy` left off; the first one found wins."""
    resolve_files: Callable[[AddressParts, str], dict[str, Any]] = no_files
    """The fields of an address that change when relative files are made absolute against a folder.
    Those of a message broker are known by the kinds of its parameters."""
    shown_place: Callable[[AddressParts], str] | None = None
    """What stands behind `scheme://` in an address's short form, where that is not host, port and path."""
    outlives_crash: Callable[[AddressParts], bool] | None = None
    """Whether a crashed worker is replaced, where the scheme has no option `reconnect` that says so."""
    protocol: str = ""
    """Of a message broker: schemes of one protocol share parameters."""
    params: tuple[Param, ...] = ()
    """The parameters of a message broker."""
    make_param: Callable[[str, bool], Param | None] = no_parameter
    """The row of a parameter that is not among `params`, from its name and from whether another protocol has
    a parameter of that name; None where there is no such parameter."""
    one_login: bool = False
    """All servers of an address share one user and password."""
    beat: str = ""
    """The parameter or option that says how soon a silent peer is lost, where the protocol's own pings have
    no answers of their own. `pingTimeout` is refused there without `pingType=text`."""
    needs: tuple[str, ...] = ()
    """An address has to give one of these parameters."""
    subjects: tuple[str, ...] = ()
    """The parameters that tell two connections to one broker apart; the first one given is displayed."""
    path_holds: str = ""
    """What the path of a broker's address is: a `topic`, or something that the driver or `read_extra` reads
    (`vhost`, `database`, `url`); empty where a path is an error."""
    default_path: str = ""
    """The path where a broker's address has none."""
    read_extra: Callable[[BrokerParts], dict[str, Any]] = read_topics
    """Checks the parts of a broker's address and returns its `Address.extra`; raises `AddressError`."""
    elsewhere: tuple[tuple[str, str], ...] = ()
    """Parameters that other programs have: name, and where that is written here."""
    read_dsn: Callable[[str, Mapping[str, str]], tuple[str, Dsn]] | None = None
    """Reads what follows `scheme://` in a database's address; the mapping is the environment. Returns the DSN
    and its fields; raises `DsnError` or `AddressError`."""
    last_at: bool = False
    """The user info of a database's address ends at the last `@`, even behind a `/`."""
    dialect: str = ""
    """The value of the `Dialect` by whose rules a database reads statements."""

    @property
    def whose(self) -> str:
        """How an error begins: `a tcp address`."""
        return f"{'an' if self.name[0] in 'am' and self.family == 'broker' else 'a'} {self.name} address"


# Options that are obeyed together, for the rows.
ALWAYS = ("timeout", "linger")
RELINK = (*ALWAYS, "reconnect", "interval", "maxInterval", "retry")
"""Of a link to a server."""
STREAM = (
    *RELINK,
    *("payload", "payloadInterval", "limit", "idle", "buffer", "buffer_bytes", "decode"),
    *("pingInterval", "pingMessage", "pingType", "pingTimeout"),
)
COMPRESSION = ("compress", "mode", "max_size")
"""Of schemes whose messages have bounds."""
DIALED = ("proxy", "local_ip")
"""Where Trunkline makes the TCP connection, not the library."""
WEB_PROXY = ("ws", "socks", "https", "http", "all")
SECURE_WEB_PROXY = ("wss", "socks", "https", "all")
"""`proxy_variables` of schemes over WebSocket."""
TRUST = ("cafile", "insecureSkipVerify")
"""Also of schemes without TLS that a proxy with a certificate may serve."""
TLS = (*TRUST, "certfile", "keyfile")
NAMED_TLS = (*TLS, "servername")
"""Where the name that the server's certificate is checked for can be given."""
MESSAGES = (*STREAM, *COMPRESSION, *DIALED, "headers")
"""Of a message broker whose TCP connection Trunkline makes."""

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

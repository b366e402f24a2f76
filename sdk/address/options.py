"""The options that may follow an address, or be given to `Dial` beside it: one table.

`OPTIONS` is the single source of names, types, defaults, ranges and help; the reference page and
`trunkline --help` are written from it. Reading a given value is `trunkline.address.values`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trunkline.address.schemes import BROKERS, DATABASES, SCHEMES, SOCKETS, WEBSOCKETS

__all__ = ["OPTIONS", "PROXIED_PLAIN", "Option"]

_ALL = tuple(SCHEMES)
_STREAMS = (*SOCKETS, *WEBSOCKETS, *BROKERS)
_SERVERS = tuple(name for name in DATABASES if name != "sqlite3")
_NETWORK = tuple(name for name in (*_STREAMS, *_SERVERS) if name != "unix")
# librdkafka and the databases' libraries make their sockets themselves
_OURS = tuple(name for name in _NETWORK if name != "kafka" and name not in DATABASES)
_TCP = tuple(name for name in _OURS if name != "udp")
_TLS = ("tls", "wss", "mqtts", "wss+mqtt", "nats", "tls+nats", "amqps", "kafka", *_SERVERS)
PROXIED_PLAIN = tuple(name for name in _TCP if name not in _TLS)
"""Schemes without TLS of their own, but perhaps with a proxy that shows a certificate."""
_TRUSTS = (*_TLS, *PROXIED_PLAIN)
# libpq and mysql-connector-python compare a certificate with the host of the address only
_SERVERNAME = tuple(name for name in _TLS if name not in ("mysql", "postgres"))
_MESSAGES = ("udp", *WEBSOCKETS, *BROKERS)
_RELINK = (*_STREAMS, *_SERVERS)
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Option:
    """One option: how it is written, what it means, where it makes sense."""

    name: str
    kind: str
    """`bool`, `ms` and `count` (whole numbers), `rate` (`n/s`), `seconds` (a float), `text`, `enum`,
    `list` (of text), `message` (text as it stands), `messages` (may be repeated), `headers`, `proxy`, `host`
    and `ip`."""
    default: Any
    schemes: tuple[str, ...]
    help: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 2**31 - 1
    by_scheme: tuple[tuple[str, Any], ...] = ()
    """Defaults that one scheme has different."""
    secret: bool = False
    """The value may hold a login, a key or a password: never shown."""

    def default_for(self, scheme: str) -> Any:
        """The value on `scheme` when none is given."""
        value = dict(self.by_scheme).get(scheme, self.default)
        return dict(value) if isinstance(value, dict) else value


_PINGS = tuple((name, 20_000) for name in (*WEBSOCKETS, *BROKERS) if name != "kafka")
_RECONNECTING = tuple((name, True) for name in (*BROKERS, *_SERVERS))

OPTIONS: dict[str, Option] = {
    row.name: row
    for row in (
        Option(
            "reconnect",
            "bool",
            False,
            _RELINK,
            "re-establish a lost link by itself; of a database, when a statement wants it",
            by_scheme=_RECONNECTING,
        ),
        Option("interval", "ms", 1000, _RELINK, "first wait before a retry, ms", low=1, high=_DAY_MS),
        Option(
            "maxInterval",
            "ms",
            30_000,
            _RELINK,
            "longest wait before a retry, ms; never below `interval`",
            low=1,
            high=_DAY_MS,
        ),
        Option(
            "retry",
            "count",
            0,
            _RELINK,
            "give up after so many failures in a row, refusals too; 0 is never",
        ),
        Option("payload", "messages", (), _STREAMS, "sent after every connect, in order", secret=True),
        Option("payloadInterval", "ms", 20, _STREAMS, "time between two payloads, ms", high=_DAY_MS),
        Option(
            "limit",
            "rate",
            None,
            _STREAMS,
            "writes by all holders and payloads: `n/s`, also `n/m`, `n/h`; a write waits for its turn",
        ),
        Option(
            "compress",
            "enum",
            None,
            _MESSAGES,
            "compression of the messages themselves",
            choices=("gzip", "gzip_raw", "deflate", "zlib"),
        ),
        Option(
            "mode",
            "enum",
            "recv",
            _MESSAGES,
            "which way `compress` works",
            choices=("recv", "send", "dual"),
        ),
        Option("enableCompression", "bool", False, WEBSOCKETS, "permessage-deflate"),
        Option(
            "proxy",
            "proxy",
            None,
            _TCP,
            "socks5://name:password@host:port, http://, https://, socks4:// or socks4a://; `none`: not even "
            "one of the environment",
            secret=True,
        ),
        Option(
            "headers",
            "headers",
            {},
            (*WEBSOCKETS, *BROKERS),
            "headers of the handshake (ws, wss, mqtt over them), else of every message written",
            secret=True,
        ),
        Option("subprotocols", "list", (), WEBSOCKETS, "subprotocols to offer, a comma list"),
        Option("origin", "text", None, WEBSOCKETS, "Origin header of the handshake"),
        Option(
            "pingInterval",
            "ms",
            0,
            _STREAMS,
            "keepalive every so many ms; 0 is off",
            high=_DAY_MS,
            by_scheme=_PINGS,
        ),
        Option(
            "pingMessage",
            "message",
            None,
            _STREAMS,
            "text of the keepalive, where that is a message (`pingType=text`)",
            secret=True,
        ),
        Option(
            "pingType",
            "enum",
            "control",
            _STREAMS,
            "keepalive as the protocol's own ping or as a message",
            choices=("control", "text"),
        ),
        Option(
            "pingTimeout",
            "ms",
            None,
            _STREAMS,
            "nothing received for so many ms after a keepalive is a lost link; 0 is never (default: two "
            "`pingInterval`, 1 s at least, and 20 s at most where the ping is the protocol's own)",
            high=_DAY_MS,
        ),
        Option("idle", "ms", 0, _STREAMS, "no data for so many ms is a lost link; 0 is off", high=_DAY_MS),
        Option(
            "cafile",
            "text",
            None,
            _TRUSTS,
            "file of the certificates to trust; without TLS of its own, those of an https:// proxy",
        ),
        Option("certfile", "text", None, _TLS, "file of our own certificate"),
        Option("keyfile", "text", None, _TLS, "file of our own certificate's key"),
        Option("servername", "host", None, _SERVERNAME, "name the server's certificate must have"),
        Option(
            "insecureSkipVerify", "bool", False, _TRUSTS, "take any certificate, of an https:// proxy too"
        ),
        Option("local_ip", "ip", None, _OURS, "outgoing address"),
        Option(
            "interface",
            "text",
            None,
            ("udp",),
            "where a multicast group is joined: an interface's name, or its IPv4 address",
        ),
        Option("buffer", "count", 2000, _STREAMS, "messages kept for the reader", low=1, high=1_000_000),
        Option(
            "buffer_bytes",
            "count",
            64 * 1024 * 1024,
            _STREAMS,
            "bytes kept for the reader (of text: characters), or one message that is larger",
            low=1024,
            high=1 << 40,
        ),
        Option(
            "decode",
            "enum",
            "auto",
            _STREAMS,
            "messages as text where valid, always text, or always bytes",
            choices=("auto", "text", "bytes"),
        ),
        Option("timeout", "seconds", 30.0, _ALL, "time to open the connection, s", low=0.001, high=86_400),
        Option("max_size", "count", 16 * 1024 * 1024, _MESSAGES, "largest message taken, bytes", low=1),
        Option("linger", "seconds", 300.0, _ALL, "life without a holder, s", low=0, high=31_536_000),
    )
}

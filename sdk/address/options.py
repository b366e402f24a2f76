"""The table of the options that follow an address, or are given to `Dial` beside it.

`OPTIONS` is the only source of names, types, usual defaults, ranges and help. The row of a scheme
says which options the scheme obeys. The reference page and `trunkline --help` are generated from
both tables. `trunkline.address.values` reads a given value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trunkline.address.schemes import SCHEMES

__all__ = ["OPTIONS", "PROXIED_PLAIN", "Option"]

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Option:
    """An option: its spelling, its meaning and its range."""

    name: str
    kind: str
    """How the value is read.

    `bool`: a boolean. `ms`, `count`: whole numbers. `rate`: `n/s`. `seconds`: a float. `text`,
        `enum`: text.
    `list`: several words. `message`: text as written. `messages`: the same, repeatable. `headers`,
        `proxy`, `host`,
    `ip`: a value of this form.
    """
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 2**31 - 1
    secret: bool = False
    """The value may hold a login, a key or a password, and is never shown."""

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes that obey the option, from their rows."""
        return tuple(row.name for row in SCHEMES.values() if self.name in row.options)

    @property
    def by_scheme(self) -> tuple[tuple[str, Any], ...]:
        """The schemes with a default of their own, with this default."""
        return tuple(
            (row.name, value)
            for row in SCHEMES.values()
            for name, value in row.defaults
            if name == self.name
        )

    def default_for(self, scheme: str) -> Any:
        """The default value on `scheme`."""
        row = SCHEMES.get(scheme)
        value = dict(row.defaults).get(self.name, self.default) if row else self.default
        return dict(value) if isinstance(value, dict) else value


OPTIONS: dict[str, Option] = {
    row.name: row
    for row in (
        Option(
            "reconnect",
            "bool",
            False,
            "re-establish a lost link by itself; of a database, when a statement wants it",
        ),
        Option("interval", "ms", 1000, "first wait before a retry, ms", low=1, high=_DAY_MS),
        Option(
            "maxInterval",
            "ms",
            30_000,
            "longest wait before a retry, ms; never below `interval`",
            low=1,
            high=_DAY_MS,
        ),
        Option(
            "retry",
            "count",
            0,
            "give up after so many failures in a row, refusals too; 0 is never",
        ),
        Option("payload", "messages", (), "sent after every connect, in order", secret=True),
        Option("payloadInterval", "ms", 20, "time between two payloads, ms", high=_DAY_MS),
        Option(
            "limit",
            "rate",
            None,
            "writes by all holders and payloads: `n/s`, also `n/m`, `n/h`; a write waits for its turn",
        ),
        Option(
            "compress",
            "enum",
            None,
            "compression of the messages themselves",
            choices=("gzip", "gzip_raw", "deflate", "zlib"),
        ),
        Option(
            "mode",
            "enum",
            "recv",
            "which way `compress` works",
            choices=("recv", "send", "dual"),
        ),
        Option("enableCompression", "bool", False, "permessage-deflate"),
        Option(
            "proxy",
            "proxy",
            None,
            "socks5://name:password@host:port, http://, https://, socks4:// or socks4a://; `none`: not even "
            "one of the environment",
            secret=True,
        ),
        Option(
            "headers",
            "headers",
            {},
            "headers of the handshake (ws, wss, mqtt over them), else of every message written",
            secret=True,
        ),
        Option("subprotocols", "list", (), "subprotocols to offer, a comma list"),
        Option("origin", "text", None, "Origin header of the handshake"),
        Option(
            "pingInterval",
            "ms",
            0,
            "keepalive every so many ms; 0 is off",
            high=_DAY_MS,
        ),
        Option(
            "pingMessage",
            "message",
            None,
            "text of the keepalive, where that is a message (`pingType=text`)",
            secret=True,
        ),
        Option(
            "pingType",
            "enum",
            "control",
            "keepalive as the protocol's own ping or as a message",
            choices=("control", "text"),
        ),
        Option(
            "pingTimeout",
            "ms",
            None,
            "nothing received for so many ms after a keepalive is a lost link; 0 is never (default: two "
            "`pingInterval`, 1 s at least, and 20 s at most where the ping is the protocol's own)",
            high=_DAY_MS,
        ),
        Option("idle", "ms", 0, "no data for so many ms is a lost link; 0 is off", high=_DAY_MS),
        Option(
            "cafile",
            "text",
            None,
            "file of the certificates to trust; without TLS of its own, those of an https:// proxy",
        ),
        Option("certfile", "text", None, "file of our own certificate"),
        Option("keyfile", "text", None, "file of our own certificate's key"),
        Option("servername", "host", None, "name the server's certificate must have"),
        Option(
            "insecureSkipVerify", "bool", False, "take any certificate, of an https:// proxy too"
        ),
        Option("local_ip", "ip", None, "outgoing address"),
        Option(
            "interface",
            "text",
            None,
            "where a multicast group is joined: an interface's name, or its IPv4 address",
        ),
        Option("buffer", "count", 2000, "messages kept for the reader", low=1, high=1_000_000),
        Option(
            "buffer_bytes",
            "count",
            64 * 1024 * 1024,
            "bytes kept for the reader (of text: characters), or one message that is larger",
            low=1024,
            high=1 << 40,
        ),
        Option(
            "decode",
            "enum",
            "auto",
            "messages as text where valid, always text, or always bytes",
            choices=("auto", "text", "bytes"),
        ),
        Option(
            "timeout", "seconds", 30.0, "time to open the connection, s", low=0.001, high=86_400
        ),
        Option("max_size", "count", 16 * 1024 * 1024, "largest message taken, bytes", low=1),
        Option("linger", "seconds", 300.0, "life without a holder, s", low=0, high=31_536_000),
    )
}

PROXIED_PLAIN = tuple(
    row.name for row in SCHEMES.values() if "proxy" in row.options and "certfile" not in row.options
)
"""Schemes without TLS whose proxy may present a certificate."""

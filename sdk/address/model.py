"""The parsed address: a frozen value that travels between processes and never shows a secret."""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from trunkline.address.broker_files import resolve_params
from trunkline.address.host import join_host_port
from trunkline.address.options import OPTIONS
from trunkline.address.params import find_param
from trunkline.address.proxy import Proxy
from trunkline.address.redaction import HIDDEN, hide_path, is_secret_name, redact
from trunkline.address.schemes import scheme_row

__all__ = ["Address"]

_SUBJECT = 60
"""The most letters of a topic in the short form."""
_FILES = ("cafile", "certfile", "keyfile")


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """A parsed address. Absent parts are None, `{}` or `()`.

    `str` and `repr` hide passwords, tokens, messages, headers and values that look like a key. The
    fields hold everything.
    """

    scheme: str
    """In lower case and by its main name: `postgresql` is `postgres`."""
    target: str
    """The address to dial.

    ws and wss: the URL without user info. Databases: the Go driver's DSN. Other schemes: the
    address without its options.
    """
    net: str | None = None
    """`tcp`, `udp` or `unix`; for mysql the DSN's own word; None for sqlite3 and for foreign
    schemes."""
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = None
    database: str | None = None
    path: str = ""
    """The path of a unix socket, of a sqlite3 file, or of the URL."""
    params: dict[str, str] = field(default_factory=dict)
    """The decoded parameters of the address itself (query, DSN).

    For a message broker, also from the options.
    """
    options: dict[str, Any] = field(default_factory=dict)
    """The given options with typed values. `option` adds the defaults."""
    hosts: tuple[tuple[str, int | None], ...] = ()
    """Every server in order: always for a message broker, else only if there are several."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Fields of this scheme alone; see the scheme's parser and `docs/reference`."""

    def option(self, name: str) -> Any:
        """The option's value as given, or its default on this scheme; KeyError for an unknown
        name."""
        if name in self.options:
            return self.options[name]
        return OPTIONS[name].default_for(self.scheme)

    @property
    def tls(self) -> bool:
        """Whether the scheme always uses TLS (wss, tls, mqtts, tls+nats, amqps)."""
        return scheme_row(self.scheme).tls

    @property
    def display(self) -> str:
        """The peer in short, without secrets, for `ps` and logs: scheme, host, port and path.

        For a message broker, also the topic that is read or written.
        """
        return self._peer() + self._subject()

    def _subject(self) -> str:
        """The parameter that tells two connections to the same message broker apart; "" for
        none."""
        row = scheme_row(self.scheme)
        if row.path_holds == "topic" and self.path not in ("", "/"):
            return ""
        names = row.subjects
        found = next((name for name in names if self.params.get(name)), None)
        if found is None:
            return ""
        value = self.params[found]
        return _one_line(
            f"?{found}={value if len(value) <= _SUBJECT else value[:_SUBJECT] + '...'}"
        )

    def _peer(self) -> str:
        """Scheme and place, without parameters, in a single line."""
        row = scheme_row(self.scheme)
        if row.shown_place is not None:
            return _one_line(f"{self.scheme}://{row.shown_place(self)}")
        place = str(self.extra.get("addr", ""))
        if self.host:
            place = self._servers()
        if self.net == "unix":
            return _one_line(f"{self.scheme}://{self.path}")
        return _one_line(f"{self.scheme}://{place}{hide_path(self.path) or self._database_path()}")

    def _servers(self) -> str:
        """Host and port. For a message broker with several servers: the first two, and the number
        of further servers."""
        if not scheme_row(self.scheme).protocol:
            return join_host_port(self.host or "", self.port)
        more = len(self.hosts) - 2
        shown = [join_host_port(*pair) for pair in self.hosts[:2]]
        return ",".join([*shown, f"+{more}"] if more > 0 else shown)

    def _database_path(self) -> str:
        return f"/{self.database}" if self.database else ""

    def __str__(self) -> str:
        place = self._peer()
        place = place.replace("://", f"://{self._account()}", 1)
        query = "&".join(self._shown_param(name, value) for name, value in self.params.items())
        options = "&".join(_shown(name, value) for name, value in self.options.items())
        return _one_line(
            place + (f"?{query}" if query else "") + (f"|{options}" if options else "")
        )

    def _shown_param(self, name: str, value: str) -> str:
        """A parameter for `str`; the value of a secret parameter is hidden."""
        param = find_param(scheme_row(self.scheme).protocol, name)
        return f"{name}={HIDDEN}" if param is not None and param.secret else _shown(name, value)

    def _account(self) -> str:
        """The user with the `@`.

        Except for databases, a user alone is often a token, and is hidden.
        """
        if scheme_row(self.scheme).family != "database":
            return "" if self.user is None and self.password is None else f"{HIDDEN}@"
        if self.password is not None:
            return f"{self.user or ''}:{HIDDEN}@"
        return f"{self.user}@" if self.user else ""

    def __repr__(self) -> str:
        return f"<Address {self}>"

    def resolved(self, cwd: str) -> Address:
        """The address with relative files (sqlite3, unix socket, certificates, credentials) made
        absolute.

        `cwd`: the caller's folder. A process in another folder then finds the same files.
        """
        options = {
            name: os.path.join(cwd, value) if name in _FILES else value
            for name, value in self.options.items()
        }
        row = scheme_row(self.scheme)
        if row.protocol:
            params, extra = resolve_params(row.protocol, self.params, self.extra, cwd)
            return replace(self, options=options, params=params, extra=extra)
        return replace(self, options=options, **row.resolve_files(self, cwd))

    def to_wire(self) -> dict[str, Any]:
        """Plain data for msgpack, including secrets: for other processes, never for people."""
        wire = {name: getattr(self, name) for name in self.__slots__}
        wire["hosts"] = [list(pair) for pair in self.hosts]
        wire["options"] = {name: _plain(value) for name, value in self.options.items()}
        return wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Address:
        """The address that `to_wire` described."""
        options = {name: _typed(name, value) for name, value in wire["options"].items()}
        hosts = tuple((host, port) for host, port in wire["hosts"])
        return cls(**{**wire, "options": options, "hosts": hosts})


def _one_line(text: str) -> str:
    """Control characters as escapes: a decoded parameter must not begin a log line of its own."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda match: quote(match[0]), text)


def _plain(value: Any) -> Any:
    """An option's value as plain data for msgpack."""
    if isinstance(value, Proxy):
        return value.to_wire()
    return list(value) if isinstance(value, tuple) else value


def _typed(name: str, value: Any) -> Any:
    """An option's value from plain data."""
    kind = OPTIONS[name].kind
    if kind == "proxy":
        return None if value is None else Proxy.from_wire(value)
    return tuple(value) if kind in ("messages", "list") else value


def _shown(name: str, value: Any) -> str:
    """An option for `str`; secrets are hidden."""
    if isinstance(value, Proxy) or (name == "proxy" and value is None):
        return f"{name}={value or 'none'}"
    option = OPTIONS.get(name)
    if option.secret if option else is_secret_name(name):
        return f"{name}={HIDDEN}"
    if isinstance(value, bool):
        return f"{name}={str(value).lower()}"
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return f"{name}={redact(text) if '@' in text else hide_path(text)}"

"""Rules that keep a login from giving the password, or a hash of it, to any server that asks.

mysql-connector-python lets the server choose the method of the login.
If the server tells `caching_sha2_password` to "authenticate fully", the library sends the
password in clear over plain TCP. (Go's driver encrypts the password with the server's key; the
library cannot.) Each plugin module of the library names the class to use.
This module replaces that class by a subclass that first checks whether the link is safe enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from mysql.connector.errors import InterfaceError

__all__ = ["LoginRefused", "PasswordInClear", "Policy", "TlsMissing", "login", "refused"]

_FULLY = b"\x04"
"""The server's request to authenticate fully."""
_CLEAR = "mysql_clear_password"
_NATIVE = "mysql_native_password"
_PLUGINS = ("caching_sha2_password", "sha256_password", _CLEAR, _NATIVE)


@dataclass(frozen=True, slots=True)
class Policy:
    """The permissions of one address."""

    local: bool = False
    """No other machine can listen on the way: a unix socket."""
    cleartext: bool = False
    """The server may have the password itself, by `mysql_clear_password`."""
    native: bool = True
    """The login may use `mysql_native_password`."""
    tls: bool = False
    """Nothing is sent without TLS."""


class LoginRefused(InterfaceError):
    """A login that the policy forbids."""


class TlsMissing(LoginRefused):
    """The address requires TLS, and the server offers none."""


class PasswordInClear(LoginRefused):
    """The server asks for the password itself on a link that others can read."""


def refused(error: BaseException) -> LoginRefused | None:
    """The LoginRefused inside of an error of the library; None without one.

    The library wraps errors of the first answer.
    """
    found = error if isinstance(error, LoginRefused) else error.__cause__
    return found if isinstance(found, LoginRefused) else None


_policy: ContextVar[Policy] = ContextVar("trunkline_mysql_policy")


@contextmanager
def login(policy: Policy) -> Iterator[None]:
    """Apply the policy to logins of this thread.

    Outside of the `with` block the library works unchanged.
    """
    _install()
    token = _policy.set(policy)
    try:
        yield
    finally:
        _policy.reset(token)


@cache
def _install() -> None:
    """Replace the classes of the library's plugins, once in a process."""
    for name in _PLUGINS:
        module = import_module(f"mysql.connector.plugins.{name}")
        guarded = _guarded(getattr(module, module.AUTHENTICATION_PLUGIN_CLASS))
        setattr(module, guarded.__name__, guarded)
        module.AUTHENTICATION_PLUGIN_CLASS = guarded.__name__  # type: ignore[attr-defined]


def _guarded(plugin: Any) -> Any:
    """A subclass of the plugin that checks the policy before each answer."""
    respond: Callable[..., bytes | None] = plugin.auth_response
    needs_tls = plugin.requires_ssl

    def auth_response(self: Any, auth_data: bytes, **settings: Any) -> bytes | None:
        in_clear = needs_tls.fget(self) or auth_data == _FULLY
        _check(self.name, self.ssl_enabled, in_clear)
        return respond(self, auth_data, **settings)

    def requires_ssl(self: Any) -> bool:
        policy = _policy.get(None)
        return bool(needs_tls.fget(self)) and not (policy and policy.local)

    body = {"auth_response": auth_response, "requires_ssl": property(requires_ssl)}
    return type(f"Guarded{plugin.__name__}", (plugin,), body)


def _check(name: str, encrypted: bool, in_clear: bool) -> None:
    """Raise LoginRefused if the policy forbids the method."""
    policy = _policy.get(None)
    if policy is None:
        return
    if policy.tls and not encrypted:
        raise TlsMissing("the server offers no TLS, and the address insists on it")
    if name == _CLEAR and not policy.cleartext:
        raise LoginRefused(
            f"the server asks for the password itself ({_CLEAR}); if it may have it, allow that with"
            " allowCleartextPasswords=true"
        )
    if name == _NATIVE and not policy.native:
        raise LoginRefused(
            f"the server asks for {_NATIVE}, which allowNativePasswords=false refuses"
        )
    if in_clear and not (encrypted or policy.local):
        raise PasswordInClear(
            f"the server asks for the password in clear ({name}) on a link without TLS; connect with"
            " tls=preferred or tls=true, or over a unix socket"
        )

"""`exchange`, without an exchange gateway: signing, with secrets that never stand in the script."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any, NoReturn

from trunkline.strategy.encode import encode

__all__ = ["Exchange", "Secrets"]

_NAMES = {"accesskey", "secretkey", "passphrase"}
_PLACE = re.compile(r"\{\{(\w+)\}\}")


class Secrets:
    """Secrets by name, from the environment or a file; shown nowhere.

    `TRUNKLINE_ACCESSKEY`, `TRUNKLINE_SECRETKEY`, `TRUNKLINE_PASSPHRASE` and
    `TRUNKLINE_SECRET_<NAME>` are taken *out of* the environment: no worker, broker or program that
    the script starts inherits them. The file (`TRUNKLINE_SECRETS`: JSON, or lines `NAME=VALUE`)
    must be readable by its owner alone.
    """

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        file = os.environ.get("TRUNKLINE_SECRETS")
        if file:
            self._values.update(_from_file(Path(file)))
        for name in list(os.environ):
            if short := _secret_name(name):
                self._values[short] = os.environ.pop(name)

    def fill(self, value: str | bytes | None) -> str | bytes | None:
        """Replace every `{{name}}` in `value` by its secret.

        ValueError for a missing key, secret key or passphrase. Any other unknown name stays:
        `{{name}}` may be the strategy's own text.
        """
        return _PLACE.sub(self._fill_place, value) if isinstance(value, str) else value

    def fill_key(self, value: str | bytes | None) -> str | bytes | None:
        """Replace every `{{name}}` in a key. ValueError for any unknown name.

        A key signed with the name itself would only be refused by the far server, without a useful
        reason.
        """
        return _PLACE.sub(self._find_known, value) if isinstance(value, str) else value

    def _fill_place(self, found: re.Match[str]) -> str:
        name = found[1].lower()
        return self._find_known(found) if name in _NAMES else self._values.get(name, found[0])

    def _find_known(self, found: re.Match[str]) -> str:
        """The value of a name; ValueError says which variable to set."""
        name = found[1].lower()
        if name not in self._values:
            variable = (
                f"TRUNKLINE_{name.upper()}"
                if name in _NAMES
                else f"TRUNKLINE_SECRET_{name.upper()}"
            )
            raise ValueError(f"exchange: {found[0]} is not set; put it into {variable}")
        return self._values[name]

    def __repr__(self) -> str:
        return f"Secrets({', '.join(sorted(self._values))})"


class Exchange:
    """The global `exchange`. Trunkline opens connections and does not place orders."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def Encode(
        self,
        algo: str,
        in_format: str,
        out_format: str,
        data: str | bytes,
        key_format: str | None = None,
        key: str | bytes | None = None,
    ) -> str | bytes:
        """`Encode`, with `{{accesskey}}` and `{{secretkey}}` replaced in the data and the key."""
        filled: Any = self._secrets.fill(data)
        return encode(algo, in_format, out_format, filled, key_format, self._secrets.fill_key(key))

    def HMAC(self, algo: str, out_format: str, data: str | bytes, key: str | bytes) -> str | bytes:
        """Return the HMAC of `data`. FMZ calls this function deprecated, in favour of `Encode`."""
        return self.Encode(algo, "raw", out_format, data, "raw", key)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"exchange.{name}: Trunkline is no exchange gateway, its exchange has HMAC and Encode only; "
            f"use Dial or HttpQuery with the exchange's own interface"
        )


def _secret_name(name: str) -> str | None:
    """The secret's name in an environment variable's name; None for other variables."""
    if name in ("TRUNKLINE_ACCESSKEY", "TRUNKLINE_SECRETKEY", "TRUNKLINE_PASSPHRASE"):
        return name.removeprefix("TRUNKLINE_").lower()
    return (
        name.removeprefix("TRUNKLINE_SECRET_").lower()
        if name.startswith("TRUNKLINE_SECRET_")
        else None
    )


def _from_file(path: Path) -> dict[str, str]:
    """The secrets of a file; ValueError when the file is readable by other users or not
    well-formed."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise ValueError(f"{path} can be read by others; chmod 600 it (TRUNKLINE_SECRETS)")
            text = file.read()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror} (TRUNKLINE_SECRETS)") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8 (TRUNKLINE_SECRETS)") from None
    return {_plain_name(name): value for name, value in _parse_secrets(text, path).items()}


def _plain_name(name: str) -> str:
    """A name of the file in the form of `{{name}}`.

    The file may use the environment's TRUNKLINE_SECRETKEY too.
    """
    return _secret_name(name.upper()) or name.lower()


def _without_quotes(value: str) -> str:
    """The value without the quotes that a shell would remove."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _parse_secrets(text: str, path: Path) -> dict[str, str]:
    """Names and values from lines `NAME=VALUE` or from JSON."""
    if not text.lstrip().startswith("{"):
        lines = (line.strip() for line in text.splitlines())
        pairs = (
            line.removeprefix("export ").partition("=")
            for line in lines
            if not line.startswith("#")
        )
        return {name.strip(): _without_quotes(value.strip()) for name, mark, value in pairs if mark}
    try:
        return {str(name): str(value) for name, value in json.loads(text).items()}
    except ValueError:
        raise ValueError(f"{path} is not well-formed JSON (TRUNKLINE_SECRETS)") from None

"""`exchange` as far as it goes without a gateway: signing, with secrets that never stand in the script."""

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

    `TRUNKLINE_ACCESSKEY`, `TRUNKLINE_SECRETKEY`, `TRUNKLINE_PASSPHRASE` and `TRUNKLINE_SECRET_<NAME>` are
    taken *out of* the environment, so that no worker, broker or program the script starts inherits them. A
    file (`TRUNKLINE_SECRETS`: JSON, or lines `NAME=VALUE`) must belong to its reader alone.
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
        """`value` with each `{{name}}` replaced. One of the three keys that is not set raises; another name
        may be a text of the strategy's own, and stays."""
        return _PLACE.sub(self._fill_place, value) if isinstance(value, str) else value

    def fill_key(self, value: str | bytes | None) -> str | bytes | None:
        """The same for a key, which is no text: any name that is not set raises, for what is signed with
        the name itself is refused far away, where nobody can say why."""
        return _PLACE.sub(self._find_known, value) if isinstance(value, str) else value

    def _fill_place(self, found: re.Match[str]) -> str:
        name = found[1].lower()
        return self._find_known(found) if name in _NAMES else self._values.get(name, found[0])

    def _find_known(self, found: re.Match[str]) -> str:
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
    """The global `exchange`. Trunkline opens connections; it does not place orders."""

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
        """`Encode`, with `{{accesskey}}` and `{{secretkey}}` in the data and the key filled in."""
        filled: Any = self._secrets.fill(data)
        return encode(algo, in_format, out_format, filled, key_format, self._secrets.fill_key(key))

    def HMAC(self, algo: str, out_format: str, data: str | bytes, key: str | bytes) -> str | bytes:
        """The HMAC of `data`; the original calls it deprecated, in favour of `Encode`."""
        return self.Encode(algo, "raw", out_format, data, "raw", key)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"exchange.{name}: Trunkline is no exchange gateway, its exchange has HMAC and Encode only; "
            f"use Dial or HttpQuery with the exchange's own interface"
        )


def _secret_name(name: str) -> str | None:
    """The secret's name when an environment variable holds one."""
    if name in ("TRUNKLINE_ACCESSKEY", "TRUNKLINE_SECRETKEY", "TRUNKLINE_PASSPHRASE"):
        return name.removeprefix("TRUNKLINE_").lower()
    return (
        name.removeprefix("TRUNKLINE_SECRET_").lower()
        if name.startswith("TRUNKLINE_SECRET_")
        else None
    )


def _from_file(path: Path) -> dict[str, str]:
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
    """A name of the file as `{{name}}` has it; TRUNKLINE_SECRETKEY may stand there, as in the environment."""
    return _secret_name(name.upper()) or name.lower()


def _without_quotes(value: str) -> str:
    """Without the quotes that a shell would take off, too."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _parse_secrets(text: str, path: Path) -> dict[str, str]:
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

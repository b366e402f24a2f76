"""Reading an option's value, from the address (always text) or from Python (typed)."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from trunkline.address.golang import shown
from trunkline.address.header_text import header_text
from trunkline.address.host import clean_host
from trunkline.address.options import Option
from trunkline.address.proxy import Proxy
from trunkline.errors import AddressError

__all__ = ["read_value"]

_TRUE = ("true", "1", "yes")
_FALSE = ("false", "0", "no")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def read_value(option: Option, value: object) -> Any:
    """The typed value; AddressError names the option, the given value (unless secret) and the
    accepted values."""
    return _READERS[option.kind](option, value)


def _refuse(option: Option, value: object, accepted: str) -> AddressError:
    """The error for a bad value. The value of a secret option is not quoted."""
    given = "a value" if option.secret else f"'{shown(str(value))}'"
    return AddressError(f"option '{option.name}' does not take {given}: {accepted}")


def _bool(option: Option, value: object) -> bool:
    """true, 1 and yes; false, 0 and no; in any case."""
    text = str(value).lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise _refuse(option, value, "use true or false")


def _whole(option: Option, value: object) -> int:
    """A whole number within the option's range. A float without a fraction counts as whole."""
    unit = "milliseconds as a whole number" if option.kind == "ms" else "a whole number"
    accepted = f"use {unit} from {option.low:g} to {int(option.high)}"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch("[0-9]{1,12}", text):
        raise _refuse(option, value, accepted)
    if not option.low <= int(text) <= option.high:
        raise _refuse(option, value, accepted)
    return int(text)


def _rate(option: Option, value: object) -> str:
    """`5/s`, or a different spelling of the same rate: `5`, `5/sec`."""
    found = re.fullmatch(r"([0-9]{1,9}) ?(?:/ ?(s|m|h|sec|min|hour))?", str(value).strip().lower())
    if found is None or isinstance(value, bool) or not int(found[1]):
        raise _refuse(option, value, "use writes in a time, as 5/s, 300/m or 1000/h")
    return f"{int(found[1])}/{(found[2] or 's')[0]}"


def _seconds(option: Option, value: object) -> float:
    """A number of seconds within the option's range, as a float."""
    accepted = f"use seconds from {option.low:g} to {option.high:.0f}"
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch(
        r"[0-9]{1,12}(\.[0-9]*)?|\.[0-9]+|[0-9.]+e-?[0-9]{1,3}", text
    ):
        raise _refuse(option, value, accepted)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not option.low <= number <= option.high:
        raise _refuse(option, value, accepted)
    return number


def _text(option: Option, value: object) -> str:
    """Text of a single line, not empty."""
    if not isinstance(value, str) or not value or re.search(r"[\x00-\x1f\x7f]", value):
        raise _refuse(option, value, "use text of one line")
    return value


def _enum(option: Option, value: object) -> str:
    """A word of the option's choices, in any case."""
    text = str(value).lower()
    # FMZ's newer runtime spells deflate without its first syllable.
    text = "deflate" if option.name == "compress" and text == "flate" else text
    if text not in option.choices:
        raise _refuse(option, value, f"use one of {', '.join(option.choices)}")
    return text


def _list(option: Option, value: object) -> tuple[str, ...]:
    """Names from a list, or from text with commas."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        raise _refuse(option, value, "use a list of names, or names separated by commas")
    names = tuple(str(part).strip() for part in parts)
    if not all(_TOKEN.fullmatch(name) for name in names):
        raise _refuse(option, value, "use a list of names, or names separated by commas")
    return names


def _message(option: Option, value: object) -> str:
    """A message as text: text or UTF-8 bytes unchanged, a dict or list as JSON."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            value = None
    if isinstance(value, (dict, list)):
        try:
            value = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError):
            value = None
    if not isinstance(value, str) or not _is_utf8(value):
        raise _refuse(option, value, "use text, UTF-8 bytes, or a dict that JSON can hold")
    return value


def _messages(option: Option, value: object) -> tuple[str, ...]:
    """One or several messages, always as a tuple."""
    if isinstance(value, (list, tuple)):
        return tuple(_message(option, item) for item in value)
    return (_message(option, value),)


def _is_utf8(text: str) -> bool:
    """Whether UTF-8 can encode the text: surrogates cannot be encoded."""
    return not re.search("[\ud800-\udfff]", text)


def _headers(option: Option, value: object) -> dict[str, str | list[str]]:
    """The headers by name. A name that should appear several times has a list."""
    accepted = "use a dict, JSON text of one, or lines of 'Name: value'"
    if isinstance(value, str):
        value = _headers_text(value)
    if not isinstance(value, Mapping):
        raise _refuse(option, value, accepted)
    found: dict[str, str | list[str]] = {}
    for name, content in value.items():
        several = isinstance(content, (list, tuple))
        try:
            texts = [header_text(str(name), each) for each in (content if several else [content])]
        except ValueError as error:
            raise AddressError(f"option '{option.name}': {error}") from None
        if (
            not isinstance(name, str)
            or not _TOKEN.fullmatch(name)
            or any(re.search(r"[\x00-\x08\x0a-\x1f]", text) for text in texts)
        ):
            raise _refuse(option, value, accepted)
        found[name] = texts if several else texts[0]
    return found


def _headers_text(text: str) -> dict[str, Any] | None:
    """Headers from JSON text or from lines `Name: value`; None for other text."""
    if text.lstrip().startswith("{"):
        try:
            loaded = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return loaded if isinstance(loaded, dict) else None
    pairs = [line.partition(":") for line in text.splitlines() if line.strip()]
    if not all(colon for _, colon, _ in pairs):
        return None
    return {name.strip(): content.strip() for name, _, content in pairs}


def _proxy(option: Option, value: object) -> Proxy | None:
    """The proxy, or None for `none`: no proxy, not even a proxy of the environment."""
    if isinstance(value, Proxy):
        return value
    if isinstance(value, str) and value.lower() == "none":
        return None
    return Proxy.parse(value if isinstance(value, str) else "")


def _ip(option: Option, value: object) -> str:
    """An IP address without brackets."""
    text = str(value).removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(text)
        return text
    except ValueError:
        pass
    raise _refuse(option, value, "use an IP address of this machine")


def _host(option: Option, value: object) -> str:
    """A host's name in ASCII, or its IP address without brackets."""
    with contextlib.suppress(AddressError):
        text = value if isinstance(value, str) else ""
        return clean_host(f"[{text}]" if ":" in text and "[" not in text else text, option.name)
    raise _refuse(option, value, "use a host's name or IP address")


_READERS: dict[str, Callable[[Option, object], Any]] = {
    "bool": _bool,
    "ms": _whole,
    "count": _whole,
    "rate": _rate,
    "seconds": _seconds,
    "text": _text,
    "enum": _enum,
    "list": _list,
    "message": _message,
    "messages": _messages,
    "headers": _headers,
    "proxy": _proxy,
    "ip": _ip,
    "host": _host,
}

"""Every option with every scheme: obeyed or refused when the address is read, never taken without effect.

Obeyed is seen in the sources: the code that serves a scheme (its driver's files, and the actor's) reads the
option by its name. That an option does what it says, the end-to-end tests show.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from trunkline.actors import registry
from trunkline.address import OPTIONS, SCHEMES, parse_address
from trunkline.address.options import PROXIED_PLAIN
from trunkline.errors import AddressError

ACTORS = Path(registry.__file__).parent
IMPORTED = re.compile(r"^\s*from trunkline\.actors\.([\w.]+) import", re.MULTILINE)
VALUES = {
    "bool": "true",
    "ms": "5000",
    "rate": "5/s",
    "count": "7",
    "seconds": "3",
    "text": "x",
    "list": "a",
    "message": "x",
    "messages": "x",
    "headers": "a: b",
    "proxy": "socks5://h:1",
    "ip": "127.0.0.1",
    "host": "broker.example",
}
EVERYWHERE = ("timeout", "linger")
"""Read by `Dial` and by the broker."""
OF_THE_PROXY = ("cafile", "insecureSkipVerify")
"""Of a scheme without TLS they speak of its https:// proxy."""
OF_COMPRESSION = ("compress", "mode", "max_size")
"""The actor reads them for schemes that have `compress` only."""
ADDRESSES = {
    "sqlite3": "sqlite3://:memory:",
    "mysql": "mysql://u:p@tcp(h)/d",
    "kafka": "kafka://h/t",
    "unix": "unix:///s",
}


@cache
def source(name: str) -> str:
    return (ACTORS / name).read_text()


@cache
def with_imports(name: str) -> str:
    """The text of a module of the actors' folder, and of those there that it imports."""
    found: dict[str, str] = {}
    todo = [name]
    while todo:
        module = todo.pop().replace(".", "/")
        if module not in found and (ACTORS / f"{module}.py").exists():
            found[module] = source(f"{module}.py")
            todo += IMPORTED.findall(found[module])
    return "\n".join(found.values())


@cache
def driver_text(scheme: str) -> str:
    """The driver's own files, and those by which Trunkline itself makes the connection, where it does."""
    folder = registry.DRIVERS[scheme].partition(":")[0].split(".")[3]
    own = "\n".join(path.read_text() for path in (ACTORS / "drivers" / folder).glob("*.py"))
    if "+mqtt" in scheme:
        own += driver_text("ws")
    if re.search(r"from trunkline\.actors\.net(?:\.dialer import| import .*\bdialer\b)", own):
        own += source("net/dialer.py") + source("net/proxies.py") + source("net/tls.py")
    return own


def is_read(option: str, scheme: str) -> bool:
    actor = with_imports(
        "database/actor" if SCHEMES[scheme].family == "database" else "stream/actor"
    )
    if option in OF_COMPRESSION and scheme not in OPTIONS["compress"].schemes:
        actor = ""
    return any(f'"{option}"' in text for text in (driver_text(scheme), actor))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_option_is_obeyed_or_refused(scheme: str) -> None:
    query = f"?{SCHEMES[scheme].needs[0]}=t" if SCHEMES[scheme].needs else ""
    target = ADDRESSES.get(scheme, f"{scheme}://h:1{query}")
    for name, option in OPTIONS.items():
        value = option.choices[0] if option.choices else VALUES[option.kind]
        if name == "buffer_bytes":  # a buffer has room for a message
            value = 4096
        beside = {"pingMessage": "x"} if name == "pingInterval" else {}
        if scheme in option.schemes:
            if scheme in PROXIED_PLAIN and name in OF_THE_PROXY:
                beside = {"proxy": "https://h:1"}
            if name == "pingTimeout":
                beside = {"pingType": "text"}
            assert name in parse_address(target, {name: value, **beside}).options
            assert name in EVERYWHERE or is_read(name, scheme), f"nothing reads {name} of {scheme}"
        else:
            with pytest.raises(AddressError, match=rf"^option '{name}' .*: leave it out"):
                parse_address(target, {name: value})


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("postgres://h/d|servername=x", "host=NAME hostaddr=IP"),
        ("mysql://u:S3cret!@tcp(h)/d|proxy=socks5://a:S3cret!@b:1", "forwards a local port"),
        ("clickhouse://h|local_ip=127.0.0.1", "whose library connects by itself"),
        ("sqlite3://x.db|reconnect=false", "a file without a server"),
        ("tcp://h:1|pingInterval=100", "needs a pingMessage beside it"),
        ("unix:///s|pingInterval=100&pingType=control", "needs a pingMessage"),
    ],
)
def test_a_refused_option_says_what_to_do(address: str, part: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(address)
    assert part in str(caught.value)
    assert "S3cret" not in str(caught.value)

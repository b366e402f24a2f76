"""The findings of `trunkline doctor` without a trial: versions, folders, limits, leftovers.

Starts no process.
"""

from __future__ import annotations

import os
import platform
import resource
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from trunkline.address.proxy_variables import find_proxy
from trunkline.address.schemes import SCHEMES
from trunkline.errors import AddressError, BrokerGone
from trunkline.proxy.brokers import Listing, listing
from trunkline.proxy.discovery import find_left_over_workers, find_stale_folders
from trunkline.wire import endpoint

__all__ = ["Finding", "fail", "machine", "ok", "warn"]

FILES = 1024
"""The least limit of open files."""
OLDEST_PYTHON = (3, 11)
BUILT = 1_750_000_000
"""A time of this version (seconds since 1970). A clock that shows an earlier time is wrong."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the report. `status`: ok, warn or FAIL; `hint`: the remedy."""

    status: str
    name: str
    text: str
    hint: str = ""

    def plain(self) -> dict[str, str]:
        """The finding as a dict, for --json."""
        return asdict(self)


def ok(name: str, text: str) -> Finding:
    """Make a finding without a complaint."""
    return Finding("ok", name, text)


def warn(name: str, text: str, hint: str) -> Finding:
    """Make a finding that deserves a look."""
    return Finding("warn", name, text, hint)


def fail(name: str, text: str, hint: str) -> Finding:
    """Make a finding of a part that does not work. `trunkline doctor` then exits with 1."""
    return Finding("FAIL", name, text, hint)


def machine() -> Iterator[Finding]:
    """All findings that need no process to be started."""
    yield _check_python()
    yield from _check_libraries()
    yield _check_zeromq()
    yield from _check_folder()
    yield _check_file_limit()
    yield _check_clock()
    yield from _check_proxies()
    found = _ask_brokers()
    if isinstance(found, Finding):
        yield found
        return
    yield from _check_brokers(found)
    yield from _check_leftovers(found)


def _check_python() -> Finding:
    """Python's version, and whether Trunkline supports it."""
    text = (
        f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    )
    if sys.version_info < OLDEST_PYTHON:
        return fail("python", text, "use Python 3.11 or newer")
    return ok("python", text)


_CORE = ("pyzmq", "msgpack", "websocket-client", "rich")
_EXTRAS = {
    "fast": ("picows", "uvloop"),
    **{row.extra: row.packages for row in SCHEMES.values() if row.extra},
    "socks": ("PySocks",),
    "strategy": ("httpx", "httpcore", "pycryptodome"),
    "demo": ("websockets", "trustme"),
}


def _check_libraries() -> Iterator[Finding]:
    """The versions of Trunkline and its libraries. A missing extra is no fault."""
    yield ok("trunkline", _installed_version("trunkline") or "run from its source folder")
    missing = [name for name in _CORE if _installed_version(name) is None]
    shown = ", ".join(f"{name} {_installed_version(name)}" for name in _CORE if name not in missing)
    if missing:
        yield fail(
            "libraries", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}"
        )
    else:
        yield ok("libraries", shown)
    for extra, names in _EXTRAS.items():
        absent = [name for name in names if _installed_version(name) is None]
        if absent:
            yield ok(f"extra {extra}", f"not installed; pip install 'trunkline[{extra}]' brings it")
        else:
            yield ok(
                f"extra {extra}", ", ".join(f"{name} {_installed_version(name)}" for name in names)
            )


def _installed_version(name: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _check_zeromq() -> Finding:
    """ZeroMQ's version. Proxies, broker and workers need its transport `ipc`."""
    import zmq

    if not zmq.has("ipc"):
        return fail(
            "zeromq", f"{zmq.zmq_version()} without ipc", "pip install --force-reinstall pyzmq"
        )
    return ok("zeromq", f"{zmq.zmq_version()}, curve {'yes' if zmq.has('curve') else 'no'}")


def _check_folder() -> Iterator[Finding]:
    """Whether the runtime folder can be used, or made."""
    root = endpoint.root()
    hint = f"set {endpoint.ROOT_ENV} to a short path of a folder of your own"
    try:
        endpoint.folder_of(endpoint.new_address())
        info = root.lstat()
    except BrokerGone as error:
        yield fail("runtime folder", str(error), hint)
    except FileNotFoundError:
        above = next(folder for folder in root.parents if folder.exists())
        if os.access(above, os.W_OK):
            yield ok("runtime folder", f"{root} (made when needed)")
        else:
            yield fail("runtime folder", f"{root} cannot be made: {above} is not writable", hint)
    except OSError as error:
        yield fail("runtime folder", f"{root}: {error.strerror}", hint)
    else:
        yield _check_privacy(root, info, hint)


def _check_privacy(root: Path, info: os.stat_result, hint: str) -> Finding:
    """Whether the runtime folder belongs to this user alone."""
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        return fail("runtime folder", f"{root} is not a folder of yours", hint)
    if info.st_mode & 0o077:
        mode = stat.S_IMODE(info.st_mode)
        return warn("runtime folder", f"{root} is open to others ({mode:o})", f"chmod 700 {root}")
    if not os.access(root, os.W_OK | os.X_OK):
        return fail("runtime folder", f"{root} is not writable", hint)
    return ok("runtime folder", f"{root}, private")


def _check_file_limit() -> Finding:
    """Whether the limit of open files allows hundreds of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{_limit_text(soft)} files, at most {_limit_text(hard)}"
    if hard != resource.RLIM_INFINITY and hard < FILES:
        return warn(
            "file limit", text, "raise `ulimit -Hn`: each connection of a program takes a few"
        )
    if soft != resource.RLIM_INFINITY and soft < FILES:
        return warn(
            "file limit", text, f"`ulimit -n {FILES}` before you dial hundreds of connections"
        )
    return ok("file limit", text)


def _limit_text(value: int) -> str:
    return "any number of" if value == resource.RLIM_INFINITY else str(value)


def _check_clock() -> Finding:
    """Whether the clock shows a possible time and runs steadily."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S %z")
    if time.time() < BUILT:
        return fail(
            "clock", f"{shown} is in the past", "set the clock: certificates and signed logins fail"
        )
    wall, steady = time.time(), time.monotonic()
    time.sleep(0.05)
    skew = abs((time.time() - wall) - (time.monotonic() - steady))
    if skew > 0.01:
        return warn(
            "clock", f"{shown}; it jumped {skew * 1000:.0f} ms just now", "look at the time service"
        )
    return ok("clock", shown)


def _check_proxies() -> Iterator[Finding]:
    """The proxies that the environment names for ws and wss."""
    for scheme in ("ws", "wss"):
        try:
            proxy = find_proxy(scheme)
        except AddressError as error:
            yield fail("proxy", f"{scheme}: {error}", "correct or unset the variable")
            continue
        if proxy is None:
            yield ok("proxy", f"{scheme}: none named by the environment")
            continue
        excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        but = f", but not to {excepted}" if excepted else ""
        yield ok(
            "proxy",
            f"{scheme}: {proxy} (from {proxy.variable}){but}; proxy=none in an address goes without",
        )


def _ask_brokers() -> Listing | Finding:
    """The brokers of this user with their connections; a finding when the runtime folder is
    unusable."""
    try:
        return listing()
    except BrokerGone as error:
        return fail("brokers", str(error), f"set {endpoint.ROOT_ENV} to a folder of your own")


def _check_brokers(found: Listing) -> Iterator[Finding]:
    """A finding for every broker: with its silent workers, without an answer, or gone."""
    for broker in found.brokers:
        text = f"{broker.address}, process {broker.pid}: {len(broker.connections)} connections"
        hangs = [row for row in broker.connections if not row.get("responsive", True)]
        if hangs:
            ids = " ".join(found.shown_id(broker, str(row["id"])) for row in hangs)
            hint = f"the broker ends a worker that is silent for 10 s; if it does not: trunkline kill {ids}"
            yield warn("broker", f"{text}, silent workers: {ids}", hint)
        else:
            yield ok("broker", text)
    for silent in found.silent:
        text = f"{silent.address} {silent.why}"
        process = f"process {silent.pid}" if silent.pid else "its process"
        hint = (
            f"if that lasts, end {process}: its workers keep their connections for the next broker"
        )
        yield fail("broker", text, hint) if silent.addressed else warn("broker", text, hint)
    for trouble in found.troubles:
        yield warn(
            "broker", trouble, f"unset {endpoint.ENV}, or start it: trunkline broker --address ..."
        )
    if not found.brokers and not found.silent and not found.troubles:
        yield ok("broker", "none is running; the first Dial starts one")


def _check_leftovers(found: Listing) -> Iterator[Finding]:
    """The folders and the workers that killed brokers have left behind."""
    stale = find_stale_folders()
    if stale:
        yield warn(
            "leftovers",
            f"folders of brokers that were killed: {', '.join(map(str, stale))}",
            "the next broker in the same runtime folder removes them",
        )
    known = {int(row.get("pid") or 0) for broker in found.brokers for row in broker.connections}
    left = find_left_over_workers(known)
    if left:
        pids = " ".join(map(str, left))
        hint = (
            f"they wait for a minute at most for another broker; if they stay longer: kill {pids}"
        )
        yield warn("leftovers", f"workers whose broker is dead: {pids}", hint)
    if not stale and not left:
        yield ok("leftovers", "none")

"""Where brokers live: a folder of their own each, a lock that says one is alive, a socket to reach it.

    <root>/                   0700, ours; $TRUNKLINE_RUNTIME, $XDG_RUNTIME_DIR/trunkline or a folder in the
                              temporary directory named after the user
      b-3f9a.../              one broker
        lock                  held (flock) as long as the broker lives
        broker.sock           its ROUTER
        broker.log            its own and its workers' words
      w-5c1e...             the door of one worker, for requests

An address of a broker is `ipc://<folder>/broker.sock`; it is in TRUNKLINE_BROKER for child processes.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from pathlib import Path

from trunkline.errors import BrokerGone

__all__ = [
    "ENV",
    "alive",
    "brokers",
    "door",
    "folder_of",
    "lock",
    "make_folder",
    "new_address",
    "remove_folder",
    "root",
    "sweep",
]

ENV = "TRUNKLINE_BROKER"
ROOT_ENV = "TRUNKLINE_RUNTIME"
SOCKET = "broker.sock"
MAX_SOCKET_PATH = 92  # sun_path holds 104 to 108 bytes, and a worker's door has a longer name


def root() -> Path:
    """The folder that holds this user's brokers; not created here."""
    given = os.environ.get(ROOT_ENV)
    if given:
        return Path(given)
    xdg = os.environ.get("XDG_RUNTIME_DIR")
    if xdg and os.access(xdg, os.W_OK):
        return Path(xdg) / "trunkline"
    return Path(tempfile.gettempdir()) / f"trunkline-{os.getuid()}"


def new_address() -> str:
    """The address of a broker that does not exist yet."""
    return f"ipc://{root() / ('b-' + secrets.token_hex(6)) / SOCKET}"


def folder_of(address: str) -> Path:
    """The folder of the broker at `address`; BrokerGone says what is wrong with the address."""
    if not address.startswith("ipc://") or not address.endswith("/" + SOCKET):
        raise BrokerGone(
            f"{ENV} must look like ipc:///folder/{SOCKET}, as `trunkline broker` prints it; it is {address!r}"
        )
    folder = Path(address.removeprefix("ipc://")).parent
    if not folder.is_absolute():
        raise BrokerGone(f"{ENV} must hold an absolute path; it is {address!r}")
    if len(os.fsencode(str(folder / SOCKET))) > MAX_SOCKET_PATH:
        raise BrokerGone(
            f"the path of the broker's socket is longer than {MAX_SOCKET_PATH} bytes: {folder}; "
            f"set {ROOT_ENV} to a shorter folder"
        )
    return folder


def door(address: str, connection: bytes) -> Path:
    """Where the worker of a connection takes requests directly."""
    return folder_of(address) / f"w-{connection.hex()}"


def _check_private(folder: Path) -> None:
    """Nobody else may read or replace what is in `folder`."""
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise BrokerGone(f"{folder} is not a folder; remove it or set {ROOT_ENV} to another one")
    if info.st_uid != os.getuid():
        raise BrokerGone(f"{folder} belongs to another user; set {ROOT_ENV} to a folder of your own")
    if info.st_mode & 0o077:
        folder.chmod(0o700)


def make_folder(folder: Path) -> None:
    """Create a broker's folder (and the root above it), private to this user."""
    try:
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, parents=each is folder.parent, exist_ok=True)
            if each is folder or each == root():
                _check_private(each)
    except OSError as error:
        raise BrokerGone(
            f"the folder {folder} cannot be made ({error.strerror}); set {ROOT_ENV} to a writable one"
        ) from None


def lock(folder: Path) -> int | None:
    """Take the lock of a broker's folder: its file descriptor, None when somebody has it.

    The lock goes with the process that holds it, however that ends.
    """
    path = folder / "lock"
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return None
        try:  # somebody may have removed the folder between the two calls: then ours is no lock
            if os.fstat(fd).st_ino == os.stat(path).st_ino:
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)
        if not folder.exists():
            raise FileNotFoundError(folder)


def alive(address: str) -> bool:
    """Whether a broker holds the lock at `address`."""
    folder = folder_of(address)
    try:
        fd = lock(folder)
    except FileNotFoundError:
        return False
    if fd is None:
        return True
    os.close(fd)
    return False


def remove_folder(folder: Path) -> None:
    """Remove a broker's folder; the root too when it is empty then."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        if folder.parent == root():
            folder.parent.rmdir()
    except OSError:
        pass  # other brokers live there


def brokers() -> list[str]:
    """The addresses of this user's living brokers, the oldest first."""
    found = []
    for folder in sorted(root().glob("b-*"), key=lambda f: f.lstat().st_mtime if f.exists() else 0.0):
        address = f"ipc://{folder / SOCKET}"
        if (folder / "lock").exists() and alive(address):
            found.append(address)
    return found


def sweep() -> None:
    """Remove the folders of brokers that were killed and left theirs behind."""
    for folder in root().glob("b-*"):
        try:
            if not (folder / "lock").exists():
                continue  # one that is just being made
            fd = lock(folder)
        except OSError:
            continue
        if fd is not None:
            remove_folder(folder)
            os.close(fd)

"""The places of brokers in the file system: a private folder for each, with a lock and a socket.

    <root>/                   0700, ours; $TRUNKLINE_RUNTIME, $XDG_RUNTIME_DIR/trunkline or a folder
                              in the temporary directory, named after the user
      b-3f9a.../              one broker
        lock                  held (flock) as long as the broker lives; its process id is in it
        broker.sock           its ROUTER
        broker.log            lines of broker and workers; bounded, see trunkline.broker.journal
        number                the number of its last connection
        w-5c1e...             the door of one worker, for pipes and requests
        f-5c1e...             the figures of one worker, see trunkline.wire.ledger

The address of a broker is `ipc://<folder>/broker.sock`. Child processes find it in
TRUNKLINE_BROKER.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import tempfile
import time
from pathlib import Path

from trunkline.errors import BrokerGone

__all__ = [
    "ENV",
    "alive",
    "answers",
    "check_private",
    "claim",
    "door",
    "doors",
    "figures",
    "folder_of",
    "holder",
    "ledgers",
    "lock",
    "make_folder",
    "new_address",
    "refresh",
    "remove_folder",
    "root",
    "roots",
    "sweep",
    "tidy",
    "try_claim",
]

ENV = "TRUNKLINE_BROKER"
ROOT_ENV = "TRUNKLINE_RUNTIME"
SOCKET = "broker.sock"
LOG = "broker.log"
NUMBER = "number"
"""The file with the number of the last connection. The successor of a killed broker reads it."""
PID_WORD = "pid"
"""The first word of the line with a starting broker's process id, sent before the result."""
MAX_SOCKET_PATH = 92  # sun_path holds 104 to 108 bytes, and a worker's door has a longer name
_CLAIMS = 5
_CLAIM_EVERY_S = 0.03


def root() -> Path:
    """The folder of all of this user's brokers; not created here."""
    given = os.environ.get(ROOT_ENV)
    if given:
        return Path(given).absolute()
    xdg = os.environ.get("XDG_RUNTIME_DIR")
    if xdg and os.access(xdg, os.W_OK):
        return Path(xdg) / "trunkline"
    return Path(_temporary()) / f"trunkline-{os.getuid()}"


def _temporary() -> str:
    """The folder for temporary files. Raises BrokerGone where none is writable."""
    try:
        return tempfile.gettempdir()
    except OSError:  # the file systems are read-only or full
        raise BrokerGone(
            "the broker could not be started: no temporary folder is writable; "
            f"set {ROOT_ENV} to a folder that is"
        ) from None


def roots() -> list[Path]:
    """All folders that `root` may return in any environment of this user, the present one first.

    A service, a login shell and a `cron` job rarely have the same variables.
    """
    user = os.getuid()
    given = os.environ.get("XDG_RUNTIME_DIR")
    found = [
        root(),
        *([Path(given) / "trunkline"] if given else []),
        Path(f"/run/user/{user}/trunkline"),
    ]
    temporary = [_temporary(), "/tmp", "/var/tmp", "/usr/tmp"]
    found += [Path(folder) / f"trunkline-{user}" for folder in temporary]
    return list(dict.fromkeys(found))


def new_address() -> str:
    """Return the address of a broker that does not exist yet."""
    return f"ipc://{root() / ('b-' + os.urandom(6).hex()) / SOCKET}"


def folder_of(address: str) -> Path:
    """The folder of the broker at `address`. Raises BrokerGone for a wrong or too long address."""
    if not address.startswith("ipc://") or not address.endswith("/" + SOCKET):
        raise BrokerGone(
            f"{ENV} must look like ipc:///folder/{SOCKET}, as `trunkline broker` prints it; it is {address!r}"
        )
    folder = Path(address.removeprefix("ipc://")).parent
    if not folder.is_absolute():
        raise BrokerGone(f"{ENV} must hold an absolute path; it is {address!r}")
    variable = ENV if os.environ.get(ENV) == address else ROOT_ENV
    if len(os.fsencode(str(folder / SOCKET))) > MAX_SOCKET_PATH:
        raise BrokerGone(
            f"the path of the broker's socket is longer than {MAX_SOCKET_PATH} bytes: {folder}; "
            f"set {variable} to a shorter one"
        )
    try:
        address.encode()  # ZeroMQ encodes the address in the same way
    except UnicodeEncodeError:
        raise BrokerGone(
            f"the path of the broker's folder is not UTF-8: {address!a}; set {variable} to another one"
        ) from None
    return folder


def door(address: str, connection: bytes) -> Path:
    """The socket on which the worker of a connection takes pipes and requests."""
    return folder_of(address) / f"w-{connection.hex()}"


def figures(address: str, connection: bytes) -> Path:
    """The file in which the worker of a connection keeps its figures."""
    return folder_of(address) / f"f-{connection.hex()}"


def check_private(folder: Path) -> None:
    """Check that `folder` is a real folder of this user and closed to all other users.

    Raises BrokerGone otherwise.
    """
    info = _own_folder(folder)
    if info.st_mode & 0o077:
        raise BrokerGone(
            f"{folder} is open to other users (mode {stat.S_IMODE(info.st_mode):o}), so no broker may live "
            f"there: `chmod 700` it, or choose another folder"
        )


def _check_root(folder: Path) -> None:
    """Check that no other user can replace a folder in the root.

    Reading is allowed, because the folders in the root are private. Raises BrokerGone otherwise.
    """
    info = _own_folder(folder)
    if info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX:
        raise BrokerGone(
            f"others may write to {folder} (mode {stat.S_IMODE(info.st_mode):o}), so brokers in it are "
            f"not safe: `chmod 700` it, or set {ROOT_ENV} to another folder"
        )


def _own_folder(folder: Path) -> os.stat_result:
    """Check that `folder` is a real folder of this user; return its status."""
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "not a folder"
        raise BrokerGone(f"{folder} is {what}; remove it or set {ROOT_ENV} to another folder")
    if info.st_uid != os.getuid():
        raise BrokerGone(
            f"{folder} belongs to another user; set {ROOT_ENV} to a folder of your own"
        )
    return info


def make_folder(folder: Path) -> None:
    """Create a broker's folder (and the root above it), private to this user.

    Raises BrokerGone for an existing folder that is open to other users: its mode is not changed.
    """
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.parent == root():
            _check_root(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        check_private(folder)
    except OSError as error:
        raise BrokerGone(
            f"the folder {folder} cannot be made ({error.strerror}); set {ROOT_ENV} to a writable one"
        ) from None


def claim(folder: Path) -> int | None:
    """Make the folder and take its lock, as a new broker does. Returns the lock's file descriptor.

    Returns None when another broker has the lock. A refusal is believed only when it lasts: a
    process that tests for a broker holds the lock for a moment, and a broker that ends removes the
    folder.
    """
    for _ in range(_CLAIMS):
        fd = try_claim(folder)
        if fd is not None:
            return fd
        time.sleep(_CLAIM_EVERY_S)
    return None


def try_claim(folder: Path) -> int | None:
    """As `claim`, in a single attempt. A refusal may be over a moment later."""
    make_folder(folder)
    try:
        fd = lock(folder)
    except FileNotFoundError:  # the folder was removed between the two calls
        return None
    if fd is not None:
        with contextlib.suppress(OSError):  # On a full disk the lock stays without a process id.
            os.ftruncate(fd, 0)
            os.write(fd, b"%d\n" % os.getpid())
    return fd


def holder(folder: Path) -> int | None:
    """The process id of the broker that has taken the lock last; None if unknown."""
    try:
        pid = int((folder / "lock").read_text("ascii"))
    except (OSError, ValueError):
        return None
    return pid if pid > 0 else None


def lock(folder: Path, *, create: bool = True) -> int | None:
    """Take the lock of a broker's folder. Returns its descriptor; None if it is taken.

    The system releases the lock when its process ends, in whatever way. Raises FileNotFoundError
    without a folder; without `create`, also where the folder has no lock file.
    """
    path = folder / "lock"
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    while True:
        fd = os.open(path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return None
        # A race: the folder may have been removed between `open` and `flock`. Then this lock is on
        # a file without a name, and locks nothing.
        try:
            if os.fstat(fd).st_ino == os.stat(path).st_ino:
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)
        if not folder.exists():
            raise FileNotFoundError(folder)


def alive(address: str) -> bool:
    """Whether a broker holds the lock at `address`. Raises BrokerGone for an unsafe folder."""
    folder = folder_of(address)
    try:
        check_private(folder)
        fd = lock(folder, create=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BrokerGone(
            f"{folder} cannot be used ({error.strerror}); set {ROOT_ENV} to a folder of your own"
        ) from None
    if fd is None:
        return True
    os.close(fd)
    return False


def remove_folder(folder: Path, *, awaited: bool = False) -> None:
    """Remove a broker's folder, and the root too if it is empty then. The caller holds the lock.

    `awaited`: a program will start the next broker in this folder. Then the doors of living
    workers, the figures of killed workers and the last number stay.

    Only files of brokers are removed, because the folder may be one that the user named. The lock
    goes last: a broker that starts meanwhile finds either the old lock or an empty place.
    """
    workers = [] if awaited else [*doors(folder), *folder.glob("f-*"), folder / NUMBER]
    for path in [*workers, folder / SOCKET, folder / LOG, folder / "lock"]:
        with contextlib.suppress(OSError):
            path.unlink()
    # foreign files are in the folder, or other brokers in the root
    with contextlib.suppress(OSError):
        folder.rmdir()
        if folder.parent == root():
            folder.parent.rmdir()


def refresh(folder: Path) -> None:
    """Set the times of all files to now, because old files in temporary folders get removed."""
    for path in [folder, *folder.glob("*")]:
        with contextlib.suppress(OSError):
            os.utime(path)


def doors(folder: Path) -> list[Path]:
    """The doors of all workers, also of dead ones."""
    return sorted(folder.glob("w-*"))


def ledgers(folder: Path) -> list[Path]:
    """The figures of all workers, also of dead ones."""
    return sorted(folder.glob("f-*"))


def answers(path: Path) -> bool:
    """Whether a worker listens at this door."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except BlockingIOError:
            return True  # the backlog is full, so a worker listens
        except OSError:
            return False
        return True


def tidy(folder: Path) -> bool:
    """Remove the folder of a killed broker, unless another broker or a waiting worker uses it.

    Returns whether the folder is gone.
    """
    try:
        # A broker that left its folder to programs has removed the lock file, so make one anew.
        left = [*doors(folder), *ledgers(folder), *folder.glob(NUMBER)]
        fd = lock(folder, create=bool(left))
    except OSError:
        return not folder.exists()
    if fd is None:
        return False
    try:
        if any(answers(path) for path in doors(folder)):
            return False
        remove_folder(folder)
        return True
    finally:
        os.close(fd)


def sweep() -> None:
    """Remove the folders that killed brokers have left behind."""
    for folder in root().glob("b-*"):
        with contextlib.suppress(OSError):
            tidy(folder)

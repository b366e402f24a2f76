"""The DSN grammar of mattn/go-sqlite3: `name[?params]`, or a `file:` URI for SQLite itself.

Without `file:`, the name ends at the first `?`, and only the `_...` parameters and `vfs` count: the
file of `test.db?mode=memory` is `test.db`. The parsed DSN names the file to open, and the
statements to run after the opening, in their order.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote
from zoneinfo import ZoneInfo

from trunkline.address.golang import Dsn, DsnError, parse_int, parse_query, query_values, shown
from trunkline.address.nearest import nearest

__all__ = ["parse", "resolve"]

_TRUE = frozenset(("1", "yes", "true", "on"))
_FALSE = frozenset(("0", "no", "false", "off"))
_SYNC = {"0": 0, "off": 0, "1": 1, "normal": 1, "2": 2, "full": 2, "3": 3, "extra": 3}
_VACUUM = {"0": 0, "none": 0, "1": 1, "full": 1, "2": 2, "incremental": 2}
_JOURNAL = ("DELETE", "TRUNCATE", "PERSIST", "MEMORY", "WAL", "OFF")
_SHORT = {
    "_auto_vacuum": "_vacuum",
    "_busy_timeout": "_timeout",
    "_case_sensitive_like": "_cslike",
    "_defer_foreign_keys": "_defer_fk",
    "_foreign_keys": "_fk",
    "_journal_mode": "_journal",
    "_locking_mode": "_locking",
    "_recursive_triggers": "_rt",
    "_synchronous": "_sync",
}
_NAMES = frozenset(
    (
        *_SHORT,
        *_SHORT.values(),
        *(
            "_ignore_check_constraints",
            "_query_only",
            "_secure_delete",
            "_writable_schema",
            "_cache_size",
        ),
        *("_stmt_cache_size", "_txlock", "_mutex", "_loc", "_pragma", "vfs"),
        *("_auth", "_auth_user", "_auth_pass", "_auth_crypt", "_auth_salt"),
    )
)
"""Parameters that count in both forms of the DSN."""
_URI_NAMES = frozenset(("mode", "cache", "immutable", "nolock", "psow", "modeof"))
"""Parameters that SQLite itself reads, in a `file:` URI only."""
_PRAGMA = re.compile(r"(?P<name>\w+)(?:\((?P<inner>[^()]*)\)|=(?P<after>[^()]*))?")
_PRAGMA_VALUE = re.compile(r"[+-]?[\w.]+|'[^']*'")
_VFS = re.compile(
    r"unix(-(none|dotfile|excl|flock|namedsem|posix|afp|nfs|proxy))?|memdb|win32(-(longpath|none))?"
)


class _Params:
    """The decoded parameters, by their long names.

    The short name wins; an empty value counts as absent.
    """

    def __init__(self, given: dict[str, str]) -> None:
        self.given = given

    def text(self, name: str) -> str | None:
        """The text of a parameter, or None."""
        return self.given.get(_SHORT.get(name, name)) or self.given.get(name) or None

    def flag(self, name: str) -> bool | None:
        """The boolean value of a parameter, or None; DsnError for other words."""
        value = self.text(name)
        if value is None:
            return None
        if value.lower() in _TRUE | _FALSE:
            return value.lower() in _TRUE
        raise DsnError(
            f"Invalid {name}: {shown(value)}, expecting boolean value of '0 1 false true no yes off on'"
        )

    def number(self, name: str, default: int | None) -> int | None:
        """The whole number of a parameter, or `default`; DsnError for other text."""
        value = self.text(name)
        if value is None:
            return default
        try:
            return parse_int(value)
        except DsnError as error:
            text = f"Invalid {name}: {shown(value)}: {error}"
        raise DsnError(text)

    def choice(self, name: str, choices: dict[str, int], accepted: str) -> int | None:
        """The number that a word of `choices` stands for, or None; DsnError with `accepted` for
        other words."""
        value = self.text(name)
        if value is not None and value.lower() not in choices:
            raise DsnError(f"Invalid {name}: {shown(value)}, expecting value of '{accepted}'")
        return None if value is None else choices[value.lower()]


def parse(dsn: str) -> Dsn:
    """Parse the DSN as go-sqlite3 does; raises `DsnError`. The result's `fields`:

    `name`: the name to open. `name_is_uri`: whether this name is a URI.
    `uri`: whether the DSN is a `file:` URI.
    `file`: the path as written; "" for a database in memory.
    `memory`: whether the database is in memory.
    `shared_memory`: the name by which other dials find the same database in memory; "" for none.
    `busy_timeout_ms`: milliseconds.
    `begin`: the statement that begins a transaction.
    `pragmas`: pairs of name and value, in the order of execution.
    `own_pragmas`: the statements of `_pragma=`, executed after `pragmas`.
    `stmt_cache_size`, `loc`, `vfs`: the values of these parameters.
    `effective`: the differences from a connection without parameters.
    `ignored`: a line of text for every parameter without effect.
    """
    mark = dsn.find("?", 1)
    query = dsn[mark + 1 :] if mark > 0 else ""
    params = parse_query(query, strict=True)
    uri = dsn.startswith("file:")
    plain = dsn if uri or mark < 0 else dsn[:mark]
    given = _Params(params)
    path = _uri_path(dsn) if uri else plain
    memory = path == ":memory:" or (uri and params.get("mode") == "memory")
    memory = memory or params.get("vfs") == "memdb"
    fields: dict[str, Any] = {"uri": uri, "name": plain, "name_is_uri": uri, "memory": memory}
    fields["file"] = "" if memory else path
    fields["shared_memory"] = _shared_memory(path, params) if uri and memory else ""
    fields["vfs"] = _vfs(params)
    if uri:
        _check_uri(params)
    elif fields["vfs"]:
        # Python's sqlite3 module takes a VFS only in a URI.
        fields["name"] = f"file:{quote(plain)}?vfs={quote(fields['vfs'])}"
        fields["name_is_uri"] = True
    fields.update(_session(given))
    fields["own_pragmas"] = [_own_pragma(value) for value in query_values(query, "_pragma")]
    fields["ignored"] = [_ignored(name, uri) for name in params if not _counts(name, uri)]
    fields["effective"] = _effective(fields, params)
    return Dsn(None, None, None, "", "", plain, params, fields)


def _own_pragma(text: str) -> str:
    """Read `_pragma=name(value)` or `_pragma=name=value`, the form of modernc.org/sqlite.

    The result is a statement that can be nothing but a PRAGMA; DsnError for other text.
    """
    match = _PRAGMA.fullmatch(text.strip())
    value = None if match is None else match["inner"] if match["after"] is None else match["after"]
    if match is None or not (value is None or _PRAGMA_VALUE.fullmatch(value.strip())):
        raise DsnError(f"Invalid _pragma: {shown(text)}, expecting name(value)")
    return (
        f"PRAGMA {match['name']}" if value is None else f"PRAGMA {match['name']} = {value.strip()}"
    )


def _counts(name: str, uri: bool) -> bool:
    """Whether a parameter has an effect in this form of the DSN."""
    return not name or name in _NAMES or (uri and name in _URI_NAMES)


def _ignored(name: str, uri: bool) -> str:
    """The warning for a parameter without effect, with the nearest known name.

    Go's driver ignores the parameter too.
    """
    if name in _URI_NAMES:
        return f"parameter {name!r} of the sqlite3 address counts only behind file: (sqlite3://file:NAME?...)"
    near = nearest(name, [*_NAMES, *(_URI_NAMES if uri else ())], 0.6)
    hint = f": did you mean {near!r}" if near else ""
    return f"parameter {shown(name)!r} of the sqlite3 address is not known, and ignored{hint}"


def _uri_path(dsn: str) -> str:
    """The decoded path of a `file:` URI; DsnError for a host other than localhost."""
    path = dsn[len("file:") :].partition("#")[0].partition("?")[0]
    if path.startswith("//"):
        authority, slash, rest = path[2:].partition("/")
        if authority not in ("", "localhost"):
            raise DsnError(f"invalid uri authority: {shown(authority)}")
        path = slash + rest
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:
        pass
    raise DsnError("its percent-escapes are not UTF-8 text")


def _shared_memory(path: str, params: dict[str, str]) -> str:
    """The name of a database in memory that all connections of a program share, by SQLite's rules;
    "" for none."""
    if params.get("vfs") == "memdb":
        return f"memdb:{path}" if path.startswith("/") else ""
    return path if params.get("cache") == "shared" else ""


def _vfs(params: dict[str, str]) -> str | None:
    """The VFS, if SQLite has a VFS of this name; DsnError for other names."""
    name = params.get("vfs") or None
    if name is not None and not _VFS.fullmatch(name):
        raise DsnError(f"no such vfs: {shown(name)}")
    return name


def _check_uri(params: dict[str, str]) -> None:
    """Check the words that SQLite checks, so that a mistake is reported before a file is opened."""
    mode, cache = params.get("mode"), params.get("cache")
    if mode is not None and mode not in ("ro", "rw", "rwc", "memory"):
        raise DsnError(f"no such access mode: {shown(mode)}")
    if cache is not None and cache not in ("shared", "private"):
        raise DsnError(f"no such cache mode: {shown(cache)}")


def _session(given: _Params) -> dict[str, Any]:
    """The fields that set up the session; raises DsnError."""
    cache = given.number("_stmt_cache_size", 0)
    if cache is not None and cache < 0:
        raise DsnError(f"Invalid _stmt_cache_size: {cache}, expecting non-negative integer")
    if given.text("_mutex") not in (None, "no", "full"):
        raise DsnError(f"Invalid _mutex: {shown(given.text('_mutex') or '')}")
    return {
        "begin": _begin(given.text("_txlock")),
        "loc": _loc(given.text("_loc")),
        "busy_timeout_ms": given.number("_busy_timeout", 5000),
        "stmt_cache_size": cache,
        "pragmas": _pragmas(given),
    }


def _begin(lock: str | None) -> str:
    """The statement that begins a transaction."""
    if lock in (None, "deferred"):
        return "BEGIN"
    if lock in ("immediate", "exclusive"):
        return f"BEGIN {lock.upper()}"
    raise DsnError(f"Invalid _txlock: {shown(str(lock))}")


def _loc(name: str | None) -> str | None:
    """The time zone of `_loc`, checked; `auto` is `Local`."""
    if name is None or name in ("UTC", "Local"):
        return name
    if name == "auto":
        return "Local"
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        pass
    else:
        return name
    raise DsnError(f"Invalid _loc: {shown(name)}: unknown time zone {shown(name)}")


def _pragmas(given: _Params) -> list[list[Any]]:
    """Pairs of name and value in go-sqlite3's order.

    `locking_mode` and `synchronous` are always set.
    """
    values: dict[str, Any] = {
        "auto_vacuum": given.choice("_auto_vacuum", _VACUUM, "0 NONE 1 FULL 2 INCREMENTAL")
    }
    for name in (
        "case_sensitive_like",
        "defer_foreign_keys",
        "foreign_keys",
        "ignore_check_constraints",
    ):
        values[name] = given.flag(f"_{name}")
    values["journal_mode"] = _word(given, "_journal_mode", _JOURNAL)
    values["locking_mode"] = _word(given, "_locking_mode", ("NORMAL", "EXCLUSIVE")) or "NORMAL"
    for name in ("query_only", "recursive_triggers"):
        values[name] = given.flag(f"_{name}")
    values["secure_delete"] = _secure_delete(given)
    sync = given.choice("_synchronous", _SYNC, "0 OFF 1 NORMAL 2 FULL 3 EXTRA")
    values["synchronous"] = 1 if sync is None else sync
    values["writable_schema"] = given.flag("_writable_schema")
    values["cache_size"] = given.number("_cache_size", None)
    return [
        [name, int(v) if isinstance(v, bool) else v] for name, v in values.items() if v is not None
    ]


def _word(given: _Params, name: str, words: tuple[str, ...]) -> str | None:
    """A word of `words` in upper case, or None."""
    value = given.text(name)
    if value is not None and value.upper() not in words:
        # The driver's error names the spelling that was used here; its other errors name the long
        # spelling.
        used = _SHORT[name] if given.given.get(_SHORT[name]) else name
        raise DsnError(f"Invalid {used}: {shown(value)}, expecting value of '{' '.join(words)}'")
    return value and value.upper()


def _secure_delete(given: _Params) -> int | str | None:
    """The value of `_secure_delete`: FAST or a boolean."""
    if (given.text("_secure_delete") or "").upper() == "FAST":
        return "FAST"
    return given.flag("_secure_delete")


def _effective(fields: dict[str, Any], params: dict[str, str]) -> dict[str, Any]:
    """The differences from a connection without parameters, in SQLite's own terms."""
    plain = {"locking_mode": "NORMAL", "synchronous": 1, "journal_mode": "DELETE"}
    found: dict[str, Any] = {}
    for name, value in fields["pragmas"]:
        # The commit of the PRAGMA itself resets defer_foreign_keys.
        if name != "defer_foreign_keys" and value != plain.get(name, 0):
            found[name] = value.lower() if isinstance(value, str) else value
    if found.get("secure_delete") == "fast":
        found["secure_delete"] = 2
    if fields["memory"]:
        found["journal_mode"] = "off" if found.get("journal_mode") == "off" else "memory"
    if fields["busy_timeout_ms"] != 5000:
        found["busy_timeout"] = fields["busy_timeout_ms"]
    if fields["begin"] != "BEGIN":
        found["begin"] = fields["begin"]
    if fields["loc"] is not None:
        found["loc"] = fields["loc"]
    if fields["stmt_cache_size"]:
        found["stmt_cache_size"] = fields["stmt_cache_size"]
    if fields["uri"] and (
        params.get("mode") == "ro" or params.get("immutable", "").lower() in _TRUE
    ):
        found["write_error"] = "attempt to write a readonly database"
    return found


def resolve(dsn: str, extra: dict[str, Any], folder: str) -> tuple[str, dict[str, Any]]:
    """The DSN and its fields with a relative file made absolute against `folder`.

    In memory: unchanged.
    """
    path = str(extra["file"])
    if not path or path.startswith("/"):
        return dsn, extra
    absolute = f"{folder.rstrip('/')}/{path}"
    tail = re.search(r"[?#]" if extra["uri"] else r"(?<!^)\?", dsn)
    query = dsn[tail.start() :] if tail else ""
    target = (f"file:{quote(absolute)}" if extra["uri"] else absolute) + query
    name = target if extra["uri"] else absolute
    if extra["vfs"] and not extra["uri"]:
        name = f"file:{quote(absolute)}?vfs={quote(str(extra['vfs']))}"
    return target, {**extra, "name": name, "file": absolute}

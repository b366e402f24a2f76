"""The statements of `Cursor.callproc`, which call a procedure and read its OUT parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from trunkline.db.errors import NotSupportedError, OperationalError, ProgrammingError

__all__ = ["call_procedure"]

Run = Callable[[str, Sequence[Any]], dict[str, Any]]
"""Runs a statement with its values and returns the result as `Connection.exec` does.
All statements run on one session.
"""

_PLAIN_PART = r"[^\W\d][\w$]*"
_NAMES = {
    "mysql": re.compile(rf"(?:{_PLAIN_PART}|`[^`]+`)(?:\.(?:{_PLAIN_PART}|`[^`]+`))?"),
    "postgres": re.compile(rf'(?:{_PLAIN_PART}|"[^"]+")(?:\.(?:{_PLAIN_PART}|"[^"]+"))?'),
}
_PART = re.compile(rf'{_PLAIN_PART}|`[^`]+`|"[^"]+"')
# A variable of a MySQL session cannot have a date type:
# without a cast the value would come back as text.
_CASTS = {"datetime": "DATETIME(6)", "timestamp": "DATETIME(6)", "date": "DATE", "time": "TIME(6)"}
_MYSQL_PARAMETERS = (
    "SELECT parameter_mode, data_type FROM information_schema.parameters WHERE routine_type = 'PROCEDURE'"
    " AND specific_schema = COALESCE(?, DATABASE()) AND specific_name = ? ORDER BY ordinal_position"
)
_POSTGRES_PROCEDURES = (
    "SELECT p.proargmodes::text[] FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
    " WHERE p.prokind = 'p' AND p.proname = $1"
    " AND CASE WHEN $2::text IS NULL THEN pg_function_is_visible(p.oid) ELSE n.nspname = $2 END"
    " AND COALESCE(array_length(p.proallargtypes, 1), p.pronargs) = $3"
)


def call_procedure(
    run: Run, scheme: str, name: str, given: list[Any], label: str
) -> tuple[dict[str, Any], list[Any]]:
    """Call a procedure.

    Returns the result as `Connection.exec` does, and the values of the parameters after the call.

    `label`: letters and digits that no other user of
    the session has, for variables of a MySQL session.
    """
    if scheme not in _NAMES:
        raise NotSupportedError(f"{scheme} has no stored procedures")
    if not isinstance(name, str) or not _NAMES[scheme].fullmatch(name):
        raise ProgrammingError(
            "a procedure is named by an identifier, or by two with a dot between them"
        )
    call = _call_mysql if scheme == "mysql" else _call_postgres
    return call(run, name, given, label)


def _parts(name: str, folded: bool) -> tuple[str | None, str]:
    """Schema (None for the current schema) and name, without quotes.

    `folded`: unquoted names become lower case.
    """
    parts = [
        part[1:-1] if part[0] in '`"' else part.lower() if folded else part
        for part in _PART.findall(name)
    ]
    return (parts[0], parts[1]) if len(parts) > 1 else (None, parts[0])


# MySQL: the value that a procedure gives to a parameter
# can be read only from a variable of the session.


def _call_mysql(
    run: Run, name: str, given: list[Any], label: str
) -> tuple[dict[str, Any], list[Any]]:
    """Call a procedure of MySQL, with variables of the session for OUT and INOUT parameters.

    A further variable is the guard. If the link is lost and dialled again during the call, the
    guard is NULL, and so are the values.
    """
    kinds = run(_MYSQL_PARAMETERS, [*_parts(name, folded=False)])["values"]
    out = {
        index: str(kind).lower()
        for index, (mode, kind) in enumerate(kinds)
        if mode in ("OUT", "INOUT")
    }
    # The server refuses a wrong number of values.
    if not out or len(kinds) != len(given):
        places = ", ".join("?" * len(given))
        return run(f"CALL {name}({places})", given), given
    guard, variables = (
        f"@trunkline_{label}",
        {index: f"@trunkline_{label}_{index}" for index in out},
    )
    # The variables are written by this call or before it,
    # so the value of a former call is never read here.
    before = ", ".join([f"{guard} = 1", *(f"{variable} = ?" for variable in variables.values())])
    run(f"SET {before}", [given[index] for index in out])
    places = ", ".join(variables.get(index, "?") for index in range(len(given)))
    result = run(
        f"CALL {name}({places})", [value for index, value in enumerate(given) if index not in out]
    )
    read = ", ".join(_read_variable(variables[index], kind) for index, kind in out.items())
    [[held, *values]] = run(f"SELECT {guard}, {read}", [])["values"]
    clear = ", ".join(f"{variable} = NULL" for variable in (guard, *variables.values()))
    run(f"SET {clear}", [])
    if held is None:
        raise OperationalError(
            "the link was lost after the procedure was called, and with it what it gave to its parameters"
        )
    found = list(given)
    for index, value in zip(out, values, strict=True):
        found[index] = value
    return result, found


def _read_variable(variable: str, kind: str) -> str:
    """The variable, with a cast if its type would be lost."""
    return f"CAST({variable} AS {_CASTS[kind]})" if kind in _CASTS else variable


# PostgreSQL: CALL returns one row with the values of the OUT and INOUT parameters.


def _call_postgres(
    run: Run, name: str, given: list[Any], label: str
) -> tuple[dict[str, Any], list[Any]]:
    """Call a procedure of PostgreSQL, or select from a function if no procedure has the name."""
    schema, plain = _parts(name, folded=True)
    places = ", ".join("?" * len(given))
    procedures = run(_POSTGRES_PROCEDURES, [plain, schema, len(given)])["values"]
    if not procedures:
        return run(f"SELECT * FROM {name}({places})", given), given
    result = run(f"CALL {name}({places})", given)
    if not result["values"]:
        return result, given
    [[modes]], [row] = procedures[:1], result["values"]
    out = [index for index, mode in enumerate(modes or []) if mode in ("o", "b")]
    found = list(given)
    for index, value in zip(out, row, strict=False):
        found[index] = value
    return {**result, "columns": [], "values": []}, found

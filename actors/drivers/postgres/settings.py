"""The server's settings that an address names, such as `search_path`.

They are set with a statement after the login, and not in the start-up packet's `options`: PgBouncer and
others between us and the server refuse that, or leave it out without a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trunkline.actors.database.sql.statements import Statement

__all__ = ["AT_START", "setting_statement", "those_reset"]

AT_START = frozenset(
    (
        "ignore_system_indexes",
        "jit_debugging_support",
        "jit_profiling_support",
        "log_connections",
        "log_disconnections",
        "post_auth_delay",
    )
)
"""Those that the server takes only while a connection begins; they go as `options` after all."""


def setting_statement(settings: Mapping[str, str]) -> tuple[str, list[str]]:
    """What sets them, as psycopg2 takes it: text and values."""
    calls = ", ".join("set_config(%s, %s, false)" for _ in settings)
    return f"SELECT {calls}", [text for pair in settings.items() for text in pair]


def those_reset(statements: Iterable[Statement], settings: Mapping[str, str]) -> dict[str, str]:
    """Those of the address's settings that these statements have set back to the server's own: `RESET`,
    `DISCARD ALL`, `SET ... TO DEFAULT`."""
    found: dict[str, str] = {}
    for statement in statements:
        words = list(statement.words)
        if words[:1] == ["SET"] and words[-1:] == ["DEFAULT"]:
            words = ["RESET", *(word for word in words[1:-1] if word not in ("SESSION", "TO"))]
        if words[1:] == ["TIME", "ZONE"]:
            words = ["RESET", "TIMEZONE"]
        if words in (["RESET", "ALL"], ["DISCARD", "ALL"]):
            return dict(settings)
        if words[:1] == ["RESET"] and words[1:]:
            name = ".".join(words[1:]).lower()
            found.update((key, value) for key, value in settings.items() if key.lower() == name)
    return found

"""Settings of the server that an address names, such as `search_path`.

The settings are set with a statement after the login, not in `options` of the start-up packet.
PgBouncer and other poolers refuse such `options` or ignore them silently.
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
"""Settings that the server takes only while a connection begins. These are sent in `options`."""


def setting_statement(settings: Mapping[str, str]) -> tuple[str, list[str]]:
    """The statement that sets the settings, as psycopg2 takes it: text and values."""
    calls = ", ".join("set_config(%s, %s, false)" for _ in settings)
    return f"SELECT {calls}", [text for pair in settings.items() for text in pair]


def those_reset(statements: Iterable[Statement], settings: Mapping[str, str]) -> dict[str, str]:
    """The settings of the address that these statements have reset to the server's own values.

    Such statements are `RESET`, `DISCARD ALL` and `SET ... TO DEFAULT`.
    """
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

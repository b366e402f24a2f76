"""The time zone of a MySQL session, where the server says or takes something unexpected."""

from __future__ import annotations

from datetime import UTC

import pytest
from mysql.connector import errors

from trunkline.actors.drivers.mysql import zone as mysql_zone


def test_a_server_that_lets_no_zone_be_set_is_dialled_all_the_same() -> None:
    """Servers that only resemble MySQL know less of it."""
    asked: list[str] = []
    said: list[str] = []

    def ask(sql: str) -> list[tuple[bytes | None, ...]]:
        asked.append(sql)
        if sql.startswith("SET"):
            raise errors.ProgrammingError("unknown statement", errno=1064)
        return [(b"1.0", b"2.0")]

    assert mysql_zone.fit(ask, "h:1", "Europe/Paris", None, said.append) is not None
    assert [sql[:3] for sql in asked] == ["SEL", "SET", "SET"]
    assert len(said) == 1
    assert "does not let it be set" in said[0]


@pytest.mark.parametrize("answer", [[], [(None, b"x")], None])
def test_a_server_that_cannot_say_its_zone_is_left_alone(
    answer: list[tuple[bytes | None, ...]] | None,
) -> None:
    def ask(sql: str) -> list[tuple[bytes | None, ...]]:
        assert sql.startswith("SELECT")
        if answer is None:
            raise errors.ProgrammingError("unknown function", errno=1305)
        return answer

    assert mysql_zone.fit(ask, "h:1", None, None, pytest.fail) is UTC

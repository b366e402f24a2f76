"""SQLAlchemy's URLs as Trunkline's addresses."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

import trunkline
from trunkline.db.alchemy import MariaDb, MySql, PostgreSql, Sqlite


@pytest.mark.parametrize("dialect", [PostgreSql, MySql, MariaDb])
@pytest.mark.parametrize("password", ["p", "p|x", "a@b/c%d&e:f?g", "ü +x#", "%41", "[::1]"])
def test_a_url_means_the_same_as_an_address(dialect: type, password: str) -> None:
    url = sa.URL.create("x+trunkline", "us|er", password, "db.example", 1234, "d b|x")
    (text,), options = dialect().create_connect_args(url)
    address = trunkline.parse_address(text)
    assert (address.user, address.password) == ("us|er", password)
    assert (address.host, address.port, address.database) == ("db.example", 1234, "d b|x")
    assert options == {}


def test_parameters_are_those_of_the_address() -> None:
    url = sa.URL.create(
        "x+trunkline", "u", "p", "::1", database="d", query={"application_name": "a b&c|d"}
    )
    (text,), _ = PostgreSql().create_connect_args(url)
    address = trunkline.parse_address(text)
    assert (address.host, address.params) == ("::1", {"application_name": "a b&c|d"})


def test_a_file_is_what_stands_after_three_slashes() -> None:
    url = sa.make_url("sqlite+trunkline:////folder/a b|c.db?_loc=auto&_fk=1")
    (text,), _ = Sqlite().create_connect_args(url)
    address = trunkline.parse_address(text)
    assert address.extra["file"] == "/folder/a b|c.db"
    assert address.params == {"_loc": "auto", "_fk": "1"}


def test_nothing_named_is_nothing_dialled() -> None:
    assert PostgreSql().create_connect_args(sa.make_url("postgresql+trunkline://")) == ([], {})

"""Placeholders are found where they are placeholders, and statements end where the server ends them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.database.sql.placeholders import Style, bind, placeholders
from trunkline.actors.database.sql.statements import split
from trunkline.errors import StatementError
from trunkline.sqltext import Dialect, tokens

SQLITE, MYSQL, POSTGRES, CLICKHOUSE, STANDARD = Dialect
STYLES = {
    SQLITE: Style.QMARK,
    MYSQL: Style.FORMAT,
    POSTGRES: Style.FORMAT,
    CLICKHOUSE: Style.PYFORMAT,
    STANDARD: Style.QMARK,
}

EVERYWHERE = [
    "'?'",
    "'it''s ?'",
    '"a?b"',
    "-- really?\n",
    "/* ? $1 ; */",
    "'-- ' /* ' ? */",
]
BY_DIALECT = {
    SQLITE: ["`a?`", "[a?b]", "'\\'", "'/*' -- */ ?"],
    MYSQL: ["`a?`", "# ?\n", "'\\'?'", '"\\"?"', "'\\\\'", "-- ?"],
    POSTGRES: [
        "E'\\'?'",
        "E'a''\\'?'",
        "E'it''s \\'??', '?'",
        "E'a' \n 'b\\'?'",
        "-- a ?\r",
        "E'a'\r'b\\'?'",
        "E'a' -- why\n -- so\n'b\\'?'",
        "e'\\\\'",
        "'\\'",
        "$$ ? $$",
        "$fn$ $$ ? $1 $fn$",
        "/* /* ? */ ? */",
        "U&'?'",
        "a ?? b",
    ],
    CLICKHOUSE: ["`a?`", "'\\'?'", "# ?\n", "$x$ ' ? $x$", "#! ?\n", "// don't ?\n"],
    STANDARD: [],
}
TRIGGER = "CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; DELETE FROM b; END"
FUNCTION = (
    "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE 1 WHEN 1 THEN 2 END; END"
)
TEXTS = [(dialect, text) for dialect in Dialect for text in EVERYWHERE + BY_DIALECT[dialect]]


@pytest.mark.parametrize(("dialect", "text"), TEXTS, ids=str)
def test_a_placeholder_inside_a_string_name_or_comment_is_text(dialect: Dialect, text: str) -> None:
    assert placeholders(f"SELECT {text}\n, ?", dialect) == ["?"]


@pytest.mark.parametrize("opened", ["/*!", "/*!50000", "/*!100100 ", "/*M!", "/*M!100100 "])
def test_what_a_comment_holds_that_mysql_runs_is_no_comment(opened: str) -> None:
    sql = f"SELECT 1 {opened} + ? /* ? */ */ + '?' /* ? */"
    assert placeholders(sql, MYSQL) == ["?"]
    assert [
        statement.keyword for statement in split(f"{opened} SET @a = ? */; SELECT 1", MYSQL)
    ] == [
        "SET",
        "SELECT",
    ]


@pytest.mark.parametrize("dialect", Dialect)
@given(sql=st.text(st.sampled_from("?'\"`[]$-/*#;\\%aEe1:@ \n|&x()")))
def test_the_pieces_are_the_text(dialect: Dialect, sql: str) -> None:
    assert "".join(token.text for token in tokens(sql, dialect)) == sql


@pytest.mark.parametrize("dialect", Dialect)
@given(
    data=st.data(),
    pieces=st.lists(
        st.sampled_from(["?", "SELECT", ",", "100 % 7", "(", ")", "LIKE '%'", "''", *EVERYWHERE])
    ),
)
def test_every_value_reaches_its_placeholder(
    dialect: Dialect, data: st.DataObject, pieces: list[str]
) -> None:
    sql = " ".join(pieces)
    values = list(range(1000, 1000 + pieces.count("?")))
    text, params = bind(sql, values, dialect, STYLES[dialect])
    shown = render(text, params, STYLES[dialect])
    wanted = [str(values.pop(0)) if piece == "?" else piece for piece in pieces]
    # beside a string, or another placeholder, a literal stands in brackets
    assert _bare(shown) == _bare(" ".join(wanted))


def _bare(sql: str) -> str:
    return re.sub(r"[\s()]", "", sql)


def render(text: str, params: Any, style: Style) -> str:
    """What a library of this style would send."""
    if params is None:
        return text
    if style is not Style.QMARK:
        filled = text % (params if isinstance(params, dict) else tuple(params))
        return str(filled)
    left = iter(params)
    return "".join(
        str(next(left)) if token.kind == "place" else token.text
        for token in tokens(text, Dialect.SQLITE)
    )


@pytest.mark.parametrize(
    ("dialect", "sql", "values", "text", "params"),
    [
        (POSTGRES, "SELECT $2, $1, $2", [1, 2], "SELECT %s, %s, %s", [2, 1, 2]),
        (POSTGRES, "SELECT '%', 5 % 2, ?", [1], "SELECT '%%', 5 %% 2, %s", [1]),
        (POSTGRES, "SELECT '%'", [], "SELECT '%'", None),
        (POSTGRES, "SELECT j ? 'k'", [], "SELECT j ? 'k'", None),
        (POSTGRES, "SELECT j ?? 'k'", [], "SELECT j ? 'k'", None),
        (POSTGRES, "SELECT j ? 'k' AND a = $1", [1], "SELECT j ? 'k' AND a = %s", [1]),
        (
            POSTGRES,
            "SELECT j ?? 'k', j ?| b, j ?& b, ?",
            [1],
            "SELECT j ? 'k', j ?| b, j ?& b, %s",
            [1],
        ),
        (POSTGRES, "SELECT ?||'x', j @? p", [1], "SELECT %s||'x', j @? p", [1]),
        (POSTGRES, "SELECT ?::int, a::text", [1], "SELECT (%s)::int, a::text", [1]),
        (POSTGRES, "SELECT a$1, $1", [1], "SELECT a$1, %s", [1]),
        (POSTGRES, "PREPARE p AS SELECT $1", [], "PREPARE p AS SELECT $1", None),
        (MYSQL, "SELECT 5--?", [1], "SELECT 5--%s", [1]),
        (MYSQL, "SELECT @a, $1, ?", [1], "SELECT @a, $1, %s", [1]),
        (CLICKHOUSE, "SELECT $1, $1, '%'", [1], "SELECT %(p1)s, %(p1)s, '%%'", {"p1": 1}),
        (CLICKHOUSE, "SELECT a ? b : c", [], "SELECT a ? b : c", None),
        (CLICKHOUSE, "SELECT ?, ?", [1, 2], "SELECT %(p1)s, %(p2)s", {"p1": 1, "p2": 2}),
        (SQLITE, "SELECT ?2, ?, ?1", [1, 2, 3], "SELECT ?, ?, ?", [2, 3, 1]),
        (SQLITE, "SELECT :a, @b, :a, $c", [1, 2, 3], "SELECT ?, ?, ?, ?", [1, 2, 1, 3]),
        (SQLITE, "SELECT '?'", [], "SELECT '?'", None),
    ],
)
def test_a_statement_is_written_for_its_library(
    dialect: Dialect, sql: str, values: list[int], text: str, params: Any
) -> None:
    assert bind(sql, values, dialect, STYLES[dialect]) == (text, params)


@pytest.mark.parametrize("dialect", [MYSQL, POSTGRES, CLICKHOUSE])
@pytest.mark.parametrize(
    ("sql", "written"),
    [
        ("SELECT ?1", "SELECT %s 1"),
        ("SELECT 1?", "SELECT 1 %s"),
        ("SELECT 1.?", "SELECT 1. %s"),
        ("SELECT ?.5", "SELECT %s .5"),
        ("SELECT ?e3", "SELECT %s e3"),
        ("FROM pos LIMIT?", "FROM pos LIMIT %s"),
        ("SELECT E?", "SELECT E %s"),
        ("SELECT U&?", "SELECT U& %s"),
        ("SELECT 'a'?", "SELECT 'a' (%s) "),
        ("SELECT 'a' -- why\n ?", "SELECT 'a' -- why\n  (%s) "),
        ("SELECT ? 'a'", "SELECT  (%s)  'a'"),
        ("SELECT ?/**/'a'", "SELECT  (%s) /**/'a'"),
        ("SELECT (?), -?, 2*?", "SELECT (%s), -%s, 2*%s"),
        ("SELECT DATE ? AS `a`", "SELECT DATE %s AS `a`"),
    ],
)
def test_no_neighbour_becomes_a_part_of_a_value(dialect: Dialect, sql: str, written: str) -> None:
    values = [1] * sql.count("?")
    assert bind(sql, values, dialect, Style.FORMAT)[0] == written


def test_a_library_that_takes_names_only_gets_percent_signs_as_they_are() -> None:
    text, params = bind("SELECT '%s', 5 % ?", [2], MYSQL, Style.MAPPING)
    assert (text, params) == ("SELECT '%s', 5 % %(trunkline_1)s", {"trunkline_1": 2})


@pytest.mark.parametrize(
    ("sql", "values", "says"),
    [
        ("SELECT ?, ?", [1, 2, 3], "the statement has 2 placeholders and 3 values were given"),
        ("SELECT ?", [], "the statement has 1 placeholder and no values were given"),
        ("SELECT '?'", [1], "the statement has no placeholders and 1 value was given"),
    ],
)
def test_a_wrong_number_of_values_is_counted_out(sql: str, values: list[int], says: str) -> None:
    with pytest.raises(StatementError, match=f"^{re.escape(says)}$"):
        bind(sql, values, MYSQL, Style.FORMAT)


def test_names_are_for_sqlite_alone() -> None:
    with pytest.raises(StatementError, match="mysql takes values in order, not by name"):
        bind("SELECT :a", {"a": 1}, MYSQL, Style.FORMAT)


@pytest.mark.parametrize(
    ("dialect", "sql", "texts"),
    [
        (SQLITE, "SELECT 1; SELECT ';' ; -- ;\n ;; ", ["SELECT 1", "SELECT ';'"]),
        (SQLITE, "", []),
        (SQLITE, " /* nothing */ ; -- at all", []),
        (SQLITE, f"{TRIGGER}; X", [TRIGGER, "X"]),
        (
            SQLITE,
            "CREATE TABLE a AS SELECT trigger FROM b; X",
            ["CREATE TABLE a AS SELECT trigger FROM b", "X"],
        ),
        (
            MYSQL,
            "CREATE PROCEDURE p() BEGIN SELECT 1; END; X",
            ["CREATE PROCEDURE p() BEGIN SELECT 1; END; X"],
        ),
        (MYSQL, "CREATE PROCEDURE p() SELECT 1; X", ["CREATE PROCEDURE p() SELECT 1", "X"]),
        (MYSQL, "/*!40101 SET a = 1 */; X", ["/*!40101 SET a = 1 */", "X"]),
        (POSTGRES, "DO $$ BEGIN; END $$; X", ["DO $$ BEGIN; END $$", "X"]),
        (POSTGRES, f"{FUNCTION}; X", [FUNCTION, "X"]),
        (
            POSTGRES,
            "CREATE RULE r AS ON INSERT TO a DO (X; Y); Z",
            ["CREATE RULE r AS ON INSERT TO a DO (X; Y)", "Z"],
        ),
        (CLICKHOUSE, "SELECT '\\';'; X", ["SELECT '\\';'", "X"]),
    ],
)
def test_a_text_is_cut_into_its_statements(dialect: Dialect, sql: str, texts: list[str]) -> None:
    assert [statement.text for statement in split(sql, dialect)] == texts


@pytest.mark.parametrize(
    ("sql", "keyword", "verb", "transaction"),
    [
        ("-- c\n /* d */ ( (select 1))", "SELECT", "SELECT", None),
        ("with a as (select 1) insert into b select * from a", "WITH", "INSERT", None),
        ("WITH a AS (DELETE FROM b) SELECT 1", "WITH", "SELECT", None),
        ("begin immediate", "BEGIN", "BEGIN", "begin"),
        ("START TRANSACTION READ ONLY", "START", "START", "begin"),
        ("start replica", "START", "START", None),
        ("Commit", "COMMIT", "COMMIT", "commit"),
        ("END", "END", "END", "commit"),
        ("ROLLBACK", "ROLLBACK", "ROLLBACK", "rollback"),
        ("ROLLBACK WORK", "ROLLBACK", "ROLLBACK", "rollback"),
        ("ROLLBACK TRANSACTION TO SAVEPOINT a", "ROLLBACK", "ROLLBACK", "savepoint"),
        ("ABORT", "ABORT", "ABORT", "rollback"),
        ("RELEASE a", "RELEASE", "RELEASE", "savepoint"),
        ("COMMIT PREPARED 'a'", "COMMIT", "COMMIT", None),
        ("'text'", "", "", None),
    ],
)
def test_a_statement_tells_what_it_is(
    sql: str, keyword: str, verb: str, transaction: str | None
) -> None:
    (statement,) = split(sql, POSTGRES)
    assert (statement.keyword, statement.verb, statement.transaction) == (
        keyword,
        verb,
        transaction,
    )


@pytest.mark.parametrize("dialect", Dialect)
@given(st.lists(st.sampled_from(["SELECT 1", "X ';'", "Y /* ; */", 'Z ";"', "BEGIN", "END"])))
def test_joined_statements_come_apart_again(dialect: Dialect, texts: list[str]) -> None:
    assert [statement.text for statement in split(" ;\n".join(texts), dialect)] == texts

"""The functions that a SELECT may call outside of a transaction.

Such functions change and lock nothing.

There is a list of built-in functions for each database. A function that is missing here costs a
transaction that was not needed. A function that is listed by mistake could lose a lock or a
write. When in doubt, leave the function out.
"""

from __future__ import annotations

from collections.abc import Sequence

from trunkline.address.schemes import SCHEMES
from trunkline.sqltext import Dialect, Token

__all__ = ["calls_only_pure", "dialect_of", "is_gap"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BEFORE_PARENTHESES = _names(
    """
    all and any array as between bigint bit by case char character check coalesce cube dec decimal
    distinct double else except exists explain filter float from group grouping having in int integer
    intersect interval is join lateral like limit materialized not null numeric nvarchar of offset on or
    order over real rollup row select some table then time timestamp timestamptz union unique using values
    varbinary varbit varchar varying when where with within
    """
)
"""Keywords and types. A `(` after one of these does not call a user's function."""
_BEFORE_NAMES = _names("as recursive with")
"""A `(` after a name that follows one of these
begins a list of columns: `WITH t(a) AS`, `AS t(a)`.
"""
_WITHOUT_VALUES = {"mysql": _names("found_rows last_insert_id row_count")}
"""Pure only when called without a value: `LAST_INSERT_ID(7)` sets a value."""

_EVERYWHERE = _names(
    """
    abs acos asin atan atan2 avg cast ceil ceiling char_length character_length coalesce concat concat_ws
    cos count cume_dist current_date current_time current_timestamp degrees dense_rank exp extract
    first_value floor greatest lag last_value lead least length ln localtime localtimestamp log lower
    ltrim max min mod now nth_value ntile nullif octet_length percent_rank pi position power radians rank
    replace round row_number rtrim sign sin sqrt substr substring sum tan trim upper
    """
)

_OF = {
    "sqlite3": _names(
        """
    bm25 changes concat date datetime format glob group_concat hex highlight ifnull iif instr json json_array
    json_array_length json_each json_extract json_group_array json_group_object json_insert json_object
    json_patch json_quote json_remove json_replace json_set json_tree json_type json_valid julianday
    last_insert_rowid likelihood likely nullif pragma_database_list pragma_foreign_key_list
    pragma_index_info pragma_index_list pragma_table_info pragma_table_list pragma_table_xinfo printf quote
    random randomblob snippet sqlite_source_id sqlite_version strftime string_agg time timediff total
    total_changes typeof unhex unicode unixepoch unlikely zeroblob
    """
    ),
    "mysql": _names(
        """
    adddate addtime any_value ascii bin bit_and bit_count bit_length bit_or bit_xor charset collation
    connection_id conv convert convert_tz crc32 curdate current_role current_user curtime database date
    date_add date_format date_sub datediff day dayname dayofmonth dayofweek dayofyear elt field find_in_set
    format from_base64 from_days from_unixtime group_concat hex hour if ifnull ignore inet6_aton inet6_ntoa
    inet_aton inet_ntoa instr isnull json_array json_array_append json_arrayagg json_contains
    json_contains_path json_depth json_extract json_insert json_keys json_length json_merge_patch
    json_object json_objectagg json_quote json_remove json_replace json_search json_set json_table json_type
    json_unquote json_valid json_value last_day lcase left locate lpad makedate maketime match md5
    microsecond mid minute month monthname oct ord partition percentile_cont percentile_disc period_add
    period_diff quarter quote rand regexp_instr regexp_like regexp_replace regexp_substr repeat reverse right
    rpad schema sec_to_time second session_user sha sha1 sha2 soundex space std stddev stddev_pop
    stddev_samp str_to_date strcmp subdate substring_index subtime sysdate system_user time_format
    time_to_sec timediff timestampadd timestampdiff to_base64 to_days to_seconds truncate ucase unhex
    unix_timestamp user utc_date utc_time utc_timestamp uuid var_pop var_samp variance version week weekday
    weekofyear year yearweek
    """
    ),
    "postgres": _names(
        """
    age array_agg array_append array_cat array_length array_lower array_position array_prepend array_remove
    array_replace array_to_json array_to_string array_upper ascii bit_and bit_or bool_and bool_or btrim
    cardinality cbrt chr clock_timestamp col_description corr current_database current_schema
    current_schemas current_setting currval date_bin date_part date_trunc decode div encode every format
    format_type gen_random_uuid generate_series generate_subscripts has_any_column_privilege
    has_schema_privilege has_table_privilege initcap isfinite json_agg json_array_elements json_array_length
    json_build_array json_build_object json_each json_each_text json_object_agg jsonb_agg
    jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object
    jsonb_each jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object_agg
    jsonb_object_keys jsonb_path_exists jsonb_path_query jsonb_path_query_array jsonb_path_query_first
    jsonb_pretty jsonb_set jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof lastval left
    lpad make_date make_interval make_time make_timestamp make_timestamptz md5 mode num_nonnulls num_nulls
    obj_description overlay percentile_cont percentile_disc pg_backend_pid pg_column_size pg_database_size
    pg_encoding_to_char pg_get_constraintdef pg_get_expr pg_get_functiondef pg_get_indexdef
    pg_get_serial_sequence pg_get_userbyid pg_get_viewdef pg_is_in_recovery pg_relation_size pg_size_pretty
    pg_table_is_visible pg_table_size pg_total_relation_size pg_type_is_visible pg_typeof plainto_tsquery
    quote_ident quote_literal quote_nullable random regexp_match regexp_matches regexp_replace
    regexp_split_to_array regexp_split_to_table repeat reverse right row_to_json rpad sha256
    shobj_description split_part starts_with statement_timestamp stddev stddev_pop stddev_samp string_agg
    string_to_array strpos timeofday to_char to_date to_hex to_json to_jsonb to_number to_regclass
    to_regtype to_timestamp to_tsquery to_tsvector transaction_timestamp translate trunc ts_rank unnest
    var_pop var_samp variance version websearch_to_tsquery width_bucket
    """
    ),
}
_OF["postgresql"] = _OF["postgres"]

_DIALECTS_OF = {
    name: Dialect(row.dialect)
    for row in SCHEMES.values()
    if row.dialect
    for name in (row.name, *row.aliases)
}


def dialect_of(scheme: str) -> Dialect:
    """The dialect by whose rules the statements of a scheme are read.

    STANDARD for a scheme that is not Trunkline's.
    """
    return _DIALECTS_OF.get(scheme, Dialect.STANDARD)


def is_gap(token: Token) -> bool:
    """Whether a piece of a text is blank or a comment."""
    return token.separates()


def calls_only_pure(pieces: Sequence[Token], scheme: str) -> bool:
    """Whether each function that a text calls is known to change and lock nothing.

    `pieces`: the text's tokens without blanks and comments.

    A quoted name counts as a user's function. So does a name with a schema other than
    `pg_catalog`. A user's function that overloads a built-in name is not noticed.
    """
    calls = (index for index, token in enumerate(pieces) if index and token == _OPENS)
    return all(_is_harmless(pieces, index, scheme) for index in calls)


_OPENS, _CLOSES = Token("other", "("), Token("other", ")")


def _is_harmless(pieces: Sequence[Token], index: int, scheme: str) -> bool:
    """Whether the `(` at `index` calls no function, or a function that is known to be pure."""
    kind, text = pieces[index - 1]
    if kind != "word":
        # In MySQL a name may begin with a digit.
        return kind != "quoted" and not text[-1:].isalnum()
    name = text.lower()
    before = [piece.text.lower() for piece in pieces[max(0, index - 4) : index - 1]]
    if before[-1:] == ["."]:
        if (
            before[-2:-1] != ["pg_catalog"]
            or before[-3:-2] == ["."]
            or not scheme.startswith("postgres")
        ):
            return False
    elif before and before[-1] in _BEFORE_NAMES:
        return True
    elif before[-1:] == ["$"]:
        return False
    if name in _WITHOUT_VALUES.get(scheme, ()):
        return pieces[index + 1 : index + 2] == [_CLOSES]
    return name in _EVERYWHERE or name in _OF.get(scheme, ()) or name in _BEFORE_PARENTHESES

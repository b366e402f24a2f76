"""Headers: what is packed comes back, and what is no header is refused in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import RemoteError
from trunkline.wire.envelope import REQUESTS, VERSION, Kind, header, kind_of, parse

FIELDS = st.lists(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    max_size=6,
)


@given(st.sampled_from(list(Kind)), st.integers(0, 2**31 - 1), FIELDS)
def test_a_header_comes_back(kind: Kind, request_id: int, fields: list[object]) -> None:
    frame = header(kind, request_id, *fields)
    assert frame[0] == VERSION
    assert kind_of(frame) == kind
    assert parse(frame) == (kind, request_id, fields)


@given(st.binary(max_size=40))
def test_what_is_no_header_is_refused(data: bytes) -> None:
    try:
        kind, request_id, fields = parse(data)
    except RemoteError:
        return
    assert parse(header(kind, request_id, *fields)) == (kind, request_id, fields)


@pytest.mark.parametrize(
    "frame", [b"", b"\x02\x93\x01\x00", b"\x01", b"\x01\xc1", b"\x01\x92\x7f\x00"]
)
def test_versions_and_rubbish(frame: bytes) -> None:
    with pytest.raises(RemoteError):
        parse(frame)


def test_another_version_says_what_to_do() -> None:
    with pytest.raises(RemoteError, match="same release"):
        parse(b"\x07" + header(Kind.BEAT)[1:])


def test_numbers_of_kinds_stay_below_128_and_unique() -> None:
    assert all(0 < kind < 128 for kind in Kind)
    assert len({kind.value for kind in Kind}) == len(Kind.__members__)
    assert kind_of(b"") == -1
    assert Kind.WRITE in REQUESTS
    assert Kind.READ not in REQUESTS

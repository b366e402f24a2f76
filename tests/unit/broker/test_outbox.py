"""What the broker says, as frames."""

from __future__ import annotations

from trunkline.broker.directory import Connection
from trunkline.broker.incoming import Incoming
from trunkline.broker.outbox import Outbox
from trunkline.errors import DeadHandle
from trunkline.wire import values
from trunkline.wire.envelope import BROKER, Kind, header, parse


def listening() -> tuple[Outbox, list[list[bytes]]]:
    heard: list[list[bytes]] = []

    def send(frames: list[bytes]) -> bool:
        heard.append(frames)
        return frames[0] != b"gone"

    return Outbox(send), heard


def made() -> Connection:
    connection = Connection(b"12345678", 1, {}, restart=True, linger_s=0.0)
    connection.holders = {b"a": b"control", b"b": b"control"}
    connection.reason = "because"
    return connection


def test_a_word_has_its_sender_and_says_whether_it_arrives() -> None:
    outbox, heard = listening()
    assert outbox.say(b"a", Kind.BEAT, 0, 7)
    assert not outbox.say(b"gone", Kind.GONE, 2, sender=b"12345678")
    assert heard == [
        [b"a", BROKER, header(Kind.BEAT, 0, 7)],
        [b"gone", b"12345678", header(Kind.GONE, 2)],
    ]


def test_answers_have_the_id_of_their_question() -> None:
    outbox, heard = listening()
    question = Incoming(b"a", Kind.LIST, 9, [], [])
    outbox.reply(question, {"x": 1})
    outbox.refuse(question, Kind.ERROR, DeadHandle("gone"))
    reply, refusal = heard
    assert parse(reply[2])[:2] == (Kind.REPLY, 9)
    assert values.unpack(reply[3]) == {"x": 1}
    kind, request_id, [error] = parse(refusal[2])
    assert (kind, request_id, error["name"], error["text"]) == (Kind.ERROR, 9, "DeadHandle", "gone")


def test_each_holder_is_told_of_the_end_in_the_name_of_the_connection() -> None:
    outbox, heard = listening()
    outbox.tell_holders(made(), final=True)
    assert [frames[:2] for frames in heard] == [[b"a", b"12345678"], [b"b", b"12345678"]]
    assert parse(heard[0][2])[2] == [False, "because", 1]


def test_a_line_goes_once_to_each_program_that_holds_or_else_uses_it() -> None:
    outbox, heard = listening()
    connection = made()
    connection.users = {b"control", b"user"}
    outbox.log_for_users(connection, "slow")
    connection.holders.clear()
    outbox.log_for_users(connection, "slower", level="error")
    assert [frames[0] for frames in heard[:1]] == [b"control"]
    assert {frames[0] for frames in heard[1:]} == {b"control", b"user"}
    assert parse(heard[1][2])[2] == ["error", "slower"]

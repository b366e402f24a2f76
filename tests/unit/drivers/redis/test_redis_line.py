"""One connection to a Redis server, and what of redis-py's inside it rests on."""

from __future__ import annotations

import asyncio
import inspect

import pytest
import redis.exceptions as library
from redis.asyncio.connection import AbstractConnection, Connection

from tests.servers.redis import Redis
from trunkline.actors.drivers.redis.line import Commands, Line
from trunkline.actors.drivers.redis.plan import Login
from trunkline.address import parse_address
from trunkline.deadline import Deadline

NOBODY = Login(None, None)


def test_redis_py_takes_its_socket_as_we_give_it() -> None:
    source = inspect.getsource(Connection._connect)
    assert "self._reader" in source
    assert "self._writer" in source
    assert inspect.iscoroutinefunction(AbstractConnection._connect)
    assert not inspect.iscoroutinefunction(AbstractConnection._host_error)


async def opened(server: Redis, ended: list[BaseException]) -> Commands:
    line = Line(
        parse_address(f"redis://{server.address}?channel=c"),
        ("127.0.0.1", server.port),
        NOBODY,
        0,
        None,
    )
    await line.dial(Deadline(10))
    return Commands(line, ended.append)


def test_answers_come_in_the_order_of_the_commands(redis_server: Redis) -> None:
    async def body() -> None:
        name, ended = redis_server.unique(), list[BaseException]()
        commands = await opened(redis_server, ended)
        answers = [commands.call("APPEND", name, b"x" * 1000) for _ in range(50)]
        wrong = commands.call("XLEN", name)
        last = commands.call("PING")
        assert [await answer for answer in answers] == [1000 * n for n in range(1, 51)]
        with pytest.raises(library.ResponseError, match="WRONGTYPE"):
            await wrong
        assert await last == b"PONG"
        assert commands.line.traffic().received > 100
        await commands.close()
        assert not ended

    asyncio.run(body())


def test_who_waits_for_an_answer_is_told_of_the_end(redis_server: Redis) -> None:
    async def body() -> None:
        ended = list[BaseException]()
        commands = await opened(redis_server, ended)
        waiting = commands.call("BLPOP", redis_server.unique(), 0)
        number = await (other := await opened(redis_server, [])).call(
            "CLIENT LIST", "TYPE", "normal"
        )
        assert b"blpop" in number
        blocked = next(row for row in number.decode().splitlines() if "cmd=blpop" in row)
        await other.call("CLIENT KILL", "ID", blocked.split()[0].removeprefix("id="))
        with pytest.raises(ConnectionError, match="may have arrived"):
            await waiting
        assert "closed the connection" in str(ended[0])
        with pytest.raises(ConnectionError, match="the link is gone"):
            commands.call("PING")
        await commands.close()
        await other.close()

    asyncio.run(body())

"""Asking brokers what they hold, without becoming one of their clients.

A client says HELLO and keeps an automatically started broker alive; these sockets only ask LIST and
KILL. No broker is ever started, and one that does not answer within the deadline is named, not waited for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq

from trunkline import runtime
from trunkline.channel import Channel
from trunkline.deadline import Deadline
from trunkline.errors import BrokerGone, RemoteError
from trunkline.wire import values
from trunkline.wire.envelope import BROKER, Kind

__all__ = ["ANSWER_S", "Broker", "Listing", "ask", "find_brokers", "kill", "listing", "short_names"]

ANSWER_S = 2.0


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker's answer to LIST."""

    address: str
    name: str
    """Enough of its folder's name to tell it from the others."""
    pid: int
    zygote: int
    connections: list[dict[str, Any]]
    clients: list[int]


@dataclass(frozen=True, slots=True)
class Listing:
    """All brokers of this user, and what is wrong with those that could not be asked."""

    brokers: list[Broker] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    silent: bool = False
    """A broker that is there did not answer."""

    def rows(self) -> Iterator[tuple[str, Broker, dict[str, Any]]]:
        """Every connection with the id that `trunkline kill` takes: `broker:id` where there are several."""
        for broker in self.brokers:
            for row in broker.connections:
                plain = str(row["id"])
                yield (plain if len(self.brokers) == 1 else f"{broker.name}:{plain}"), broker, row


def find_brokers() -> tuple[list[str], list[str]]:
    """The addresses of this user's living brokers, the one TRUNKLINE_BROKER names among them, and what is
    wrong with that."""
    troubles = []
    found = _listed()
    named = os.environ.get(runtime.ENV)
    if named and named not in found:
        try:
            if runtime.alive(named):
                found.append(named)
            else:
                troubles.append(f"no broker runs at {named} ({runtime.ENV})")
        except (BrokerGone, OSError) as error:
            troubles.append(str(error))
    return found, troubles


def _listed() -> list[str]:
    try:
        return runtime.brokers()
    except FileNotFoundError:  # one ended between two looks
        return runtime.brokers()
    except PermissionError as error:
        raise BrokerGone(f"{runtime.root()} cannot be read ({error.strerror}); it should be yours") from None


def short_names(addresses: Sequence[str]) -> dict[str, str]:
    """A short name for each address: four characters of its folder's name, more where they are not enough."""
    whole = {address: runtime.folder_of(address).name.removeprefix("b-") for address in addresses}
    length = 4
    while len({name[:length] for name in whole.values()}) < len(set(whole.values())):
        length += 1
    return {address: name[:length] for address, name in whole.items()}


def listing(timeout_s: float = ANSWER_S) -> Listing:
    """Ask all brokers at once."""
    addresses, troubles = find_brokers()
    names = short_names(addresses)
    answers = ask(dict.fromkeys(addresses, (Kind.LIST, ())), timeout_s)
    brokers = []
    for address in addresses:
        answer = answers.get(address)
        if isinstance(answer, dict):
            known = (answer["pid"], answer.get("zygote", 0), answer["connections"], answer.get("clients", []))
            brokers.append(Broker(address, names[address], *known))
        elif runtime.alive(address):
            why = "does not answer" if answer is None else str(answer)
            troubles.append(f"the broker at {address} {why}; `trunkline doctor` tells more")
    silent = any("the broker at" in trouble for trouble in troubles)
    return Listing(brokers, troubles, silent)


def kill(address: str, number: str, timeout_s: float = ANSWER_S) -> bool:
    """End a connection; False when the broker has none of that number. Raises BrokerGone."""
    answer = ask({address: (Kind.KILL, (number,))}, timeout_s).get(address)
    if not isinstance(answer, bool):
        raise BrokerGone(f"the broker at {address} does not answer; `trunkline doctor` tells more")
    return answer


def ask(requests: dict[str, tuple[Kind, tuple[Any, ...]]], timeout_s: float) -> dict[str, Any]:
    """Send one request to each broker and collect the answers that come in time: plain data, or the
    error of a broker that speaks another version."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    channels: dict[Any, tuple[str, Channel]] = {}
    try:
        for address, (kind, fields) in requests.items():
            channel = Channel(context, address, 0)
            channel.send(BROKER, kind, 1, fields)
            channels[channel.socket] = (address, channel)
        return dict(_answers(channels, Deadline(timeout_s)))
    finally:
        for _, channel in channels.values():
            channel.close()
        context.term()


def _answers(channels: dict[Any, tuple[str, Channel]], deadline: Deadline) -> Iterator[tuple[str, Any]]:
    poller = zmq.Poller()
    for socket in channels:
        poller.register(socket, zmq.POLLIN)
    waiting = len(channels)
    while waiting and not deadline.expired():
        for socket, _ in poller.poll(deadline.left_ms()):
            address, channel = channels[socket]
            answer = _answer(channel)
            if answer is not None:
                poller.unregister(socket)
                waiting -= 1
                yield address, answer


def _answer(channel: Channel) -> Any:
    try:
        received = channel.receive(0)
        if received is None or received[1] is not Kind.REPLY:
            return None
        return values.unpack(received[4][0])
    except (RemoteError, ValueError, IndexError) as error:
        return error

"""Asking brokers about their connections, without becoming a client of the brokers.

A client says HELLO, and an automatically started broker lives as long as its clients. The sockets
of this module only ask LIST and KILL. They never start a broker. A broker without an answer by the
deadline is reported as silent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq

from trunkline.deadline import Deadline
from trunkline.errors import BrokerGone, RemoteError
from trunkline.proxy.discovery import Found, Scope, find_brokers
from trunkline.proxy.route import RouterRoute
from trunkline.wire import endpoint, values
from trunkline.wire.envelope import BROKER, Kind

__all__ = ["ANSWER_S", "Broker", "Listing", "Silent", "ask", "kill", "listing", "short_names"]

ANSWER_S = 2.0
"""The default time in seconds for the answers."""


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker's answer to LIST."""

    address: str
    name: str
    """The shortest beginning of the folder's name, of four characters or more, that no other broker
    has."""
    pid: int
    zygote: int
    connections: list[dict[str, Any]]
    clients: list[int]
    addressed: bool = True
    """Whether TRUNKLINE_BROKER or TRUNKLINE_RUNTIME names this broker; True where neither is
    set."""

    def goes_by(self, name: str) -> bool:
        """Whether `name` means this broker.

        The name in `trunkline ps` grows with the number of brokers: by further characters of the
        folder's name, or by a mark. All forms are accepted.
        """
        part, tilde, mark = name.partition("~")
        if tilde and mark != _mark(self.address):
            return False
        return bool(part) and _whole_name(self.address).startswith(part)


@dataclass(frozen=True, slots=True)
class Silent:
    """A living broker without an answer."""

    address: str
    why: str
    pid: int
    """The broker's process; 0 where the system does not tell."""
    addressed: bool

    def __str__(self) -> str:
        return f"the broker at {self.address} {self.why}; `trunkline doctor` tells more"


@dataclass(frozen=True, slots=True)
class Listing:
    """All brokers of this user, and the troubles with those that could not be asked."""

    brokers: list[Broker] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    """A sentence for each place without a usable broker, where the environment names the place or
    the place looks like a broker's."""
    silent: list[Silent] = field(default_factory=list)
    scope: Scope = field(default_factory=Scope.of_environment)

    def complaints(self) -> list[str]:
        """A sentence for each trouble and each silent broker."""
        return [*self.troubles, *map(str, self.silent)]

    def is_failed(self) -> bool:
        """Whether a broker named by the environment did not answer. Without such names: whether any
        did not."""
        return any(each.addressed for each in self.silent)

    def rows(self) -> Iterator[tuple[str, Broker, dict[str, Any]]]:
        """Every connection: its id for `trunkline kill`, its broker, and its row of figures.

        The id is a plain number where only one broker can be meant: the only broker, or the only
        broker named by the environment. Otherwise the id is `broker:number`.
        """
        for broker in self.brokers:
            for row in broker.connections:
                yield self.shown_id(broker, str(row["id"])), broker, row

    def shown_id(self, broker: Broker, number: str) -> str:
        """The id of connection `number` of a broker, for `trunkline kill`."""
        return number if broker is self.plain_broker() else f"{broker.name}:{number}"

    def plain_broker(self) -> Broker | None:
        """The broker meant by a plain number; None where several brokers could be meant."""
        meant = [each for each in self.brokers if each.addressed]
        return meant[0] if len(meant) == 1 else None


def short_names(addresses: Sequence[str]) -> dict[str, str]:
    """A short name for each address: the first four characters of the folder's name, or more if
    necessary.

    Equal folder names in different places also get a mark, made from the address.
    """
    whole = {address: _whole_name(address) for address in addresses}
    length = 4
    while len({name[:length] for name in whole.values()}) < len(set(whole.values())):
        length += 1
    twice = {name for name in whole.values() if list(whole.values()).count(name) > 1}
    return {
        address: f"{name[:length]}~{_mark(address)}" if name in twice else name[:length]
        for address, name in whole.items()
    }


def _whole_name(address: str) -> str:
    """The name of a broker's folder, without its prefix."""
    return endpoint.folder_of(address).name.removeprefix("b-")


def _mark(address: str) -> str:
    """Four characters that tell addresses with equal folder names apart."""
    return hashlib.sha256(address.encode(errors="surrogateescape")).hexdigest()[:4]


def listing(timeout_s: float = ANSWER_S) -> Listing:
    """Ask all brokers of this user at the same time. `timeout_s`: seconds for all answers
    together."""
    found, troubles = find_brokers()
    result = Listing(troubles=troubles)
    names = short_names([each.address for each in found])
    answers = ask({each.address: (Kind.LIST, ()) for each in found}, timeout_s)
    for each in found:
        answer = answers.get(each.address)
        addressed = result.scope.holds(each.address)
        if isinstance(answer, dict):
            result.brokers.append(_broker(each, names[each.address], answer, addressed))
        elif endpoint.alive(each.address):
            why = "does not answer" if answer is None else str(answer)
            result.silent.append(Silent(each.address, why, each.pid or 0, addressed))
    return result


def _broker(found: Found, name: str, answer: dict[str, Any], addressed: bool) -> Broker:
    """The broker of an answer to LIST."""
    return Broker(
        address=found.address,
        name=name,
        pid=found.pid or answer["pid"],
        zygote=answer.get("zygote", 0),
        connections=answer["connections"],
        clients=answer.get("clients", []),
        addressed=addressed,
    )


def kill(address: str, number: str, timeout_s: float = ANSWER_S) -> bool:
    """End a connection. Returns False when the broker has none of that number. Raises
    BrokerGone."""
    answer = ask({address: (Kind.KILL, (number,))}, timeout_s).get(address)
    if not isinstance(answer, bool):
        raise BrokerGone(f"the broker at {address} does not answer; `trunkline doctor` tells more")
    return answer


def ask(requests: dict[str, tuple[Kind, tuple[Any, ...]]], timeout_s: float) -> dict[str, Any]:
    """Send a request to each broker, and collect the answers for `timeout_s` seconds.

    Returns the answers by address: plain data, or the error of a broker of another version. A
    broker without an answer is left out.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    routers: dict[Any, tuple[str, RouterRoute]] = {}
    try:
        for address, (kind, fields) in requests.items():
            router = RouterRoute(context, address, 0)
            router.send(BROKER, kind, 1, fields)
            routers[router.socket] = (address, router)
        return dict(_answers(routers, Deadline(timeout_s)))
    finally:
        for _, router in routers.values():
            router.close()
        context.term()


def _answers(
    routers: dict[Any, tuple[str, RouterRoute]], deadline: Deadline
) -> Iterator[tuple[str, Any]]:
    """The address and the answer of each broker, as the answers come."""
    poller = zmq.Poller()
    for socket in routers:
        poller.register(socket, zmq.POLLIN)
    waiting = len(routers)
    while waiting and not deadline.expired():
        for socket, _ in poller.poll(deadline.left_ms()):
            address, router = routers[socket]
            answer = _answer(router)
            if answer is not None:
                poller.unregister(socket)
                waiting -= 1
                yield address, answer


def _answer(router: RouterRoute) -> Any:
    """Read a message: the answer as plain data, the error of an unreadable message, or None."""
    try:
        received = router.receive(0)
        if received is None or received.kind is not Kind.REPLY:
            return None
        return values.unpack(received.body[0])
    except (RemoteError, ValueError, IndexError) as error:
        return error

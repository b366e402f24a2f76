"""How paho-mqtt is used: its bytes go over Trunkline's tcp, tls or ws driver, on the worker's event
loop.

So host names, proxies, `local_ip`, certificates, deadlines and error texts are the same as for
every scheme, and nothing blocks. `Client` is the only place that uses private names of paho, and
only where a promise cannot be kept otherwise. `tests/unit/drivers/mqtt/test_mqtt_driver.py` fails
when an update of paho removes a name:

* `_create_socket`: gives paho the socket of this module.
* `_packet_handle`, `_in_packet`, `_send_pubrec`: messages are read by `packet`, which no message
  can stop. Three more reasons. paho sends PUBREC when a QoS 2 message arrives, and the broker then
  forgets the message before any reader has had it. paho ignores a broker's refusal of a message
  (PUBREC with a reason of MQTT 5), and rejects unknown reasons. paho collects a too big packet
  completely before its size can be checked.
* `_keepalive`: see `ping_at_least_every`.
* `_last_msg_out`, `_send_pingreq`: see `ping_when_quiet`. `_out_packet`: see `unsent`.
* `_mid_generate`: makes packet ids that are not in doubt since a former link.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.exception import MalformedPacket

from trunkline.actors.driver import Delivery, Ending, FatalError, StreamDriver
from trunkline.actors.drivers.mqtt.packet import Publish, Unreadable, read_publish
from trunkline.actors.drivers.mqtt.plan import ENVELOPE, Plan
from trunkline.actors.drivers.mqtt.session import Session
from trunkline.actors.drivers.sock.driver import TcpDriver, TlsDriver
from trunkline.actors.net.liveness import Traffic
from trunkline.address import Address
from trunkline.deadline import Deadline
from trunkline.errors import DialError

__all__ = ["Client", "Owner", "PahoSocket"]

_PUBLISH, _PUBACK, _PUBREC, _PUBREL, _PUBCOMP, _CONNACK = 0x30, 0x40, 0x50, 0x60, 0x70, 0x20
_QOS_BITS = 0x06
_FAILURE = 0x80
_DRAIN_S = 0.4
_HEAD = 2 + 65_535 + 2
"""How many bytes of a too big message are kept: enough for the longest topic and the packet id."""
_LEAST_FRAME = 16 * 1024 * 1024
"""Over WebSocket a packet may be a single message, and is in memory before the check of its
size.
"""
_PIECE = 256 * 1024
"""The most bytes that are handed over at a time. The rest of a big message waits until the peer has
taken them.
"""


class Owner(Protocol):
    """The receiver of a socket's reports."""

    def readable(self) -> None:
        """Bytes have come."""

    def writable(self) -> None:
        """The bytes handed over last have gone out."""

    def lost(self, reason: BaseException | None) -> None:
        """The link is gone, or the peer does not speak MQTT."""

    def warn(self, text: str) -> None:
        """Write one line to the user's log."""


class PahoSocket:
    """A connected, non-blocking socket for paho, and the sink of a Trunkline driver that carries
    the bytes.
    """

    def __init__(self, address: Address, host: str, port: int, owner: Owner) -> None:
        self.peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._owner = owner
        self._scheme = address.scheme
        self._driver = _carrier(address, host, port, self)
        self._inbox = bytearray()
        self._spoken = False
        self._sending: asyncio.Task[None] | None = None
        self._gathered: list[bytes] | None = None
        self.in_hand = 0
        """How many bytes wait for the driver to take them."""

    async def open(self, deadline: Deadline) -> None:
        """Connect. Raises DialError."""
        try:
            await self._driver.open(deadline)
        except FatalError:
            raise
        except DialError as error:
            if "TLS" not in str(error):
                raise
            secure, plain = ("wss+mqtt", "ws+mqtt") if "+" in self._scheme else ("mqtts", "mqtt")
            raise type(error)(
                f"{error}; is this {secure}? use {plain}:// or the TLS port", code=error.code
            ) from None

    async def shut(self, ending: Ending) -> None:
        """Send the bytes handed over and close, within about a second.

        At once where the link counts as lost.

        Idempotent.
        """
        if ending is not Ending.LOST:
            await self.drain()
        if self._sending is not None:
            self._sending.cancel()
        await self._driver.end(ending)

    async def drain(self) -> None:
        """Wait until the socket takes more, at most 0.4 s."""
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=_DRAIN_S)

    def traffic(self) -> Traffic | None:
        """The figures of `StreamDriver.traffic`."""
        return self._driver.traffic()

    def pause(self) -> None:
        """Stop reading; some bytes may still come."""
        self._driver.pause()

    def resume(self) -> None:
        """Read again."""
        self._driver.resume()

    # methods that paho calls

    def recv(self, size: int) -> bytes:
        """Return received bytes; BlockingIOError for an empty inbox, as paho expects."""
        if not self._inbox:
            raise BlockingIOError
        data = bytes(self._inbox[:size])
        del self._inbox[:size]
        return data

    def send(self, data: bytes | bytearray) -> int:
        """Take a piece of the bytes, and return its length. BlockingIOError while an earlier piece
        waits.
        """
        if self._sending is not None:
            raise BlockingIOError
        piece = bytes(data[:_PIECE])
        if self._gathered is None:
            self._hand_over(piece)
        else:
            self._gathered.append(piece)
        return len(piece)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Join the packets that paho sends inside the block, and hand them over in one piece."""
        self._gathered = []
        try:
            yield
        finally:
            gathered, self._gathered = self._gathered, None
            if gathered:
                with contextlib.suppress(OSError):  # the driver itself reports its end
                    self._hand_over(b"".join(gathered))

    def _hand_over(self, piece: bytes) -> None:
        """Give a piece to the driver. Where the driver would wait, a task does the waiting."""
        sending = self._driver.send(piece, Deadline(None))
        if self._driver.would_wait(len(piece)):
            self._sending = asyncio.get_running_loop().create_task(self._finish(sending))
            self.in_hand = len(piece)
        else:
            with contextlib.suppress(StopIteration):
                # The coroutine will not wait: a single step runs it to the end.
                sending.send(None)

    async def _finish(self, sending: Any) -> None:
        """Wait until the driver has taken the piece. Runs as a task."""
        with contextlib.suppress(OSError):  # the driver itself reports its end
            await sending
        self._sending = None
        self.in_hand = 0
        self._owner.writable()

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        """Do nothing: the socket never blocks."""

    def close(self) -> None:
        """Do nothing: `shut` closes, after the last packet has gone out."""

    @property
    def is_busy(self) -> bool:
        """Whether the socket takes nothing now. `Owner.writable` is called when it does again."""
        return self._sending is not None

    @property
    def has_bytes(self) -> bool:
        return bool(self._inbox)

    # methods that the driver calls (`Sink`)

    def message(self, data: str | bytes) -> None:
        self.messages((data,))

    def messages(self, batch: Sequence[str | bytes]) -> None:
        """Keep received bytes for paho. The first byte shows whether the peer speaks MQTT."""
        for part in batch:
            self._inbox += part if isinstance(part, bytes) else part.encode()
        if self._inbox and not self._spoken:
            self._spoken = True
            if self._inbox[0] != _CONNACK:
                self._owner.lost(
                    FatalError(f"{self.peer} does not speak MQTT; check the port and the scheme")
                )
                return
        self._owner.readable()

    def deliver(self, batch: Sequence[Delivery]) -> None:
        self.messages([each.data for each in batch])

    def lost(self, reason: BaseException | None) -> None:
        self._owner.lost(reason)

    def warn(self, text: str) -> None:
        self._owner.warn(text)

    def dropped(self, count: int) -> None:
        """Never called: these drivers drop nothing."""


def _carrier(address: Address, host: str, port: int, sink: PahoSocket) -> StreamDriver:
    """Return the driver that carries the bytes.

    MQTT's user and password do not belong in a WebSocket handshake.
    """
    scheme = {"mqtt": "tcp", "mqtts": "tls", "ws+mqtt": "ws", "wss+mqtt": "wss"}[address.scheme]
    place = f"{scheme}://{sink.peer}"
    plain = replace(
        address, scheme=scheme, target=place, host=host, port=port, user=None, password=None
    )
    if scheme in ("tcp", "tls"):
        return (TlsDriver if scheme == "tls" else TcpDriver)(plain, sink)
    from trunkline.actors.drivers.ws.driver import WsDriver  # imported only when needed

    largest = max(int(address.option("max_size")), _LEAST_FRAME) + ENVELOPE
    options = {**address.options, "subprotocols": ("mqtt",), "max_size": largest}
    return WsDriver(replace(plain, target=place + (address.path or "/mqtt"), options=options), sink)


class Client(paho.Client):
    """paho's client with the changes that the module's docstring lists."""

    def __init__(self, sock: PahoSocket, plan: Plan, session: Session) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=session.client_id,
            clean_session=None if plan.v5 else plan.clean,
            protocol=paho.MQTTv5 if plan.v5 else paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self.max_inflight_messages = 0  # the driver itself holds messages back
        self.on_arrival: Callable[[Publish], None] = lambda message: None
        """Callback for a message that has come."""
        self.on_unreadable: Callable[[Unreadable], None] = lambda error: None
        """Callback for a message that cannot be read."""
        self.on_release: Callable[[int], None] = lambda number: None
        """Callback for a PUBREL: the broker knows that the QoS 2 message with this packet id was
        received.
        """
        self.on_too_big: Callable[[int, int, int], None] = lambda number, qos, size: None
        """Callback for a message over `Plan.largest`, which was left out: packet id, QoS, size in
        bytes.
        """
        self._our_socket = sock
        self._session = session
        self._largest = plan.largest

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Read packets as paho does.

        Of a packet that is too big only the beginning is kept in memory.
        """
        code = super().loop_read(max_packets)
        packet = self._in_packet
        if packet["remaining_length"] > self._largest:
            if packet["command"] & 0xF0 != _PUBLISH:
                raise ValueError(
                    f"a packet of {packet['remaining_length']} bytes that is no message"
                )
            del packet["packet"][_HEAD:]
        return code

    def ping(self) -> None:
        """Send a ping, unless packets are waiting to be sent already."""
        if self.is_connected() and not self.is_blocked():
            self._send_pingreq()

    def unsent(self) -> int:
        """Return how many bytes wait in this process, in front of a ping."""
        return self._our_socket.in_hand + sum(packet["to_process"] for packet in self._out_packet)

    def ping_when_quiet(self) -> None:
        """Send a ping where nothing has been sent for the time of the keepalive.

        paho's own `loop_misc` also ends a link when the answer to a ping does not come in that
        time. The answer may stand behind a long message, so the worker's `LinkWatch` judges that
        instead.
        """
        if self._keepalive and time.monotonic() - self._last_msg_out >= self._keepalive:
            self.ping()

    def ping_at_least_every(self, seconds: int) -> None:
        """Ping at least every so many seconds; 0: as often as the broker says.

        A broker of MQTT 5 may set the keepalive. With a longer one, or none, this side would notice
        a dead broker too late or never.
        """
        if seconds:
            self._keepalive = min(self._keepalive or seconds, seconds)

    def is_blocked(self) -> bool:
        """Whether another packet would have to wait in paho."""
        return self._our_socket.is_busy or self.want_write()

    def received(self, number: int) -> None:
        """Tell the broker that a QoS 2 message was received (PUBREC)."""
        self._send_pubrec(number)

    def _create_socket(self) -> Any:
        return self._our_socket

    def _mid_generate(self) -> int:
        """Return a packet id that neither a waiting message nor the session uses."""
        while (found := self._session.next_id()) in self._out_messages:
            pass
        return found

    def _packet_handle(self) -> MQTTErrorCode:
        """Handle one packet: messages by this module, other packets by paho."""
        packet = self._in_packet
        kind, body = packet["command"] & 0xF0, packet["packet"]
        if packet["remaining_length"] > self._largest:
            return self._left_out()
        if kind == _PUBLISH:
            return self._publish(packet["command"], bytes(body))
        if kind == _PUBREC and len(body) > 2 and body[2] >= _FAILURE:
            packet["command"] = _PUBACK  # ends the message, with its reason
        try:
            code = super()._packet_handle()
        except MalformedPacket:
            if kind not in (_PUBACK, _PUBREC, _PUBREL, _PUBCOMP) or len(body) < 3:
                raise
            # paho cannot read an unusual reason or the properties. Only success or failure matters,
            # so the packet is reduced to that.
            packet["packet"] = body[:2] + (bytes((_FAILURE,)) if body[2] >= _FAILURE else b"")
            code = super()._packet_handle()
        if kind == _PUBREL and len(body) >= 2:
            number = int.from_bytes(body[:2], "big")
            self.on_release(number)
            self.ack(number, 2)
        return code

    def _publish(self, head: int, body: bytes) -> MQTTErrorCode:
        """Read a message and report it. An unreadable message without a packet id ends the link."""
        try:
            message = read_publish(head, body, v5=self._protocol == paho.MQTTv5)
        except Unreadable as error:
            if error.qos and not error.number:
                raise  # cannot be acknowledged, so the link must end
            self.on_unreadable(error)
        else:
            self.on_arrival(message)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _left_out(self) -> MQTTErrorCode:
        """Report a message over the limit. Only the beginning of the packet was kept."""
        packet = self._in_packet
        body, qos = packet["packet"], (packet["command"] & _QOS_BITS) >> 1
        if packet["command"] & 0xF0 != _PUBLISH or qos > 2:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        topic = 2 + int.from_bytes(body[:2], "big")
        before = topic + 2 if qos else topic
        self.on_too_big(
            int.from_bytes(body[topic:before], "big"), qos, packet["remaining_length"] - before
        )
        return MQTTErrorCode.MQTT_ERR_SUCCESS

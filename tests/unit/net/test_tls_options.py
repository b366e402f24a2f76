"""Certificates: checked by default, and every way of failing told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.certs import Certs, Pair
from tests.support.loops import Run, on_both_loops
from tests.support.recorder import Recorder, opened
from tests.support.sockets import SocketServer, say
from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.sock.driver import TlsDriver
from trunkline.actors.net import tls
from trunkline.errors import DialError

pytestmark = on_both_loops


async def greeted(url: str, **options: object) -> None:
    sink = Recorder()
    driver = await opened(TlsDriver, url, sink, **options)
    await sink.until(lambda: sink.stream == b"hello")
    await driver.close()


async def failure(url: str, **options: object) -> DialError:
    with pytest.raises(DialError) as caught:
        await opened(TlsDriver, url, Recorder(), **options)
    return caught.value


def test_a_rightful_server_is_trusted_with_its_authority(run: Run, certs: Certs) -> None:
    with SocketServer(say(b"hello"), tls=certs.server_context()) as server:
        run(greeted(server.url, cafile=str(certs.ca)))
        run(greeted(server.url.replace("127.0.0.1", "localhost"), cafile=str(certs.ca)))


@pytest.mark.parametrize(
    ("which", "why", "remedy"),
    [
        ("server", "it is self-signed|unable to get local issuer", "cafile"),
        ("wrong_host", "it is for another host", "servername"),
        ("expired", "it has expired", "cafile"),
    ],
)
def test_distrust_says_why_and_what_to_give(
    run: Run, certs: Certs, which: str, why: str, remedy: str
) -> None:
    pair: Pair = getattr(certs, which)
    options: dict[str, object] = {} if which == "server" else {"cafile": str(certs.ca)}

    async def body() -> None:
        with pytest.raises(
            FatalError, match=f"127.0.0.1:{server.port} is not trusted: ({why})"
        ) as caught:
            await opened(TlsDriver, server.url, Recorder(), **options)
        assert str(caught.value).endswith(f"give {remedy}=... or insecureSkipVerify=true")

    with SocketServer(say(b"hello"), tls=pair.server_context()) as server:
        run(body())


def test_a_servername_is_what_the_certificate_must_hold(run: Run, certs: Certs) -> None:
    with SocketServer(say(b"hello"), tls=certs.wrong_host.server_context()) as server:
        run(greeted(server.url, cafile=str(certs.ca), servername="somebody.example"))


def test_insecure_skip_verify_takes_any(run: Run, certs: Certs) -> None:
    for pair in (certs.stranger, certs.wrong_host, certs.expired):
        with SocketServer(say(b"hello"), tls=pair.server_context()) as server:
            run(greeted(server.url, insecureSkipVerify=True))


def test_a_client_certificate_is_shown(run: Run, certs: Certs) -> None:
    pair = {"certfile": str(certs.client.cert), "keyfile": str(certs.client.key)}
    with SocketServer(say(b"hello"), tls=certs.server_context(ask_client=True)) as server:
        run(greeted(server.url, cafile=str(certs.ca), **pair))


def test_a_client_certificate_that_is_wanted_and_not_given_is_named(run: Run, certs: Certs) -> None:
    """With TLS 1.3 the server says so when our handshake is done already."""

    async def body() -> None:
        sink = Recorder()
        driver = await opened(TlsDriver, server.url, sink, cafile=str(certs.ca))
        await sink.until(lambda: sink.losses)
        assert (
            tls.lost(sink.losses[0])
            == "the peer wants a client certificate; give certfile= and keyfile="
        )
        await driver.close()

    with SocketServer(say(b"hello"), tls=certs.server_context(ask_client=True)) as server:
        run(body())


def test_files_that_cannot_be_used_are_named_with_their_option(
    run: Run, certs: Certs, tmp_path: Path
) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")

    async def body() -> None:
        for options, says in (
            ({"cafile": "/nowhere/ca.pem"}, "cafile=/nowhere/ca.pem cannot be used: No such file"),
            ({"cafile": str(junk)}, f"cafile={junk} cannot be used: it holds no PEM data"),
            (
                {"certfile": "/nowhere/c.pem"},
                "certfile=/nowhere/c.pem cannot be used: No such file",
            ),
            (
                {"certfile": str(certs.client.cert), "keyfile": str(junk)},
                f"keyfile={junk} cannot be used",
            ),
            ({"keyfile": str(junk)}, "needs a certfile"),
            ({"certfile": str(certs.client.cert)}, "it holds no key; give keyfile="),
            ({"certfile": str(certs.client.key)}, "there is no certificate in the certfile"),
            (
                {"certfile": str(certs.client.cert), "keyfile": str(certs.client.cert)},
                "there is no key in the keyfile",
            ),
        ):
            error = await failure("tls://127.0.0.1:1", **options)
            assert isinstance(error, FatalError)
            assert says in str(error)

    run(body())


def test_a_server_without_tls_is_recognised(run: Run) -> None:
    async def body() -> None:
        error = await failure(f"tls://127.0.0.1:{server.port}", insecureSkipVerify=True)
        assert (
            str(error)
            == f"127.0.0.1:{server.port} did not answer with TLS; check the port and the scheme"
        )

    with SocketServer(say(b"220 plain text here\r\n")) as server:
        run(body())


def test_a_server_that_leaves_in_the_handshake(run: Run) -> None:
    async def body() -> None:
        error = await failure(f"tls://127.0.0.1:{server.port}", insecureSkipVerify=True)
        assert "closed the connection in the TLS handshake" in str(error)
        assert not isinstance(error, FatalError)

    with SocketServer(lambda peer: None) as server:
        run(body())

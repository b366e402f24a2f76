"""ClickHouse: Debian's is an old one, without what came after 2018."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.servers.base import HOST, Server, exactly

__all__ = ["ClickHouse"]

_USERS = """\
<yandex>
  <profiles><default><max_execution_time>40</max_execution_time></default></profiles>
  <users>
    <u><password>p</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>
      <quota>default</quota></u>
    {more}
    <default><password/><networks><ip>127.0.0.1</ip></networks><profile>default</profile>
      <quota>default</quota></default>
  </users>
  <quotas><default/></quotas>
</yandex>
"""
_USER = """\
<{name}><password>{password}</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>
      <quota>default</quota></{name}>
"""


class ClickHouse(Server):
    """Ports: `native` and `tls` (clients), `http`. Users: "u" with the password "p", "default" without.

    `users`: names and passwords of more.
    """

    title = "ClickHouse"
    program = "clickhouse-server"
    install = "install ClickHouse (Debian: apt-get install clickhouse-server)"
    port_names = ("native", "http", "tls")

    def __init__(self, *args: Any, users: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._users = dict(users or {})

    def prepare(self) -> None:
        self.copy_certs()
        more = "".join(_USER.format(name=name, password=word) for name, word in self._users.items())
        self.write("users.xml", _USERS.format(more=more))
        at = self.folder
        self.write(
            "config.xml",
            f"""\
<yandex>
  <logger><level>warning</level><console>1</console></logger>
  <listen_host>{HOST}</listen_host>
  <tcp_port>{self.port}</tcp_port>
  <http_port>{self.ports["http"]}</http_port>
  <tcp_port_secure>{self.ports["tls"]}</tcp_port_secure>
  <openSSL><server>
    <certificateFile>{at}/server.pem</certificateFile><privateKeyFile>{at}/server.key</privateKeyFile>
    <caConfig>{at}/ca.pem</caConfig><verificationMode>none</verificationMode>
  </server></openSSL>
  <path>{at}/data/</path>
  <tmp_path>{at}/tmp/</tmp_path>
  <user_files_path>{at}/files/</user_files_path>
  <format_schema_path>{at}/schemas/</format_schema_path>
  <users_config>{at}/users.xml</users_config>
  <default_profile>default</default_profile>
  <default_database>default</default_database>
  <mark_cache_size>5368709</mark_cache_size>
</yandex>
""",
        )

    def command(self) -> Sequence[str | Path]:
        return [self.available(), f"--config-file={self.folder}/config.xml"]

    def greets(self) -> bool:
        """A login in its native protocol: Hello is answered with Hello."""

        def text(value: str) -> bytes:
            return bytes([len(value)]) + value.encode()

        # Hello, version 1.1, revision 54213 as a varint
        hello = (
            b"\0"
            + text("ready")
            + b"\1\1"
            + b"\xc5\xa7\3"
            + text("default")
            + text("u")
            + text("p")
        )
        with socket.create_connection((HOST, self.port), 5) as sock:
            sock.sendall(hello)
            return exactly(sock, 1) == b"\0"

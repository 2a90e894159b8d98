"""PostgreSQL, MariaDB and Redis of a test's own, with users that sign in in every way."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.postgres import Postgres, a_server
from tests.servers.certificates import Authority, Pair
from tests.servers.program import folder, free_port, program, running

#: What the servers know as the password of the user ``shop``.
PASSWORD = "geheim: p@ss/wörd#1"  # noqa: RUF100,S105 - invented, and hard to write into a URL


@dataclass(frozen=True)
class Server:
    """A server that runs: on a port of this machine, and at a socket."""

    port: int
    socket: Path
    authority: Authority


@contextlib.contextmanager
def a_postgres() -> Iterator[Server]:
    """PostgreSQL with the database ``shop``, and a user for each way to sign in.

    ``shop`` (SCRAM), ``old`` (MD5), ``clear``, ``free`` (trusted), and ``deployer``, who may do
    everything. There are 10 connections, 3 of them reserved.
    """
    authorities = []

    def configure(server: Postgres) -> None:
        authority = Authority(server.folder)
        authorities.append(authority)
        pair = authority.issue("postgres")
        if os.geteuid() == 0:
            shutil.chown(pair.key, "postgres")
        with (server.data / "postgresql.conf").open("a") as file:
            file.write(
                "max_connections = 10\nsuperuser_reserved_connections = 3\nssl = on\n"
                f"ssl_cert_file = '{pair.certificate}'\nssl_key_file = '{pair.key}'\n"
                "autovacuum = off\n"
            )
        (server.data / "pg_hba.conf").write_text(
            "local all all trust\n"
            "host all deployer,free 127.0.0.1/32 trust\n"
            "host all old 127.0.0.1/32 md5\n"
            "host all clear 127.0.0.1/32 password\n"
            "host all gone 127.0.0.1/32 reject\n"
            "host all all 127.0.0.1/32 scram-sha-256\n"
        )

    with a_server(configure) as server:
        import psycopg
        from psycopg import sql

        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE shop")
            for name in ("shop", "old", "clear", "free"):
                how = "md5" if name == "old" else "scram-sha-256"
                connection.execute(f"SET password_encryption = '{how}'")
                command = sql.SQL("CREATE USER {} PASSWORD {}")
                connection.execute(command.format(sql.Identifier(name), sql.Literal(PASSWORD)))
            connection.execute("GRANT CREATE ON DATABASE shop TO shop")
        socket = server.folder / f".s.PGSQL.{server.port}"
        yield Server(server.port, socket, authorities[0])


@contextlib.contextmanager
def a_mariadb() -> Iterator[Server]:
    """MariaDB with the user ``shop`` and the database ``shop``, and little room for connections."""
    daemon = program("mariadbd", "mariadb-server-core")
    install = program("mariadb-install-db", "mariadb-server-core")
    with folder("mariadb") as base:
        authority = Authority(base)
        pair = authority.issue("mariadb")
        data = base / "data"
        options = [f"--datadir={data}", f"--user={getpass.getuser()}"]
        made = subprocess.run(
            [install, "--no-defaults", *options, "--skip-test-db", "--auth-root-socket-user=root"],
            cwd=base,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        start = base / "init.sql"
        start.write_text(
            "CREATE DATABASE shop; CREATE TABLE shop.migrations (version INT);"
            "INSERT INTO shop.migrations VALUES (41), (42);"
            f"CREATE USER shop@localhost IDENTIFIED BY '{PASSWORD}';"
            f"CREATE USER shop@127.0.0.1 IDENTIFIED BY '{PASSWORD}';"
            "GRANT ALL ON shop.* TO shop@localhost, shop@127.0.0.1;"
            f"CREATE USER few@127.0.0.1 IDENTIFIED BY '{PASSWORD}' WITH MAX_USER_CONNECTIONS 1;"
            "CREATE USER nobody@127.0.0.1 IDENTIFIED BY '';\n".replace(";", ";\n")
        )
        port, socket = free_port(), base / "s.sock"
        argv = [
            daemon, "--no-defaults", *options, f"--port={port}", "--bind-address=127.0.0.1",
            f"--socket={socket}", f"--init-file={start}", "--skip-name-resolve",
            "--character-set-server=utf8mb4", f"--pid-file={base}/pid",
            f"--ssl-cert={pair.certificate}", f"--ssl-key={pair.key}",
            f"--ssl-ca={authority.ca_file}", "--innodb-buffer-pool-size=8M",
        ]  # fmt: skip
        with running(argv, "ready for connections", base):
            yield Server(port, socket, authority)


@contextlib.contextmanager
def a_redis(*settings: str, tls: bool = False) -> Iterator[Server]:
    """Redis with these lines of configuration; with ``tls`` its port speaks nothing else."""
    daemon = program("redis-server", "redis-server")
    with folder("redis") as base:
        authority = Authority(base)
        pair: Pair = authority.issue("redis")
        port, socket = free_port(), base / "s.sock"
        lines = ["bind 127.0.0.1", f"unixsocket {socket}", f"dir {base}", 'save ""', *settings]
        if tls:
            lines += ["port 0", f"tls-port {port}", "tls-auth-clients no"]
            lines += [f"tls-cert-file {pair.certificate}", f"tls-key-file {pair.key}"]
            lines += [f"tls-ca-cert-file {authority.ca_file}"]
        else:
            lines += [f"port {port}"]
        configuration = base / "redis.conf"
        configuration.write_text("\n".join(lines) + "\n")
        with running([daemon, str(configuration)], "Ready to accept connections", base):
            yield Server(port, socket, authority)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    """One for the tests of a module."""
    with a_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def mariadb() -> Iterator[Server]:
    """One for the tests of a module."""
    with a_mariadb() as server:
        yield server


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    """One for the tests of a module, with a password and a user of its own."""
    with a_redis(f'user shop on ">{PASSWORD}" ~* +@all', "requirepass default") as server:
        yield server

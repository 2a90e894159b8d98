"""Checks of databases against real ones: PostgreSQL, MariaDB, Redis."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from deployguard.onhost.probes.base import Sample
from deployguard.onhost.protocols import mysql as wire_mysql
from deployguard.onhost.protocols import wire
from deployguard.onhost.system import System
from tests.health.looking import compiled, judged, look, watched
from tests.servers.databases import PASSWORD, Server, a_redis

pytestmark = pytest.mark.usefixtures("passwords")


@pytest.fixture
def passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment of a deploy would hold."""
    monkeypatch.setenv("DB_PASSWORD", PASSWORD)
    monkeypatch.setenv("WRONG_PASSWORD", "not-the-password")
    monkeypatch.setenv("DEFAULT_PASSWORD", "default")


def wrote_no_password(found: Sample) -> bool:
    """Nothing that a look says holds a password."""
    return PASSWORD not in repr(found) and "not-the-password" not in repr(found)


# --- PostgreSQL -----------------------------------------------------------------------------------


def ask_postgres(server: Server, user: str = "shop", **options: Any) -> Sample:
    """One look as a user; ``parameters`` go into the DSN."""
    options.setdefault("password_env", "DB_PASSWORD")
    database = options.pop("database", "shop")
    parameters = options.pop("parameters", "")
    dsn = f"postgresql://{user}@127.0.0.1:{server.port}/{database}{parameters}"
    found = look("postgres", dsn=dsn, **{k: v for k, v in options.items() if v is not None})
    assert wrote_no_password(found)
    return found


@pytest.mark.parametrize("user", ["shop", "old", "clear", "free"])
def test_postgres_lets_us_in_whatever_it_asks_for(postgres: Server, user: str) -> None:
    """SCRAM, MD5, the password itself (which is sent over TLS only), and nothing."""
    found = ask_postgres(postgres, user)
    assert found["state"] == "healthy", found["message"]
    assert "connections in use" in found["message"]
    assert found["observed"]["connections"]["limit"] == 10


def test_postgres_over_tls_and_without(postgres: Server, tmp_path: Path) -> None:
    """A certificate that is asked for has to be good; one that is not is not looked at."""
    ca_file = postgres.authority.ca_file
    for parameters in (
        "?sslmode=disable",
        "?sslmode=require",
        f"?sslmode=verify-ca&sslrootcert={ca_file}",
        f"?sslmode=verify-full&sslrootcert={ca_file}",
    ):
        assert ask_postgres(postgres, parameters=parameters)["state"] == "healthy", parameters
    untrusted = ask_postgres(postgres, parameters="?sslmode=verify-full")
    # A machine without any authority cannot tell.
    assert untrusted["state"] in ("unhealthy", "unknown")
    missing = f"?sslmode=verify-full&sslrootcert={tmp_path}/none.pem"
    found = ask_postgres(postgres, parameters=missing)
    assert found["state"] == "unknown" and "cannot read the CA certificates" in found["message"]


def test_postgres_at_its_socket(postgres: Server) -> None:
    """Where libpq looks for it, by the directory."""
    dsn = f"postgresql://shop@/shop?host={postgres.socket.parent}&port={postgres.port}"
    found = look("postgres", dsn=dsn)
    assert found["state"] == "healthy" and str(postgres.socket) in found["message"]
    found = look("postgres", dsn="postgresql://shop@/shop?host=/no/such/directory")
    assert found["state"] == "unhealthy"
    assert found["message"] == "no PostgreSQL listens at /no/such/directory/.s.PGSQL.5432"


@pytest.mark.parametrize(
    ("user", "options", "words"),
    [
        ("shop", {"password_env": "WRONG_PASSWORD"},
         'refuses shop: password authentication failed for user "shop"; it was given the password '
         "in WRONG_PASSWORD"),
        ("old", {"password_env": "WRONG_PASSWORD"}, "password authentication failed"),
        ("shop", {"password_env": None}, "asks for a password, and the check has none; it was"),
        ("gone", {}, "pg_hba.conf rejects connection"),
        ("free", {"database": "nope"}, 'database "nope" does not exist'),
        ("shop", {"query": "SELECT * FROM nope"}, 'relation "nope" does not exist (42P01)'),
        ("shop", {"query": "CREATE TABLE t (i INT)"}, "in a read-only transaction"),
        ("shop", {"query": "SELECT pg_sleep(100)", "timeout": 0.5},
         "did not answer"),
        ("shop", {"query": "SELECT 41", "expect": "42"}, "the answer is '41', expected '42'"),
        ("shop", {"query": "SELECT NULL", "expect": "42"}, "the answer is empty (NULL)"),
        ("shop", {"query": "SELECT 1 WHERE false", "expect": "42"}, "gives no row"),
    ],
)  # fmt: skip
def test_postgres_is_unhealthy_when_it_refuses(
    postgres: Server, user: str, options: dict[str, Any], words: str
) -> None:
    """It answers, and what it says is what a person needs."""
    found = ask_postgres(postgres, user, **options)
    assert (found["state"], found["final"]) == ("unhealthy", False)
    assert words in found["message"] and f"127.0.0.1:{postgres.port}" in found["message"]


def test_postgres_answers_the_query(postgres: Server) -> None:
    """As text, and what was found is in the evidence."""
    found = ask_postgres(postgres, query="SELECT pg_is_in_recovery(), 7", expect="f")
    assert found["state"] == "healthy" and found["observed"]["value"] == "f"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"user": "clear", "parameters": "?sslmode=disable"}, "add sslmode=require"),
        ({"password_env": None, "password_file": "/no/such/file"}, "cannot read the password in"),
        ({"query": "SELECT generate_series(1, 1000000)"}, "the answer is too large"),
        ({"query": "SELECT repeat('x', 1000000)"}, "the answer is too large"),
        ({"query": "COPY pg_database TO STDOUT"}, "copies data"),
    ],
)
def test_postgres_is_unknown_where_we_cannot_ask(
    postgres: Server, options: dict[str, Any], words: str
) -> None:
    """That says nothing about the server."""
    found = ask_postgres(postgres, **options)
    assert found["state"] == "unknown" and words in found["message"]


def test_postgres_without_connections_left(postgres: Server) -> None:
    """The last connection that is not reserved is gone; before that the check has said so, and
    said who holds them and how it was before the deploy."""
    dsn = f"postgresql://shop@127.0.0.1:{postgres.port}/shop"
    check = compiled(
        {"postgres": {"dsn": dsn, "password_env": "DB_PASSWORD", "free_connections": "30%"}}
    )
    baseline = watched(check, "once")
    assert baseline["check"]["state"] == "healthy"
    assert baseline["check"]["observed"]["connections"]["used"] == 0
    with contextlib.ExitStack() as pool:
        for _ in range(5):
            pool.enter_context(connection(postgres))
        tight = judged(check, "deploy", baseline)
        assert tight["state"] == "unhealthy" and tight["observed"]["connections"]["free"] == 2
        assert (
            "has too few connections left: 5 of 10 connections in use, 2 free beside the 3 "
            "reserved, held 5 by shop (shop v1.2.4); 0 were in use before the deploy; "
            "3 must be free" in tight["message"]
        )
        for _ in range(2):
            pool.enter_context(connection(postgres))
        full = judged(check, "deploy", baseline)
        assert full["state"] == "unhealthy" and full["observed"] == {"code": "53300"}
        assert "has no connection left: remaining connection slots are reserved" in full["message"]
        assert "; 0 were in use before the deploy" in full["message"]
    assert watched(check, "deploy", baseline)["healthy"]


def connection(server: Server) -> psycopg.Connection[Any]:
    """One connection of a pool."""
    return psycopg.connect(
        f"host=127.0.0.1 port={server.port} dbname=shop user=shop application_name='shop v1.2.4'",
        password=PASSWORD,
    )


def test_postgres_behind_something_that_does_not_count() -> None:
    """Who asks for free connections and is not told how many there are knows nothing."""
    dsn = "postgresql://shop@127.0.0.1:%d/shop?sslmode=disable"
    with speaks(_pooler) as port:
        assert look("postgres", dsn=dsn % port)["state"] == "healthy"
    with speaks(_pooler) as port:
        found = look("postgres", dsn=dsn % port, free_connections=1)
    assert found["state"] == "unknown" and "does not say how many connections" in found["message"]


def _pooler(line: socket.socket) -> None:
    """Lets everybody in, and answers every query with an error."""
    line.recv(4096)
    line.sendall(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I")
    while line.recv(4096)[:1] == b"Q":
        line.sendall(b"E\0\0\0\x10C42704\0Mno\0\0" + b"Z\0\0\0\x05I")


# --- MySQL and MariaDB ----------------------------------------------------------------------------


def ask_mysql(server: Server, user: str = "shop", **options: Any) -> Sample:
    """One look as a user."""
    options.setdefault("password_env", "DB_PASSWORD")
    database = options.pop("database", "shop")
    parameters = options.pop("parameters", "")
    dsn = f"mysql://{user}@127.0.0.1:{server.port}/{database}{parameters}"
    found = look("mysql", dsn=dsn, **{k: v for k, v in options.items() if v is not None})
    assert wrote_no_password(found)
    return found


def test_mysql_over_tls_without_and_at_its_socket(mariadb: Server) -> None:
    """With a password, without one, and as whom the kernel says that we are."""
    ca_file = mariadb.authority.ca_file
    for parameters in (
        "",
        "?ssl-mode=DISABLED",
        "?ssl-mode=REQUIRED",
        f"?ssl-mode=VERIFY_IDENTITY&ssl-ca={ca_file}",
        f"?socket={mariadb.socket}",
    ):
        found = ask_mysql(mariadb, parameters=parameters)
        assert found["state"] == "healthy", found["message"]
        assert found["message"].startswith("MariaDB at ")
    assert ask_mysql(mariadb, "nobody", password_env=None, database="")["state"] == "healthy"
    found = ask_mysql(mariadb, parameters="?ssl-mode=VERIFY_IDENTITY")
    assert found["state"] in ("unhealthy", "unknown")


def test_mysql_answers_the_query(mariadb: Server) -> None:
    """As text."""
    found = ask_mysql(mariadb, query="SELECT max(version) FROM migrations", expect="42")
    assert found["state"] == "healthy" and found["observed"]["value"] == "42"
    assert found["observed"]["version"].startswith("10.") or "MariaDB" in str(found["observed"])


@pytest.mark.parametrize("length", [0, 250, 251, 65_535, 65_536, 200_000])
def test_mysql_answers_of_any_length(mariadb: Server, length: int) -> None:
    """Their length is written in one byte, in three or in four."""
    query = f"SELECT repeat('x', {length}), NULL, 'y'"
    assert ask_mysql(mariadb, query=query, expect="x" * length)["state"] == "healthy"
    assert ask_mysql(mariadb, query=query, expect="x" * (length + 1))["state"] == "unhealthy"


@pytest.mark.parametrize(
    ("user", "options", "words"),
    [
        ("shop", {"password_env": "WRONG_PASSWORD"},
         "it was given the password in WRONG_PASSWORD"),
        ("shop", {"password_env": None}, "'shop'@'127.0.0.1'; it was given no password"),
        ("shop", {"database": "nope"}, "does not give shop the database"),
        ("shop", {"query": "SELECT * FROM nope"}, "Table 'shop.nope' doesn't exist (1146)"),
        ("shop", {"query": "INSERT INTO migrations VALUES (1)"}, "READ ONLY transaction"),
        ("shop", {"query": "SELECT SLEEP(100)", "timeout": 0.5},
         "did not answer"),
        ("shop", {"query": "SELECT 41", "expect": "42"}, "the answer is '41', expected '42'"),
        ("shop", {"query": "SELECT NULL", "expect": "42"}, "the answer is empty (NULL)"),
        ("shop", {"query": "SELECT 1 FROM migrations WHERE 0", "expect": "42"}, "gives no row"),
    ],
)  # fmt: skip
def test_mysql_is_unhealthy_when_it_refuses(
    mariadb: Server, user: str, options: dict[str, Any], words: str
) -> None:
    """It answers, and what it says is what a person needs."""
    found = ask_mysql(mariadb, user, **options)
    assert (found["state"], found["final"]) == ("unhealthy", False)
    assert words in found["message"] and f"127.0.0.1:{mariadb.port}" in found["message"]


def test_mysql_without_connections_left(mariadb: Server) -> None:
    """Of this user, who has one; the check's own is one too many then."""
    assert ask_mysql(mariadb, "few", database="")["state"] == "healthy"
    left = wire.countdown(System().monotonic, 10.0)
    line = wire.dial("127.0.0.1", mariadb.port, None, left)
    session = wire_mysql.Session(line)
    greeting = wire_mysql.greet(session)
    wire_mysql.sign_in(session, greeting, "few", "", PASSWORD, ("disable", None, ""))
    try:
        found = ask_mysql(mariadb, "few", database="")
        assert found["state"] == "unhealthy" and "has no connection left" in found["message"]
    finally:
        wire_mysql.hang_up(session)
        line.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"password_env": None, "password_file": "/no/such/file"}, "cannot read the password in"),
        ({"query": "SELECT seq FROM seq_1_to_1000000"}, "the answer is too large"),
        ({"query": "SELECT repeat('x', 1000000)"}, "the answer is too large"),
    ],
)
def test_mysql_is_unknown_where_we_cannot_ask(
    mariadb: Server, options: dict[str, Any], words: str
) -> None:
    """That says nothing about the server."""
    found = ask_mysql(mariadb, **options)
    assert found["state"] == "unknown" and words in found["message"]


# --- Redis ----------------------------------------------------------------------------------------


def ask_redis(server: Server, user: str = "shop@", **options: Any) -> Sample:
    """One look."""
    options.setdefault("password_env", "DB_PASSWORD")
    parameters = options.pop("parameters", "/0")
    dsn = f"redis://{user}127.0.0.1:{server.port}{parameters}"
    found = look("redis", dsn=dsn, **{k: v for k, v in options.items() if v is not None})
    assert wrote_no_password(found)
    return found


def test_redis_lets_us_in(redis: Server) -> None:
    """With a user, with the default one's password, in another database, at its socket."""
    assert ask_redis(redis)["state"] == "healthy"
    assert ask_redis(redis, "", password_env="DEFAULT_PASSWORD")["state"] == "healthy"
    assert ask_redis(redis, parameters="/3")["state"] == "healthy"
    found = look("redis", dsn=f"unix://{redis.socket}", password_env="DEFAULT_PASSWORD")
    assert found["state"] == "healthy" and str(redis.socket) in found["message"]
    found = ask_redis(redis, command=["EXISTS", "ready"], expect="0")
    assert found["state"] == "healthy" and found["observed"] == {"value": "0"}


@pytest.mark.parametrize(
    ("user", "options", "words"),
    [
        ("shop@", {"password_env": "WRONG_PASSWORD"},
         "refuses shop: invalid username-password pair or user is disabled; it was given the "
         "password in WRONG_PASSWORD"),
        ("", {"password_env": None}, "refuses the default user: Authentication required; it was"),
        ("shop@", {"parameters": "/99"}, "says: DB index is out of range"),
        ("shop@", {"command": ["NOSUCH"]}, "says: unknown command"),
        ("shop@", {"command": ["GET", "x"], "expect": "1"}, "the answer is empty (NULL)"),
        ("shop@", {"command": ["EXISTS", "x"], "expect": "1"}, "the answer is '0', expected '1'"),
    ],
)  # fmt: skip
def test_redis_is_unhealthy_when_it_refuses(
    redis: Server, user: str, options: dict[str, Any], words: str
) -> None:
    """It answers, and what it says is what a person needs."""
    found = ask_redis(redis, user, **options)
    assert (found["state"], found["final"]) == ("unhealthy", False)
    assert words in found["message"]


def test_redis_over_tls(tmp_path: Path) -> None:
    """The certificate has to be good, unless the plan says that it need not be."""
    with a_redis(tls=True) as server:
        at = f"127.0.0.1:{server.port}/0"
        found = look("redis", dsn=f"rediss://{at}?ssl_ca_certs={server.authority.ca_file}")
        assert found["state"] == "healthy", found["message"]
        assert look("redis", dsn=f"rediss://{at}?ssl_cert_reqs=none")["state"] == "healthy"
        assert look("redis", dsn=f"rediss://{at}")["state"] in ("unhealthy", "unknown")
        assert look("redis", dsn=f"redis://{at}")["state"] == "unhealthy"


def test_redis_without_connections_left() -> None:
    """It says so before anybody has asked anything."""
    with a_redis("maxclients 1") as server, socket.create_connection(("127.0.0.1", server.port)):
        found = look("redis", dsn=f"redis://127.0.0.1:{server.port}")
    assert found["state"] == "unhealthy" and "has no connection left" in found["message"]


# --- all of them ----------------------------------------------------------------------------------


@contextlib.contextmanager
def speaks(talk: Any) -> Iterator[int]:
    """A server that says what the test lets it say, to one client."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            line, _ = server.accept()
            with line, contextlib.suppress(OSError):
                talk(line)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        thread.join(10)


KINDS = ["postgres", "mysql", "redis"]
SCHEMES = {"postgres": "postgresql", "mysql": "mysql", "redis": "redis"}


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_listens(kind: str) -> None:
    """The address is right, and there is no server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = look(kind, dsn=f"{SCHEMES[kind]}://127.0.0.1:{port}")
    assert found["state"] == "unhealthy"
    assert found["message"].startswith("no ") and f"listens at 127.0.0.1:{port}" in found["message"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_does_not_resolve(kind: str) -> None:
    """Nobody was asked."""
    found = look(kind, dsn=f"{SCHEMES[kind]}://no-such-host.invalid")
    assert found["state"] == "unknown"
    assert "cannot resolve no-such-host.invalid" in found["message"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad\r\n\r\n"])
def test_something_else_listens_there(kind: str, said: bytes) -> None:
    """It hangs up, or speaks another protocol."""

    def talk(line: socket.socket) -> None:
        line.sendall(said)
        line.shutdown(socket.SHUT_WR)
        while line.recv(4096):
            pass

    with speaks(talk) as port:
        found = look(kind, dsn=f"{SCHEMES[kind]}://127.0.0.1:{port}")
    assert found["state"] == "unhealthy"
    assert f"what listens at 127.0.0.1:{port} is no " in found["message"]


@pytest.mark.parametrize("kind", KINDS)
def test_silence_lasts_as_long_as_the_timeout(kind: str) -> None:
    """A server that accepts and says nothing is not well."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = look(kind, dsn=f"{SCHEMES[kind]}://127.0.0.1:{port}", timeout=0.2)
    assert found["state"] == "unhealthy" and "did not answer within 0.2 s" in found["message"]


def test_a_password_from_a_file_on_the_host(postgres: Server, tmp_path: Path) -> None:
    """Its first line; one that has none is told, and never shown."""
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    found = ask_postgres(postgres, password_env=None, password_file=str(file))
    assert found["state"] == "healthy"
    for content in (b"", b"\n", b"\xff\xfe\n", b"x" * 5000):
        file.write_bytes(content)
        found = ask_postgres(postgres, password_env=None, password_file=str(file))
        assert found["state"] == "unknown" and str(file) in found["message"]


def test_a_whole_dsn_from_the_environment(
    postgres: Server, redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the application has it, with the password in it."""
    secret = quote(PASSWORD, safe="")
    url = f"postgresql+psycopg://shop:{secret}@127.0.0.1:{postgres.port}/shop?application_name=x"
    monkeypatch.setenv("DATABASE_URL", url)
    assert look("postgres", dsn_env="DATABASE_URL")["state"] == "healthy"
    monkeypatch.setenv("REDIS_URL", f"redis://shop:{secret}@127.0.0.1:{redis.port}/0")
    assert look("redis", dsn_env="REDIS_URL")["state"] == "healthy"

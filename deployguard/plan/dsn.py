"""The address of a database in one line, as the clients of that database write it.

``postgresql://user@host:5432/database?sslmode=verify-full`` as libpq reads it,
``mysql://user@host:3306/database?ssl-mode=REQUIRED``, ``redis://host:6379/0`` and ``rediss://``
for TLS, and sockets. A parameter that says nothing about where and how to connect is left out; one
that is not known is a mistake, because half of them are about security.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from deployguard.plan.suggestion import did_you_mean

__all__ = ["Dsn", "parse_dsn"]


@dataclass(frozen=True)
class Dsn:
    """Where a database is. ``tls`` is one of :data:`deployguard.onhost.protocols.wire.TLS_MODES`.

    ``password`` is shown by nothing that shows the rest.
    """

    address: str
    port: int
    socket: str
    user: str
    database: str
    tls: str
    ca_file: str
    password: str | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class _Kind:
    schemes: tuple[str, ...]
    port: int
    user: str
    #: The parameter that says how to encrypt, and what its values mean.
    tls: str
    modes: Mapping[str, str]
    ca_file: str
    #: Parameters of clients that do not matter to a check.
    beside: tuple[str, ...]
    socket: str
    example: str


_WORD = re.compile(r"[a-z][a-z_-]{0,39}")
_ESCAPES = "in names and passwords write @ as %40, / as %2F, : as %3A, ? as %3F, # as %23"
_BESIDE = ("connect_timeout", "pool_size", "max_overflow", "pool_timeout", "connection_limit")
_KINDS = {
    "postgres": _Kind(
        schemes=("postgresql", "postgres"),
        port=5432,
        user="postgres",
        tls="sslmode",
        modes={
            "disable": "disable",
            "allow": "prefer",
            "prefer": "prefer",
            "require": "require",
            "verify-ca": "verify-ca",
            "verify-full": "verify-full",
        },
        ca_file="sslrootcert",
        beside=(*_BESIDE, "application_name", "schema", "pgbouncer", "statement_cache_size"),
        socket="host",
        example="postgresql://shop@db.example.com:5432/shop",
    ),
    "mysql": _Kind(
        schemes=("mysql", "mariadb"),
        port=3306,
        user="root",
        tls="ssl-mode",
        modes={
            "disabled": "disable",
            "preferred": "prefer",
            "required": "require",
            "verify_ca": "verify-ca",
            "verify_identity": "verify-full",
        },
        ca_file="ssl-ca",
        beside=(*_BESIDE, "charset", "collation"),
        socket="socket",
        example="mysql://shop@db.example.com:3306/shop",
    ),
    "redis": _Kind(
        schemes=("redis", "rediss", "unix"),
        port=6379,
        user="",
        tls="ssl_cert_reqs",
        modes={"required": "verify-full", "none": "require"},
        ca_file="ssl_ca_certs",
        beside=(*_BESIDE, "protocol", "socket_timeout", "socket_connect_timeout"),
        socket="",
        example="redis://cache.example.com:6379/0",
    ),
}


def parse_dsn(kind: str, text: str) -> Dsn:
    """Read the DSN of a ``postgres``, ``mysql`` or ``redis`` check.

    Raises ``ValueError`` as ``problem; mend``. What it says holds no part of the DSN that may be a
    secret: not the user, not the password, and nothing of a text that cannot be taken apart.
    """
    known = _KINDS[kind]
    mend = f"write it as {known.example}"
    try:
        parts = urlsplit(text.strip())
    except ValueError:
        raise ValueError(f"the DSN cannot be read; {_ESCAPES}") from None
    try:
        port = parts.port
    except ValueError:
        # It may be a piece of a password: nobody is shown it.
        problem = "what stands behind the host of the DSN is no port"
        raise ValueError(f"{problem}; write a number up to 65535, and {_ESCAPES}") from None
    if port == 0:
        raise ValueError("the DSN has a port that is none; write a number up to 65535")
    scheme = parts.scheme.partition("+")[0]  # SQLAlchemy names the driver behind a plus
    if not parts.scheme or scheme not in known.schemes:
        raise ValueError(f"the DSN does not start with {known.schemes[0]}://; {mend}")
    if parts.fragment or parts.netloc.count("@") > 1 or any(c.isspace() for c in text.strip()):
        raise ValueError(f"the DSN has a character that ends its part; {_ESCAPES}")
    if "," in parts.netloc.rpartition("@")[2]:
        raise ValueError("the DSN names several hosts; make it a check for each")
    options = _options(known, parts.query)
    socket, database = _socket(kind, scheme, unquote(parts.path), options)
    if kind == "redis" and database and not database.isdigit():
        raise ValueError(f"a database of Redis is a number; {mend}")
    if "/" in database or "@" in database:
        raise ValueError(f"the DSN does not name a database behind its host; {mend}")
    user = unquote(parts.username or options.get("user", "")) or known.user
    return Dsn(
        address=parts.hostname or "127.0.0.1",
        port=port or int(options.get("port") or known.port),
        socket=socket,
        user=user,
        database=database or (user if kind == "postgres" else ""),
        tls=_tls(known, kind, scheme, options),
        ca_file=_ca_file(options.get(known.ca_file, "")),
        password=_password(parts.password, options),
    )


def _options(known: _Kind, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError(f"the parameters behind the ? cannot be read; {_ESCAPES}") from None
    taken = {known.tls, known.ca_file, known.socket, "user", "password", "port", "db", "dbname"}
    for name, _ in pairs:
        if not _WORD.fullmatch(name):
            raise ValueError(f"the parameters behind the ? cannot be read; {_ESCAPES}")
        if name not in taken and name not in known.beside:
            hint = did_you_mean(name, sorted(taken - {""}), among="it knows")
            raise ValueError(f'the check does not know the DSN parameter "{name}"; {hint}')
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("the DSN has a parameter twice; remove one")
    options = dict(pairs)
    if options.get("port", "1").isdigit() and 0 < int(options.get("port", "1")[:9]) < 65536:
        return options
    raise ValueError("the DSN has a port that is none; write a number up to 65535")


def _socket(kind: str, scheme: str, path: str, options: Mapping[str, str]) -> tuple[str, str]:
    """The socket, or nothing, and the database."""
    database = options.get("dbname") or options.get("db") or path.removeprefix("/")
    if kind == "redis" and scheme == "unix":
        if not path.startswith("/"):
            raise ValueError("a socket is an absolute path; write it as unix:///run/redis.sock")
        return path, options.get("db", "")
    socket = options.get(_KINDS[kind].socket, "")
    if not socket:
        return "", database
    if not socket.startswith("/"):
        raise ValueError("a socket is an absolute path; it starts with /")
    if kind == "postgres":  # libpq names the directory
        socket = f"{socket.rstrip('/')}/.s.PGSQL.{options.get('port') or 5432}"
    return socket, database


def _tls(known: _Kind, kind: str, scheme: str, options: Mapping[str, str]) -> str:
    if kind == "redis" and scheme != "rediss":
        return "disable"
    given = options.get(known.tls)
    if given is None:
        return "verify-full" if kind == "redis" else "prefer"
    mode = known.modes.get(given.lower())
    if mode is None:
        raise ValueError(f"the DSN has no {known.tls} that is one; use {', '.join(known.modes)}")
    if mode == "require" and options.get(known.ca_file):
        return "verify-ca"  # as libpq does: who names an authority wants it asked
    return mode


def _ca_file(path: str) -> str:
    if path == "system":
        return ""
    if path and not path.startswith("/"):
        raise ValueError("the CA certificates are a file on the host; its path starts with /")
    return path


def _password(in_url: str | None, options: Mapping[str, str]) -> str | None:
    if in_url is not None:
        return unquote(in_url)
    return options.get("password")

"""How a component is judged: the kinds of checks."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from deployguard.plan.block import OneOf
from deployguard.plan.dependency import (
    LogsCheck,
    MysqlCheck,
    PostgresCheck,
    PrometheusCheck,
    RedisCheck,
    TlsCheck,
)
from deployguard.plan.options import CheckOptions
from deployguard.plan.quantity import AbsolutePath, Argv, Whole

__all__ = [
    "Check",
    "CheckOptions",
    "CommandCheck",
    "ContainerCheck",
    "HttpCheck",
    "ImportsCheck",
    "LogsCheck",
    "MysqlCheck",
    "PortCheck",
    "PostgresCheck",
    "ProcessCheck",
    "PrometheusCheck",
    "RedisCheck",
    "TcpCheck",
    "TlsCheck",
]


class ProcessCheck(CheckOptions):
    """The process manager says it runs, and it did not restart since the switch."""


class PortCheck(CheckOptions):
    """A TCP port accepts connections on the host."""

    number: Whole = Field(ge=1, le=65535, description="Port; `port: 3000` is short for it.")
    address: str = Field("127.0.0.1", description="Address to connect to, from the host.")


class HttpCheck(CheckOptions):
    """An HTTP GET made on the host."""

    url: str = Field(pattern=r"^https?://", description="Address; `http: URL` is short for it.")
    status: Whole | tuple[Whole, ...] = Field(200, description="Accepted status, or several.")
    body: str | None = Field(None, description="Text the body must contain.")
    json_fields: dict[str, Any] = Field(
        default_factory=dict, alias="json", description="Dotted field to expected value."
    )
    version: str | None = Field(
        None, description="Dotted JSON field that must equal the deployed version."
    )
    headers: dict[str, str] = Field(default_factory=dict, description="Request headers.")
    verify_tls: bool = Field(True, description="Refuse certificates that are not trusted.")
    service: str | None = Field(
        None, description="Compose service that answers there; compared with its container."
    )
    versioned: tuple[str, ...] = Field(
        (), exclude=True, description="Filled by the loader: json fields that hold the version."
    )


class TcpCheck(CheckOptions):
    """A dependency elsewhere accepts TCP connections from the host."""

    address: str = Field(description="Name or address of the dependency.")
    number: Whole = Field(ge=1, le=65535, alias="port", description="Its port.")


class CommandCheck(CheckOptions):
    """A command on the host; exit status 0 is healthy."""

    argv: Argv = Field(description="Program and arguments; a list alone is short for it.")
    env: dict[str, str] = Field(default_factory=dict, description="Added environment.")
    directory: AbsolutePath | None = Field(None, description="Working directory; the live tree.")


class ImportsCheck(CheckOptions):
    """The release's own modules resolve; asked of the staged tree, before the switch."""

    node: tuple[str, ...] = Field((), description="Node: files that are started, in the tree.")
    python: tuple[str, ...] = Field(
        (), description="Python: modules or files that are started, as `shop.main` or `manage.py`."
    )
    packages: bool = Field(True, description="Installed packages must be there as well.")
    interpreter: str | None = Field(
        None, description="Python: what runs it; `.venv`, `venv` or `env` of the tree, or python3."
    )
    roots: tuple[str, ...] = Field(
        (".",), description="Python: folders in the tree that modules are looked for in."
    )
    own: tuple[str, ...] = Field(
        (), description="Python: top-level names that are the release's, even where it lacks them."
    )


class ContainerCheck(CheckOptions):
    """The containers of a compose service run, and their own health checks pass."""

    services: tuple[str, ...] = Field(
        min_length=1, description="Services of the compose file, each judged by itself."
    )


Port = Annotated[int, Field(ge=1, le=65535)]


def _port_shorthand(value: object) -> object:
    # Text, too: a template such as "{{ vars.port }}" gives text.
    return {"number": value} if isinstance(value, int | str) else value


def _http_shorthand(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


def _argv_shorthand(value: object) -> object:
    return {"argv": value} if isinstance(value, list) else value


def _dsn_shorthand(value: object) -> object:
    return {"dsn": value} if isinstance(value, str) else value


def _address_shorthand(value: object) -> object:
    return {"address": value} if isinstance(value, str) else value


def _container_shorthand(value: object) -> object:
    if isinstance(value, str):
        return {"services": [value]}
    return {"services": value} if isinstance(value, list) else value


class Check(OneOf):
    """One check of a component; exactly one kind."""

    KINDS: ClassVar[tuple[str, ...]] = (
        "process", "port", "http", "tcp", "command", "imports", "container",
        "postgres", "mysql", "redis", "prometheus", "tls", "logs",
    )  # fmt: skip
    process: ProcessCheck | None = Field(
        None, description="The service runs and did not restart; `process: {}` is enough."
    )
    port: (
        Annotated[
            PortCheck, BeforeValidator(_port_shorthand, json_schema_input_type=Port | PortCheck)
        ]
        | None
    ) = Field(None, description="A TCP port accepts connections on the host.")
    http: (
        Annotated[
            HttpCheck, BeforeValidator(_http_shorthand, json_schema_input_type=str | HttpCheck)
        ]
        | None
    ) = Field(None, description="An HTTP GET, made on the host.")
    tcp: TcpCheck | None = Field(None, description="A dependency elsewhere answers.")
    command: (
        Annotated[
            CommandCheck,
            BeforeValidator(_argv_shorthand, json_schema_input_type=Argv | CommandCheck),
        ]
        | None
    ) = Field(None, description="A command on the host ends with exit status 0.")
    imports: ImportsCheck | None = Field(
        None, description="The release's modules resolve, before the switch."
    )
    postgres: (
        Annotated[
            PostgresCheck,
            BeforeValidator(_dsn_shorthand, json_schema_input_type=str | PostgresCheck),
        ]
        | None
    ) = Field(None, description="PostgreSQL lets us in, answers, and has connections left.")
    mysql: (
        Annotated[
            MysqlCheck, BeforeValidator(_dsn_shorthand, json_schema_input_type=str | MysqlCheck)
        ]
        | None
    ) = Field(None, description="MySQL or MariaDB lets us in and answers.")
    redis: (
        Annotated[
            RedisCheck, BeforeValidator(_dsn_shorthand, json_schema_input_type=str | RedisCheck)
        ]
        | None
    ) = Field(None, description="Redis lets us in and answers.")
    prometheus: PrometheusCheck | None = Field(
        None, description="A number that Prometheus measures is within its bounds."
    )
    tls: (
        Annotated[
            TlsCheck, BeforeValidator(_address_shorthand, json_schema_input_type=str | TlsCheck)
        ]
        | None
    ) = Field(None, description="A certificate is trusted, for its name, and lasts.")
    logs: LogsCheck | None = Field(
        None, description="The log has no errors of a new kind; `logs: {}` is enough."
    )
    container: (
        Annotated[
            ContainerCheck,
            BeforeValidator(
                _container_shorthand,
                json_schema_input_type=str | tuple[str, ...] | ContainerCheck,
            ),
        ]
        | None
    ) = Field(None, description="Containers of a compose stack, by service.")

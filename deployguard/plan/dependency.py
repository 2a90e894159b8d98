"""Checks of what a component depends on, and of what others say of it: databases, numbers,
certificates, logs.

No password stands in a plan. It comes from the environment of the machine that runs deployguard
(``password_env``, ``token_env``, ``dsn_env``), of which the plan holds the names, or from a file on
the host (``password_file``).
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from deployguard.plan.dsn import parse_dsn
from deployguard.plan.options import CheckOptions
from deployguard.plan.quantity import AbsolutePath, Argv, Duration, Size, Whole, refuse_bool

__all__ = [
    "DatabaseCheck",
    "LogsCheck",
    "MysqlCheck",
    "PostgresCheck",
    "PrometheusCheck",
    "RedisCheck",
    "TlsCheck",
]

VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]


def _share(value: object) -> object:
    """A number that is not negative, or a percentage as text: ``5``, ``0.5``, ``20%``."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?%?", value):
        if value.endswith("%"):
            return value
        return float(value) if "." in value else int(value)
    if isinstance(value, bool | str) or (isinstance(value, int | float) and value < 0):
        raise ValueError("not a number or a percentage; write it as 5 or 20%")
    return value


Share = Annotated[float | str, BeforeValidator(_share)]
Number = Annotated[float, BeforeValidator(refuse_bool)]


class DatabaseCheck(CheckOptions):
    """A server that is asked in its own language. ``kind`` is the name of the check."""

    dsn: str | None = Field(None, description="Where it is and who we are, without a password.")
    dsn_env: VariableName | None = Field(
        None, description="Environment variable that holds the DSN, a password included."
    )
    password_env: VariableName | None = Field(
        None, description="Environment variable that holds the password."
    )
    password_file: AbsolutePath | None = Field(
        None, description="File on the host whose first line is the password."
    )

    @model_validator(mode="after")
    def _one_dsn(self) -> DatabaseCheck:
        if (self.dsn is None) == (self.dsn_env is None):
            raise ValueError("needs exactly one of dsn and dsn_env")
        if self.password_env is not None and self.password_file is not None:
            raise ValueError("has two passwords; use password_env or password_file")
        return self


def _without_password(kind: str) -> AfterValidator:
    def check(text: str) -> str:
        if parse_dsn(kind, text).password is not None:
            raise ValueError(
                "a password has no place in a plan; name the environment variable that holds it "
                "in password_env, or the one that holds the whole DSN in dsn_env"
            )
        return text

    return AfterValidator(check)


class PostgresCheck(DatabaseCheck):
    """PostgreSQL lets us in, answers a query, and has connections left."""

    dsn: Annotated[str, _without_password("postgres")] | None = Field(
        None, description="Where it is and who we are; `postgres: DSN` is short for it."
    )
    query: str | None = Field(None, min_length=1, description="A query to run, read-only.")
    expect: str | None = Field(None, description="First value that the query must give, as text.")
    free_connections: Annotated[Whole | str, BeforeValidator(_share)] | None = Field(
        None, description="How many connections must be free: a number, or a share such as 20%."
    )


class MysqlCheck(DatabaseCheck):
    """MySQL or MariaDB lets us in and answers a query."""

    dsn: Annotated[str, _without_password("mysql")] | None = Field(
        None, description="Where it is and who we are; `mysql: DSN` is short for it."
    )
    query: str | None = Field(None, min_length=1, description="A query to run, read-only.")
    expect: str | None = Field(None, description="First value that the query must give, as text.")


class RedisCheck(DatabaseCheck):
    """Redis lets us in and answers PING."""

    dsn: Annotated[str, _without_password("redis")] | None = Field(
        None, description="Where it is and who we are; `redis: DSN` is short for it."
    )
    command: Argv | None = Field(None, description="A command to run, such as [EXISTS, ready].")
    expect: str | None = Field(None, description="What the command must give, as text.")


class PrometheusCheck(CheckOptions):
    """A number that Prometheus measures is within its bounds."""

    deadline: Duration = Field(120.0, description="To become healthy, from the start.")
    interval: Duration = Field(2.0, description="Between samples.")
    min_healthy_time: Duration = Field(30.0, description="Soak: within its bounds for this long.")
    url: str = Field(pattern=r"^https?://", description="Of Prometheus, as the host reaches it.")
    query: str = Field(min_length=1, description="PromQL that gives a number, or several.")
    max: Number | None = Field(None, description="The most that it may be.")
    min: Number | None = Field(None, description="The least that it may be.")
    max_increase: Share | None = Field(
        None, description="How far above the baseline: a number, or a share such as 20%."
    )
    max_decrease: Share | None = Field(
        None, description="How far below the baseline: a number, or a share such as 20%."
    )
    token_env: VariableName | None = Field(
        None, description="Environment variable that holds a bearer token."
    )
    user: str | None = Field(None, description="User for basic authentication.")
    password_env: VariableName | None = Field(
        None, description="Environment variable that holds the user's password."
    )
    password_file: AbsolutePath | None = Field(
        None, description="File on the host whose first line is the user's password."
    )
    verify_tls: bool = Field(True, description="Refuse certificates that are not trusted.")


class TlsCheck(CheckOptions):
    """A certificate is trusted, is for its name, and lasts."""

    address: str = Field(
        pattern=r"^[^/\s]+$",
        description="Name or address of the server; `tls: NAME` is short for it.",
    )
    number: Whole = Field(443, ge=1, le=65535, alias="port", description="Its port.")
    server_name: str | None = Field(None, description="Name to ask for; the address.")
    valid_for: Duration = Field(0.0, description="For how much longer it must be valid.")
    ca_file: AbsolutePath | None = Field(
        None, description="CA certificates on the host; those of the system."
    )


class LogsCheck(CheckOptions):
    """The log has no errors of a kind that it did not have before the deploy."""

    interval: Duration = Field(1.0, description="Between samples.")
    min_healthy_time: Duration = Field(10.0, description="Soak: without a new error so long.")
    file: AbsolutePath | None = Field(None, description="Log file on the host; the service's log.")
    words: tuple[str, ...] = Field(
        ("error", "fatal", "critical", "panic", "exception", "traceback"),
        description="What makes a line an error.",
    )
    ignore: tuple[str, ...] = Field((), description="Errors to pass over; * is anything.")
    max_new: Whole = Field(0, ge=0, description="How many new kinds of error are let pass.")
    history: Size = Field(
        4 * 1024**2, description="How much of the log from before is learnt, for comparison."
    )

"""Checks of databases, numbers, certificates and logs as the data that the host program samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployguard.onhost.logs.source import Source
from deployguard.onhost.probes.base import CheckData
from deployguard.plan.credentials import access_of, token_of
from deployguard.plan.dependency import (
    DatabaseCheck,
    LogsCheck,
    MysqlCheck,
    PostgresCheck,
    PrometheusCheck,
    RedisCheck,
    TlsCheck,
)
from deployguard.plan.options import CheckOptions

__all__ = ["add_dependency"]


def add_dependency(
    data: CheckData,
    spec: CheckOptions,
    manager: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
) -> None:
    """Add what the probe of this kind must know; ``manager`` says where the service logs."""
    if isinstance(spec, DatabaseCheck):
        _add_database(data, spec, environ)
    elif isinstance(spec, PrometheusCheck):
        _add_prometheus(data, spec, environ)
    elif isinstance(spec, TlsCheck):
        data["address"] = spec.address
        data["number"] = spec.number
        data["server_name"] = spec.server_name or spec.address
        data["valid_for"] = spec.valid_for
        if spec.ca_file is not None:
            data["ca_file"] = spec.ca_file
    elif isinstance(spec, LogsCheck):
        data["log"] = _log(spec, manager)
        data["history"] = spec.history
        data["words"] = list(spec.words)
        data["ignore"] = list(spec.ignore)
        data["max_new"] = spec.max_new


def _add_database(data: CheckData, spec: DatabaseCheck, environ: Mapping[str, str] | None) -> None:
    access = access_of(data["kind"], spec, environ)
    dsn = access.dsn
    data["address"], data["number"] = dsn.address, dsn.port
    data["user"], data["database"] = dsn.user, dsn.database
    data["tls"] = dsn.tls
    data["credential"] = access.credential
    if dsn.socket:
        data["socket"] = dsn.socket
    if dsn.ca_file:
        data["ca_file"] = dsn.ca_file
    if spec.password_file is not None:
        data["password_file"] = spec.password_file
    if access.password is not None:
        data["secret"] = {"password": access.password.reveal()}
    if isinstance(spec, PostgresCheck | MysqlCheck) and spec.query is not None:
        data["query"] = spec.query
    if isinstance(spec, RedisCheck) and spec.command is not None:
        data["argv"] = list(spec.command)
    if isinstance(spec, PostgresCheck) and spec.free_connections is not None:
        wanted = spec.free_connections
        data["free_connections"] = wanted if isinstance(wanted, str) else int(wanted)
    if isinstance(spec, PostgresCheck | MysqlCheck | RedisCheck) and spec.expect is not None:
        data["expect"] = spec.expect


def _add_prometheus(
    data: CheckData, spec: PrometheusCheck, environ: Mapping[str, str] | None
) -> None:
    data["url"], data["query"] = spec.url, spec.query
    data["verify_tls"] = spec.verify_tls
    if spec.max is not None:
        data["max"] = spec.max
    if spec.min is not None:
        data["min"] = spec.min
    if spec.max_increase is not None:
        data["max_increase"] = spec.max_increase
    if spec.max_decrease is not None:
        data["max_decrease"] = spec.max_decrease
    if spec.user is not None:
        data["user"] = spec.user
    if spec.password_file is not None:
        data["password_file"] = spec.password_file
    secrets = {
        "token": token_of(spec.token_env, environ),
        "password": token_of(spec.password_env, environ),
    }
    given = {name: secret.reveal() for name, secret in secrets.items() if secret is not None}
    if given:
        data["secret"] = given


def _log(spec: LogsCheck, manager: Mapping[str, Any]) -> Source:
    if spec.file is not None:
        return {"path": spec.file}
    if manager.get("driver") == "systemd":
        source: Source = {"unit": manager["unit"], "scope": manager.get("scope", "system")}
        if manager.get("env"):
            source["env"] = dict(manager["env"])
        return source
    if manager.get("driver") == "pm2":
        return {"pm2": dict(manager)}
    return {"path": str(manager.get("log", ""))}

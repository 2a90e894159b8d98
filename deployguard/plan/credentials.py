"""The secrets of checks: where a plan says they are, and what they are.

A plan holds names of environment variables, never values, so that it can be shown, logged and
pickled. The values are taken when the checks are sent, and in nothing that is kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from deployguard.errors import UsageError
from deployguard.plan.check import Check
from deployguard.plan.dependency import DatabaseCheck, PrometheusCheck
from deployguard.plan.document import Finding, Path
from deployguard.plan.dsn import Dsn, parse_dsn
from deployguard.plan.model import Plan
from deployguard.secret import Secret

__all__ = [
    "Access",
    "access_of",
    "credential_findings",
    "demand_access",
    "secrets_of_checks",
    "token_of",
    "variables_of",
]

#: The keys of checks that name a variable.
_NAMES = ("dsn_env", "password_env", "token_env")


@dataclass(frozen=True)
class Access:
    """Where a database is and what opens it; ``credential`` says in words where that is from."""

    dsn: Dsn
    password: Secret | None
    credential: str


def access_of(kind: str, spec: DatabaseCheck, environ: Mapping[str, str] | None = None) -> Access:
    """Read what a check of a database names. Raises :class:`UsageError` where it is not there."""
    environ = os.environ if environ is None else environ
    text = spec.dsn
    if text is None:
        assert spec.dsn_env is not None
        text = _value(spec.dsn_env, environ)
    try:
        dsn = parse_dsn(kind, text)
    except ValueError as error:
        problem, _, mend = str(error).partition("; ")
        where = spec.dsn_env or "the DSN"
        raise UsageError(f"{where}: {problem}", hint=mend) from None
    if spec.password_env is not None:
        secret = Secret(_value(spec.password_env, environ), origin=spec.password_env)
        return Access(dsn, secret, f"the password in {spec.password_env}")
    if spec.password_file is not None:
        return Access(dsn, None, f"the password in {spec.password_file}")
    if dsn.password is not None and spec.dsn_env is not None:
        secret = Secret(dsn.password, origin=spec.dsn_env)
        return Access(dsn, secret, f"the password in {spec.dsn_env}")
    return Access(dsn, None, "no password")


def token_of(name: str | None, environ: Mapping[str, str] | None = None) -> Secret | None:
    """The secret in a variable that a plan names. Raises :class:`UsageError` for none."""
    environ = os.environ if environ is None else environ
    return None if name is None else Secret(_value(name, environ), origin=name)


def variables_of(plan: Plan, environ: Mapping[str, str]) -> dict[str, str]:
    """Those of the environment that the checks of a plan name: what other machines need of it."""
    specs = [check.spec for part in plan.components.values() for check in part.checks]
    names = {getattr(spec, key, None) for spec in specs for key in _NAMES}
    return {name: environ[name] for name in names if name is not None and name in environ}


def _value(name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name)
    if not value:
        raise UsageError(f"the environment variable {name} is not set", hint=f"export {name}")
    return value


def credential_findings(check: Check, where: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Variables of a check that are not set, and DSNs in them that cannot be read."""
    spec = check.spec
    missing = False
    for key in _NAMES:
        name = getattr(spec, key, None)
        if name is not None and not environ.get(name):
            missing = True
            message = f"the environment variable {name} is not set"
            yield Finding((*where, key), message, f"export {name} where deployguard runs")
    if missing or not isinstance(spec, DatabaseCheck) or spec.dsn_env is None:
        return
    try:
        parse_dsn(check.kind, environ[spec.dsn_env])
    except ValueError as error:
        problem, _, mend = str(error).partition("; ")
        yield Finding((*where, "dsn_env"), f"{spec.dsn_env}: {problem}", mend)


def demand_access(plan: Plan) -> None:
    """Raises :class:`UsageError` where a secret that a check names is not there.

    A plan may have been loaded where it was not asked for, to recover or to go back.
    """
    for component in plan.components.values():
        for check in component.checks:
            if isinstance(check.spec, DatabaseCheck):
                access_of(check.kind, check.spec)
            for key in ("password_env", "token_env"):
                token_of(getattr(check.spec, key, None))


def secrets_of_checks(plan: Plan) -> list[Secret]:
    """Every secret that the checks of a plan name and the environment has."""
    found: list[Secret] = []
    for component in plan.components.values():
        for check in component.checks:
            spec = check.spec
            if isinstance(spec, DatabaseCheck):
                found += _secrets_of(check.kind, spec)
            elif isinstance(spec, PrometheusCheck):
                names = (spec.token_env, spec.password_env)
                found += [
                    secret
                    for secret in (Secret.from_environment(name) for name in names if name)
                    if secret is not None
                ]
    asked = plan.respond.prometheus
    if asked is not None and asked.token_env is not None:
        token = Secret.from_environment(asked.token_env)
        found += [] if token is None else [token]
    return found


def _secrets_of(kind: str, spec: DatabaseCheck) -> Iterator[Secret]:
    try:
        access = access_of(kind, spec)
    except UsageError:
        return
    if access.password is not None:
        yield access.password
        if spec.dsn_env is not None:
            yield Secret(_value(spec.dsn_env, os.environ), origin=spec.dsn_env)

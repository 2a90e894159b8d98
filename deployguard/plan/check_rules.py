"""The rules for one check that its own block cannot tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deployguard.plan.credentials import credential_findings
from deployguard.plan.dependency import DatabaseCheck
from deployguard.plan.document import Finding, Path
from deployguard.plan.stack import service_findings
from deployguard.plan.territory import tree_entry_fault

if TYPE_CHECKING:
    from deployguard.plan.model import (
        Check,
        CheckOptions,
        Component,
        ImportsCheck,
        PrometheusCheck,
    )

__all__ = ["check_findings"]


def check_findings(
    check: Check, component: Component, where: Path, environ: Mapping[str, str] | None
) -> Iterator[Finding]:
    """The rules for one check; ``environ`` is ``None`` where its variables need not be set."""
    options: CheckOptions = check.spec
    where = (*where, check.kind)
    yield from _times(options, where)
    yield from service_findings(check, component, where)
    if check.kind == "process" and component.service is None:
        yield Finding(
            where,
            "a process check needs a service, and the component has none",
            "add service, or check a port or a URL",
            on_key=True,
        )
    if check.imports is not None:
        yield from _imports(check.imports, where)
    if check.http is not None:
        statuses = (
            check.http.status if isinstance(check.http.status, tuple) else (check.http.status,)
        )
        if not statuses or any(not 100 <= status <= 599 for status in statuses):
            yield Finding((*where, "status"), "an HTTP status is a number from 100 to 599")
        yield from _url(check.http.url, (*where, "url"))
    if check.prometheus is not None:
        yield from _prometheus(check.prometheus, where)
    if check.logs is not None and check.logs.file is None:
        yield from _log_of(component, where)
    if isinstance(options, DatabaseCheck):
        yield from _expectation(options, where)
    if environ is not None:
        yield from credential_findings(check, where, environ)


def _url(url: str, where: Path) -> Iterator[Finding]:
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", url)
    except ValueError:
        good = False
    if not good:
        yield Finding(where, f'"{url}" is not a URL', "write it as http://127.0.0.1:3000/health")


def _times(options: CheckOptions, where: Path) -> Iterator[Finding]:
    for field, why in (
        ("timeout", "one sample may take longer than all of them"),
        ("interval", "there would be one sample only"),
        ("min_healthy_time", "it could never be healthy for that long"),
    ):
        seconds = getattr(options, field)
        # A default that does not fit is fitted (`compile_checks`); what was written is a mistake.
        if seconds > options.deadline and field in options.model_fields_set:
            yield Finding(
                (*where, field),
                f"{field} ({seconds:g}s) is longer than deadline ({options.deadline:g}s): {why}",
                f"raise deadline, or lower {field}",
            )
    if options.deadline == 0:
        yield Finding((*where, "deadline"), "a deadline of 0 fails at once", "write 30s")


def _prometheus(check: PrometheusCheck, where: Path) -> Iterator[Finding]:
    yield from _url(check.url, (*where, "url"))
    bounds = (check.max, check.min, check.max_increase, check.max_decrease)
    if all(bound is None for bound in bounds):
        yield Finding(
            where, "asks for nothing", "add max, min, max_increase or max_decrease", on_key=True
        )
    if check.max is not None and check.min is not None and check.max < check.min:
        yield Finding((*where, "max"), "max is less than min, so nothing would do", "mend one")
    has_password = check.password_env is not None or check.password_file is not None
    if (check.user is None) == has_password or (has_password and check.token_env is not None):
        yield Finding(
            where,
            "signs in with both or with half of something",
            "use token_env, or user with password_env or password_file",
            on_key=True,
        )


def _log_of(component: Component, where: Path) -> Iterator[Finding]:
    service = component.service
    if service is None or service.kind not in ("systemd", "process", "pm2"):
        yield Finding(
            where,
            "nobody knows where the log of this component is",
            "add file: and its path on the host",
            on_key=True,
        )


def _expectation(check: DatabaseCheck, where: Path) -> Iterator[Finding]:
    key = "command" if hasattr(check, "command") else "query"
    if getattr(check, "expect", None) is not None and getattr(check, key) is None:
        yield Finding(
            (*where, "expect"), f"expects the answer of no {key}", f"add {key}:", on_key=True
        )


def _imports(imports: ImportsCheck, where: Path) -> Iterator[Finding]:
    if not imports.node and not imports.python:
        hint = "name what is started: node: [src/index.js], or python: [shop.main]"
        yield Finding(where, "asks for nothing", hint)
    for field in ("node", "python", "roots"):
        for index, entry in enumerate(getattr(imports, field)):
            fault = None if field == "roots" and entry == "." else tree_entry_fault(entry)
            if fault is not None:
                yield Finding((*where, field, index), *fault)
    for field in ("interpreter", "roots", "own"):
        if field in imports.model_fields_set and not imports.python:
            yield Finding(
                (*where, field),
                f"{field} is for Python, and no Python is named",
                "add python: [shop.main], or remove it",
                on_key=True,
            )

"""The checks of a plan as the data that the host program samples and judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deployguard.health.dependencies import add_dependency
from deployguard.onhost.probes.base import CheckData
from deployguard.plan.check import (
    Check,
    CheckOptions,
    CommandCheck,
    ContainerCheck,
    HttpCheck,
    PortCheck,
    ProcessCheck,
    TcpCheck,
)
from deployguard.plan.model import Component

__all__ = ["compile_checks", "compile_imports"]


def compile_checks(
    name: str,
    component: Component,
    version: str,
    manager: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
) -> list[CheckData]:
    """The checks of one component, in the order of the plan.

    ``version`` is the one that is deployed; ``manager`` says how the host asks for the service
    (``Driver.process_probe``) and is empty where there is none.

    A component with a service and no ``process`` check gets one, as long as its longest soak:
    nothing else sees a service that dies and is started again between two looks, but a
    ``container`` check, of which one is made for each service it names.

    Passwords and tokens are taken from the environment, ``environ`` where it is another. Raises
    :class:`~deployguard.errors.UsageError` where one is not there.
    """
    # The modules of a release are looked for before it runs; see `compile_imports`.
    made = [check for check in component.checks if check.kind != "imports"]
    checks = [one for check in made for one in _each(check)]
    if manager and not any(check.kind in ("process", "container") for check in checks):
        soak = max((_soak(check.spec) for check in checks), default=0.0)
        checks.insert(0, Check.model_validate({"process": {"min_healthy_time": soak}}))
    compiled = []
    taken: set[str] = set()
    for check in checks:
        data = _common(name, check, taken)
        _add_parameters(data, check.spec, component, version, manager, environ)
        compiled.append(data)
    return compiled


def compile_imports(name: str, component: Component) -> list[dict[str, Any]]:
    """The ``imports`` checks of one component, as the host makes them of the staged tree."""
    compiled: list[dict[str, Any]] = []
    taken: set[str] = set()
    for check in component.checks:
        spec = check.imports
        if spec is None:
            continue
        for language, entries in (("node", spec.node), ("python", spec.python)):
            if entries:
                data: dict[str, Any] = {**_common(name, check, taken)}
                data.update(
                    language=language,
                    entries=list(entries),
                    packages=spec.packages,
                    interpreter=spec.interpreter,
                    roots=list(spec.roots),
                    own=list(spec.own),
                )
                compiled.append(data)
    return compiled


def _each(check: Check) -> Iterator[Check]:
    """A check of several services is several checks: each has a baseline of its own."""
    spec = check.spec
    if not isinstance(spec, ContainerCheck):
        yield check
        return
    for service in spec.services:
        alone = len(spec.services) == 1 and spec.name
        name = spec.name if alone else f"{spec.name or 'container'}-{service}"
        only = spec.model_copy(update={"services": (service,), "name": name})
        yield check.model_copy(update={"container": only})


def _common(component: str, check: Check, taken: set[str]) -> CheckData:
    options: CheckOptions = check.spec
    name = options.name or check.kind
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    taken.add(unique)
    return {
        "id": f"{component}/{unique}",
        "component": component,
        "kind": check.kind,
        "name": unique,
        "critical": options.critical,
        "timeout": min(options.timeout, options.deadline),
        "interval": min(options.interval, options.deadline),
        "deadline": options.deadline,
        "min_healthy_time": _soak(options),
    }


def _soak(options: CheckOptions) -> float:
    """What was written must fit, and was told if it does not; a default is fitted."""
    written = "min_healthy_time" in options.model_fields_set
    soak = options.min_healthy_time
    return soak if written else min(soak, options.deadline)


def _add_parameters(
    data: CheckData,
    spec: CheckOptions,
    component: Component,
    version: str,
    manager: Mapping[str, Any],
    environ: Mapping[str, str] | None,
) -> None:
    if isinstance(spec, (ProcessCheck, ContainerCheck)):
        data["manager"] = {"driver": "none"}
        data["manager"].update(manager)  # type: ignore[typeddict-item]  # the driver's own data
        if isinstance(spec, ContainerCheck):
            data["service"] = spec.services[0]
    elif isinstance(spec, (PortCheck, TcpCheck)):
        data["address"] = spec.address
        data["number"] = spec.number
    elif isinstance(spec, HttpCheck):
        _add_http(data, spec, version)
    elif isinstance(spec, CommandCheck):
        data["argv"] = list(spec.argv)
        data["env"] = dict(spec.env)
        data["directory"] = spec.directory or _live(component)
    else:
        add_dependency(data, spec, manager, environ)


def _add_http(data: CheckData, spec: HttpCheck, version: str) -> None:
    expected = dict(spec.json_fields)
    versioned = list(spec.versioned)
    if spec.version is not None:
        expected[spec.version] = version
        if spec.version not in versioned:
            versioned.append(spec.version)
    if spec.service is not None:
        data["service"] = spec.service
    data["url"] = spec.url
    data["status"] = [spec.status] if isinstance(spec.status, int) else list(spec.status)
    if spec.body is not None:
        data["body"] = spec.body
        # The old version must not be expected to say the name of the new one.
        data["body_versioned"] = version in spec.body
    data["json"] = expected
    data["versioned"] = versioned
    data["headers"] = dict(spec.headers)
    data["verify_tls"] = spec.verify_tls


def _live(component: Component) -> str:
    return f"{component.path}/current" if component.layout == "releases" else component.path

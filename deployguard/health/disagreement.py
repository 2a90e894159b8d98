"""Layers that disagree, in words: the quickest way to a cause.

A process that is active behind a closed port hangs in its start; an open port that answers 503 has
lost a dependency; an endpoint that answers while the process is gone is somebody else's; a
container that calls itself unhealthy while its endpoint is well asks itself the wrong thing.
Each of these is a finding of its own, beside the check that failed. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deployguard.health.finding import Finding

__all__ = ["disagreements"]

Entry = Mapping[str, Any]

#: What a service needs of others.
DEPENDENCIES = ("tcp", "postgres", "mysql", "redis")
#: How an answer names them.
_BLAMED = {
    "postgres": ("postgres", "database", "sql"),
    "mysql": ("mysql", "mariadb", "database", "sql"),
    "redis": ("redis", "cache"),
}


def disagreements(host: str, checks: Sequence[Entry], versions: Mapping[str, str]) -> list[Finding]:
    """What the layers of each component say against each other.

    ``checks`` are the entries of a ``healthcheck.watch`` result, ``versions`` the deployed version
    of each component. These findings are never critical: the failed check beside them is.
    """
    found: list[Finding] = []
    for component in dict.fromkeys(str(entry["component"]) for entry in checks):
        entries = [entry for entry in checks if entry["component"] == component]
        for name, message, evidence in _of_component(entries, versions.get(component)):
            found.append(Finding(host, component, "disagreement", name, message, False, evidence))
    return found


_Words = tuple[str, str, str]


def _of_component(entries: Sequence[Entry], version: str | None) -> Iterator[_Words]:
    layers: dict[str, list[Entry]] = {}
    for entry in entries:
        layers.setdefault(str(entry["layer"]), []).append(entry)
    processes, ports = layers.get("process", []), layers.get("port", [])
    https = layers.get("http", [])
    others = [entry for layer in DEPENDENCIES for entry in layers.get(layer, [])]
    yield from _restarts(processes)
    yield from _process_against_port(processes, ports)
    yield from _http_against_below(processes, ports, https)
    yield from _http_against_dependency(https, others)
    yield from _http_against_witness(https, layers)
    yield from _container_against_http(layers.get("container", []), https)
    for http in https:
        yield from _versions(http, version)


def _restarts(processes: Sequence[Entry]) -> Iterator[_Words]:
    for process in processes:
        count = int(process.get("restarts", 0))
        if count:
            times = "once" if count == 1 else f"{count} times"
            said = _said(process)
            yield "restarts", f"{said}, but it restarted {times} since the switch", _quote(process)


def _process_against_port(processes: Sequence[Entry], ports: Sequence[Entry]) -> Iterator[_Words]:
    for process in processes:
        for port in ports:
            evidence = _quote(process, port)
            if _is(process, "healthy") and _is(port, "unhealthy"):
                message = f"process up, not serving: {_said(process)}, but {_look(port)}"
                yield "process/port", message, evidence
            if _down(process) and _is(port, "healthy"):
                message = f"{_said(process)}, but {_look(port)}: something else listens there"
                yield "process/port", message, evidence


def _http_against_below(
    processes: Sequence[Entry], ports: Sequence[Entry], https: Sequence[Entry]
) -> Iterator[_Words]:
    below = [*processes, *ports]
    if below and all(_is(entry, "healthy") for entry in below):
        said = " and ".join(_short(entry) for entry in below)
        for answer, same in _by_answer(https).items():
            # A single endpoint needs no name; of several it matters which.
            names = f" ({', '.join(str(http['name']) for http in same)})" if https[1:] else ""
            yield "process/http", f"{said}, but {answer}{names}", _quote(*below, *same)
    for process in processes:
        for http in https:
            if _down(process) and _is(http, "healthy"):
                status = http["observed"].get("status")
                message = f"{_said(process)}, but HTTP answers {status}: something else serves it"
                yield "process/http", message, _quote(process, http)


def _by_answer(https: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The endpoints that are not well, by what they answer: said once, however many they are."""
    found: dict[str, list[Entry]] = {}
    for http in https:
        if _is(http, "unhealthy"):
            status = http["observed"].get("status")
            answer = f"HTTP answers {status}" if status else "HTTP gives no answer"
            found.setdefault(answer, []).append(http)
    return found


def _http_against_dependency(
    https: Sequence[Entry], dependencies: Sequence[Entry]
) -> Iterator[_Words]:
    for dependency in dependencies:
        layer, said = dependency["layer"], _look(dependency)
        for http in https:
            if _is(dependency, "unhealthy") and _is(http, "healthy"):
                message = f"{said}, but the health endpoint says it is well"
                yield f"http/{layer}", message, _quote(http, dependency)
            if _is(dependency, "healthy") and _blames(http, str(layer)):
                status = http["observed"]["status"]
                message = (
                    f"{said}, but HTTP answers {status} and blames it: this host reaches it, so "
                    "look at how the release does: its address, its password, its pool"
                )
                yield f"http/{layer}", message, _quote(http, dependency)


def _blames(http: Entry, layer: str) -> bool:
    """Whether the answer of a server in trouble names the dependency."""
    status = http["observed"].get("status")
    if not _is(http, "unhealthy") or not isinstance(status, int) or status < 500:
        return False
    text = str(http["message"]).lower()
    return any(word in text for word in _BLAMED.get(layer, ()))


def _http_against_witness(
    https: Sequence[Entry], layers: Mapping[str, Sequence[Entry]]
) -> Iterator[_Words]:
    """A service is asked how it is, and says well; what others saw of it says otherwise."""
    for http in https:
        if not _is(http, "healthy"):
            continue
        for layer in ("prometheus", "logs", "tls"):
            for witness in layers.get(layer, []):
                # A plain answer on the host has no certificate to disagree with.
                beside = layer == "tls" and not str(http["message"]).startswith("https://")
                if _is(witness, "unhealthy") and not beside:
                    message = f"HTTP answers {http['observed'].get('status')}, but "
                    yield f"http/{layer}", message + witness["message"], _quote(http, witness)


def _container_against_http(
    containers: Sequence[Entry], https: Sequence[Entry]
) -> Iterator[_Words]:
    for container in containers:
        service = str(container.get("service", ""))
        for http in https:
            # The only one of a component needs no name.
            if http.get("service") != service and (http.get("service") or len(containers) > 1):
                continue
            observed, evidence = container["observed"], _quote(container, http)
            if _is(container, "unhealthy") and "test" in observed and _is(http, "healthy"):
                message = (
                    f"the container of {service} says {observed['health']}, the endpoint answers "
                    "healthy: its health check in the compose file asks for something else"
                )
                test = f"\nhealth check: {observed['test']}\nit said: {observed['said']}"
                yield "container/http", message, evidence + test
            if _is(container, "healthy") and "test" in observed and _is(http, "unhealthy"):
                status = http["observed"].get("status")
                answer = f"answers {status}" if status else "gives no answer"
                message = f"the container of {service} says healthy, and the endpoint {answer}"
                test = f"\nhealth check: {observed['test']}"
                yield "container/http", message, evidence + test


def _versions(http: Entry, version: str | None) -> Iterator[_Words]:
    for name, mismatch in http["observed"].get("mismatches", {}).items():
        if version is not None and str(mismatch["expected"]) == version and "found" in mismatch:
            message = f"serves version {mismatch['found']} though {version} was deployed"
            yield "version", message, f"field {name}: {http['message']}"


def _is(entry: Entry, state: str) -> bool:
    return bool(entry["state"] == state)


def _down(process: Entry) -> bool:
    """Not there at all; one that restarts, or is not up yet, may well hold its port."""
    return _is(process, "unhealthy") and bool(process.get("final")) and not process["restarts"]


def _said(process: Entry) -> str:
    observed = process["observed"]
    if "active" in observed:
        return f"the process manager says {observed['active']}"
    if "pm2" in observed:
        return f"PM2 says {observed['pm2']}"
    if "kubernetes" in observed:
        return f"the cluster says {observed['kubernetes']}"
    if "status" in observed:
        return f"the status command ended with {observed['status']}"
    return "the process runs" if "pid" in observed else "the process is gone"


def _look(entry: Entry) -> str:
    """What the last look saw, without how long there was none like it."""
    return str(entry.get("said") or entry["message"])


def _short(entry: Entry) -> str:
    return _said(entry) if entry["layer"] == "process" else _look(entry)


def _quote(*entries: Entry) -> str:
    return "\n".join(f"{entry['id']}: {entry['state']}: {entry['message']}" for entry in entries)

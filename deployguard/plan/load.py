"""From a plan file to a :class:`~deployguard.plan.model.Plan`, or to all of its mistakes.

The walk: text → nodes with places → templates → inventory → models → rules between blocks. Only
text that is not YAML stops it early. A block that the models refuse is left out, so that the rules
still see the rest; what they would say about a left-out block is not said.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deployguard.errors import Mistake, PlanInvalid, UsageError
from deployguard.plan.document import Document, Entry, Finding, Path, Place, TooLarge

if TYPE_CHECKING:
    from deployguard.plan.model import Plan

__all__ = ["load", "load_hosts"]


def load(
    path: str | os.PathLike[str],
    *,
    version: str | None = None,
    variables: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    local_files: bool = True,
) -> Plan:
    """Load and validate a plan file without contacting any host.

    ``version`` replaces the plan's own, ``variables`` are ``vars.NAME`` in templates and win over
    the plan's ``vars``; ``environ`` is what ``env.NAME`` sees, ``os.environ`` by default. Without
    ``local_files`` the artifacts and files that the plan names need not be on this machine, nor the
    variables with the secrets of its checks set. Raises
    :class:`~deployguard.errors.PlanInvalid` with every mistake.
    """
    loading = _Loading(os.fspath(path), version, variables or {}, environ)
    loading.local_files = local_files
    return loading.plan()


def load_hosts(path: str | os.PathLike[str]) -> Plan:
    """The hosts of an inventory file, as a plan without a name: for asking and for recovering.

    Raises :class:`~deployguard.errors.PlanInvalid` with every mistake, and
    :class:`~deployguard.errors.UsageError` where there is no such file.
    """
    from deployguard.plan.syntax import parse

    file = os.path.abspath(path)
    if not os.path.isfile(file):
        raise UsageError(f"there is no inventory {os.fspath(path)}", hint="name its file")
    text = _HOSTS_ONLY % json.dumps(file)
    loading = _Loading(os.fspath(path), None, {}, {})
    loading.local_files = False
    return loading.plan(parse(text.encode(), os.fspath(path))).model_copy(update={"name": ""})


#: A plan that touches every host of the inventory, and nothing on it.
_HOSTS_ONLY = """\
name: hosts
version: none
hosts: %s
components: {none: {artifact: none, path: /none, checks: [command: [none]]}}
"""


class _Loading:
    """One plan file on its way; the findings gather here."""

    def __init__(
        self,
        file: str,
        version: str | None,
        variables: Mapping[str, str],
        environ: Mapping[str, str] | None,
    ) -> None:
        self._file = file
        self._base = os.path.dirname(file)
        self._version = version
        self._variables = variables
        self._environ = os.environ if environ is None else environ
        self.local_files = True
        self._findings: list[Finding] = []
        self._document: Document
        self._unrendered: Callable[[str], str] = str

    def plan(self, document: Document | None = None) -> Plan:
        """The plan; ``document`` is what stands in for the file."""
        document = self._document = document or _parse(self._file, self._file)
        if not isinstance(document.root.value, dict):
            place = document.root.place
            self._findings.append(
                Finding((), "a plan is a mapping", "start with name: and version:", place=place)
            )
            raise self._invalid()
        self._findings += document.findings + document.surprises
        data = self._unfold(document)
        self._refuse_filled(data)
        data = self._render(data)
        self._fill_versioned(data)
        plan = self._validate(data)
        if self._findings or plan is None:
            raise self._invalid()
        return plan

    def _invalid(self) -> PlanInvalid:
        """All findings, one for a place: an alias repeats a mistake in every copy."""
        mistakes: dict[tuple[object, ...], Mistake] = {}
        for finding in self._findings:
            finding = replace(
                finding,
                message=self._unrendered(finding.message),
                hint=self._unrendered(finding.hint),
            )
            mistake = self._document.mistake(finding)
            place = (mistake.file, mistake.line, mistake.column, mistake.message)
            mistakes.setdefault(place, mistake)
        return PlanInvalid(list(mistakes.values()))

    def _unfold(self, document: Document) -> Any:
        try:
            return document.plain()
        except TooLarge:
            self._findings = [
                Finding((), "aliases multiply to more values than a plan can have", "use fewer *")
            ]
            raise self._invalid() from None

    def _refuse_filled(self, data: dict[str, Any]) -> None:
        """Fields that only the loader fills are no keys of the file."""
        for key in ("source", "places", "given"):
            if key in data:
                del data[key]
                self._findings.append(Finding((key,), "unknown key", "remove it", on_key=True))
        for path, http in _http_checks(data):
            if "versioned" in http:
                del http["versioned"]
                self._findings.append(
                    Finding((*path, "versioned"), "unknown key", 'did you mean "version"?', True)
                )

    # --- templates and the inventory -------------------------------------------------------------

    def _render(self, data: dict[str, Any]) -> dict[str, Any]:
        from deployguard.plan.template import Rendering

        rendering = self._rendering = Rendering(data, self._variables, self._environ)
        self._unrendered = rendering.unrendered
        rendering.names(self._version)
        if isinstance(data.get("hosts"), str):
            given = rendering.tree(data["hosts"], ("hosts",))
            data["hosts"] = self._inventory(given)
        self._raw = data
        done = {"vars", "environment", "name", "version", "hosts"}
        rendered = {
            key: value if key in done else rendering.tree(value, (key,))
            for key, value in data.items()
        }
        if isinstance(data.get("hosts"), dict):
            rendered["hosts"] = self._render_hosts(data["hosts"])
        self._findings += rendering.findings
        return rendered

    def _render_hosts(self, hosts: dict[str, Any]) -> dict[str, Any]:
        """Free values of hosts keep their braces: in an inventory they are Ansible's."""
        rendered: dict[str, Any] = {}
        for name, host in hosts.items():
            if isinstance(host, dict):
                own = {key: value for key, value in host.items() if key != "vars"}
                rendered[name] = self._rendering.tree(own, ("hosts", name))
                if "vars" in host:
                    rendered[name]["vars"] = host["vars"]
            else:
                rendered[name] = host
        return rendered

    def _inventory(self, given: str) -> Any:
        """Put the hosts of an inventory file where ``hosts:`` stands."""
        from deployguard.plan.inventory import hosts_from

        key: Entry = self._document.root.value["hosts"]
        if any(finding.path == ("hosts",) for finding in self._rendering.findings):
            return {}
        path = os.path.join(self._base, given)
        try:
            inventory = _parse(path, path)
            inventory.plain()
        except PlanInvalid as invalid:
            for mistake in invalid.mistakes:
                place = Place(mistake.file, mistake.line, mistake.column)
                if mistake.message.startswith("cannot be read"):
                    message = f'the inventory "{given}" {mistake.message}'
                    self._findings.append(Finding(("hosts",), message))
                else:
                    self._findings.append(
                        Finding(("hosts",), mistake.message, mistake.hint, place=place)
                    )
            return {}
        except TooLarge:
            self._findings.append(Finding(("hosts",), "aliases multiply to too many values"))
            return {}
        hosts, findings = hosts_from(inventory)
        self._document.root.value["hosts"] = Entry(key.place, hosts)
        for finding in findings:
            path_here: Path = ("hosts", *finding.path)
            self._findings.append(
                Finding(path_here, finding.message, finding.hint, finding.on_key, finding.place)
            )
        return Document(path, hosts).plain()

    # --- checks that name the version ------------------------------------------------------------

    def _fill_versioned(self, data: dict[str, Any]) -> None:
        """Which JSON fields hold the deployed version: those that change with it.

        A host that is restored runs the old version and is judged without them.
        """
        for path, http in _http_checks(data):
            raw = _at(self._raw, path).get("json")
            fields = http.get("json")
            versioned: list[str] = []
            if isinstance(fields, dict) and isinstance(raw, dict):
                other = self._rendering.sentinel(raw)
                versioned = [key for key, value in fields.items() if value != other[key]]
            field = http.get("version")
            if isinstance(field, str) and isinstance(fields, dict | None):
                fields = fields or {}
                if fields.get(field, data["version"]) != data["version"]:
                    self._findings.append(
                        Finding(
                            (*path, "version"),
                            f'json asks for another value of "{field}"',
                            "remove one of the two",
                        )
                    )
                http["json"] = fields | {field: data["version"]}
                versioned += [] if field in versioned else [field]
            http["versioned"] = versioned

    # --- models and rules ------------------------------------------------------------------------

    def _validate(self, data: dict[str, Any]) -> Plan | None:
        from pydantic import ValidationError

        from deployguard.plan.mistakes import Objections
        from deployguard.plan.model import Plan
        from deployguard.plan.remainder import remainder

        spoiled = {finding.path for finding in self._findings}
        plan: Plan | None = None
        try:
            plan = Plan.model_validate(data)
        except ValidationError as error:
            objections = Objections(Plan, self._document, data, self._unrendered)
            found = objections.findings(error)
            self._findings += [finding for finding in found if finding.path not in spoiled]
            plan, removed = remainder(Plan, data, error)
            spoiled |= {finding.path for finding in found} | removed
        if plan is None:
            return None
        self._apply_rules(plan, data, spoiled)
        return plan.model_copy(
            update={
                "source": self._file,
                "places": dict(self._document.places()),
                "given": tuple(self._given()),
            }
        )

    def _given(self) -> Iterator[str]:
        """The options without which the file is another plan, or none."""
        if self._version is not None and "version" not in self._document.root.value:
            yield from ("--release", self._version)
        for name in self._variables:
            yield from ("--var", f"{name}=...")

    def _apply_rules(self, plan: Plan, data: dict[str, Any], spoiled: set[Path]) -> None:
        from deployguard.plan.names import Names
        from deployguard.plan.validation import plan_findings

        hosts, components = data.get("hosts"), data.get("components")
        # A host that was left out may have been all there was of a group.
        certain = isinstance(hosts, dict) and not any(
            path[:1] == ("hosts",) and (len(path) <= 2 or "groups" in path) for path in spoiled
        )
        names = Names(
            hosts=tuple(plan.hosts) if certain else None,
            components=tuple(components) if isinstance(components, dict) else None,
        )
        base = self._base if self.local_files else None
        environ = self._environ if self.local_files else None
        for finding in plan_findings(plan, base, names, environ):
            if not any(_related(finding.path, path) for path in spoiled):
                self._findings.append(finding)


def _parse(path: str, shown: str) -> Document:
    from deployguard.plan.syntax import parse, read

    return parse(read(path, shown), shown)


def _http_checks(data: dict[str, Any]) -> list[tuple[Path, dict[str, Any]]]:
    """The ``http`` blocks of all checks, wherever the document has the right shape for one."""
    found: list[tuple[Path, dict[str, Any]]] = []
    components = data.get("components")
    for name, component in components.items() if isinstance(components, dict) else ():
        checks = component.get("checks") if isinstance(component, dict) else None
        for index, check in enumerate(checks if isinstance(checks, list) else ()):
            http = check.get("http") if isinstance(check, dict) else None
            if isinstance(http, dict):
                found.append((("components", name, "checks", index, "http"), http))
    return found


def _at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


def _related(one: Path, other: Path) -> bool:
    """Whether one of the paths is the other, or lies above it."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]

"""Jinja2 in string values: sandboxed, strict about undefined names, and only where it is used.

Jinja2 is imported when the first template is rendered, so that a plan without one does not pay
for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployguard.plan.document import Finding, Path
from deployguard.plan.suggestion import did_you_mean

__all__ = ["Rendering", "has_template"]

# Stands in for the version in a second rendering of the checks: what differs holds the version.
SENTINEL_VERSION = "0.0.0-sentinel.of.deployguard"

# Later ones may use the earlier ones; the rest of the plan may use all of them.
_KNOWN = ("version", "name", "environment", "env", "vars")
_FIRST = ("environment", "name", "version")


def has_template(text: str) -> bool:
    """Whether the text is more than text to Jinja2."""
    return "{{" in text or "{%" in text or "{#" in text


class TemplateFault(Exception):
    """A template that cannot be rendered, in plain words."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class Templates:
    """Renders strings with one set of names; keeps compiled templates. ``known`` are the names that
    are told to one who uses another."""

    def __init__(self, known: tuple[str, ...] = _KNOWN) -> None:
        self._environment: Any = None
        self._known = known
        self._compiled: dict[str, Any] = {}

    def render(self, source: str, names: Mapping[str, Any]) -> str:
        """The text of one template. Raises :class:`TemplateFault`, and nothing else."""
        import jinja2
        from jinja2.exceptions import SecurityError

        try:
            template = self._compiled.get(source)
            if template is None:
                template = self._compiled[source] = self._engine().from_string(source)
            return str(template.render(names))
        except TemplateFault:
            raise
        except jinja2.TemplateSyntaxError as error:
            line = f" in line {error.lineno} of the text" if "\n" in source else ""
            reason = (error.message or "it cannot be read").rstrip(".")
            message = f"the template is not well formed{line}: {reason}"
            raise TemplateFault(message, _syntax_hint(source)) from None
        except SecurityError as error:
            raise TemplateFault(f"the template is refused: {error}") from None
        except jinja2.TemplateError as error:
            raise TemplateFault(f"the template cannot be rendered: {error}") from None
        except (MemoryError, RecursionError):
            raise TemplateFault("the template grows without end") from None
        # A template is a small program; whatever it raises is a mistake in the plan, not a fault
        # of ours.
        except Exception as error:  # noqa: BLE001
            raise TemplateFault(f"the template cannot be rendered: {error}") from None

    def _engine(self) -> Any:
        if self._environment is None:
            self._environment = _environment(self._known)
        return self._environment


class _EnvironmentVariables(dict[str, str]):
    """``env`` in templates; a type of its own so that a missing name is told apart.

    It remembers which variables were looked at: their values may be secrets.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ)
        self.used: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        value = super().__getitem__(name)
        self.used[name] = value
        return value

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self:
            return default
        return self[name]


def _syntax_hint(source: str) -> str:
    if source.count("{{") > source.count("}}"):
        return "close it with }}"
    if source.count("{%") > source.count("%}"):
        return "close it with %}"
    return "to write the braces themselves, use {{ '{{' }}"


def _environment(known: tuple[str, ...]) -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Missing(StrictUndefined):
        """Says what is missing and what may have been meant."""

        __slots__ = ()

        @property
        def _undefined_message(self) -> str:
            raise _missing(self._undefined_name, self._undefined_obj, known)

    class Engine(ImmutableSandboxedEnvironment):
        """Items before attributes: ``vars.items`` is the variable, not the method of dict."""

        def getattr(self, obj: Any, attribute: str) -> Any:
            if isinstance(obj, dict) and attribute in obj:
                return obj[attribute]
            return super().getattr(obj, attribute)

    def as_text(value: Any) -> Any:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str | int | float | StrictUndefined):
            return value
        kind = "nothing" if value is None else "a list or mapping"
        raise TemplateFault(
            f"the template gives {kind}, not text", "use a filter such as default, join or tojson"
        )

    return Engine(undefined=Missing, keep_trailing_newline=True, finalize=as_text, autoescape=False)


def _missing(name: Any, owner: Any, known: tuple[str, ...]) -> TemplateFault:
    from jinja2.utils import missing

    if isinstance(owner, _EnvironmentVariables):
        return TemplateFault(
            f"the environment variable {name} is not set",
            f"set it, or write {{{{ env.{name} | default('…') }}}}",
        )
    if owner is missing:
        hint = did_you_mean(str(name), known, among="a template can use")
        return TemplateFault(f'"{name}" is not known to templates', hint)
    keys = [str(key) for key in owner] if isinstance(owner, dict) else []
    return TemplateFault(
        f'there is no "{name}" in what the template looks at',
        did_you_mean(str(name), keys, among="it has"),
    )


class Rendering:
    """Renders a whole plan: the names first, then everything else, collecting every fault."""

    def __init__(
        self, data: dict[str, Any], variables: Mapping[str, str], environ: Mapping[str, str]
    ) -> None:
        self._data = data
        self._templates = Templates()
        self._given = dict(variables)
        self.findings: list[Finding] = []
        self._environ = _EnvironmentVariables(environ)
        self._names: dict[str, Any] = {"env": self._environ, "vars": {}}

    def names(self, version: str | None) -> None:
        """Render ``vars``, then ``environment``, ``name`` and ``version``, each in the data.

        A ``version`` from the command line is taken as it is.
        """
        data, names = self._data, self._names
        block = data.get("vars")
        if isinstance(block, dict):
            for key in block:
                # A variable may use those above it and those of the command line.
                names["vars"] |= self._given
                block[key] = self.tree(block[key], ("vars", key))
                names["vars"][key] = block[key]
        names["vars"] |= self._given
        data.setdefault("environment", "production")
        if version is not None:
            data["version"] = version
        for key in _FIRST:
            value = data.get(key)
            if isinstance(value, str) and not (key == "version" and version is not None):
                value = data[key] = self.tree(value, (key,))
            # Wrong types are found by the model; here they must not cause a second mistake.
            names[key] = value if isinstance(value, str) else str(value)

    def tree(self, value: Any, path: Path, names: Mapping[str, Any] | None = None) -> Any:
        """The value with every template in it rendered. A faulty one stays as it is."""
        if isinstance(value, str):
            if not has_template(value):
                return value
            try:
                return self._templates.render(value, names or self._names)
            except TemplateFault as fault:
                if names is None:
                    self.findings.append(Finding(path, fault.message, self._hint(fault)))
                return value
        if isinstance(value, dict):
            return {key: self.tree(item, (*path, key), names) for key, item in value.items()}
        if isinstance(value, list):
            return [self.tree(item, (*path, index), names) for index, item in enumerate(value)]
        return value

    def _hint(self, fault: TemplateFault) -> str:
        for key in _FIRST:
            if key not in self._names and fault.message.startswith(f'"{key}" '):
                return f"{key} is rendered after this"
        return fault.hint

    def unrendered(self, text: str) -> str:
        """The text with the template again where a value of the environment stands in it.

        The name, the version and the environment are shown everywhere, and are no secrets; and
        what is shorter than six characters is not one either.
        """
        known = {self._names.get(key) for key in _FIRST}
        for name, value in sorted(self._environ.used.items(), key=lambda item: -len(item[1])):
            if len(value) >= 6 and value not in known:
                text = text.replace(value, f"{{{{ env.{name} }}}}")
        return text

    def sentinel(self, value: Any) -> Any:
        """The value rendered with a version that no plan has; faults were told the first time."""
        return self.tree(value, (), self._names | {"version": SENTINEL_VERSION})

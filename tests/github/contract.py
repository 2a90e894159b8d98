"""Judges every request and every response against GitHub's OpenAPI description.

A hand-written fake drifts towards whatever its client happens to send. This one cannot: what the
description does not allow, in either direction, is a violation. It is stricter than GitHub in one
way: parameters and fields of a request that GitHub would silently ignore are violations too,
because a misspelt one is a bug that nothing else would show.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from openapi_core import Config, OpenAPI
from openapi_core.datatypes import RequestParameters
from werkzeug.datastructures import Headers, ImmutableMultiDict

DESCRIPTION = Path(__file__).with_name("openapi.json")


@dataclass
class Call:
    """A request as it came over the wire, its path without any Enterprise prefix."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes
    parameters: RequestParameters = field(init=False, repr=False)
    host_url: str = "https://api.github.com"

    def __post_init__(self) -> None:
        self.parameters = RequestParameters(
            query=ImmutableMultiDict(self.query), header=Headers(dict(self.headers))
        )

    @property
    def content_type(self) -> str:
        """What the body claims to be, in the form the checker wants."""
        return self.headers.get("content-type", "").lower()

    @property
    def content(self) -> Any:
        """The body as JSON; an empty object where there is none, or none that can be read."""
        try:
            return json.loads(self.body or b"{}")
        except ValueError:
            return {}


@dataclass
class Answer:
    """A response before it is written out."""

    status_code: int
    content: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    @property
    def data(self) -> bytes:
        """The body as it goes over the wire."""
        if isinstance(self.content, str):
            return self.content.encode()
        return b"" if self.content is None else json.dumps(self.content).encode()


class Contract:
    """GitHub's description, ready to judge."""

    def __init__(self, description: dict[str, Any]) -> None:
        description = _with_null_in_enums(description)
        self._description = description
        strict = Config(additional_properties_default_policy="forbid")
        self._requests = OpenAPI.from_dict(description, config=strict)
        # Some answers are an `allOf`, each part of which would forbid the fields of the others.
        self._responses = OpenAPI.from_dict(description)

    def wrong_with_request(self, call: Call) -> list[str]:
        """What GitHub does not allow about ``call``; empty when all is well."""
        pattern = self.pattern(call)
        if pattern is None:
            return [_told(call, "request", "not an operation in openapi.json")]
        wrong = [
            _told(call, "request", problem)
            for problem in self._requests.iter_request_errors(_without_null_milestone(call))
        ]
        known = self._query_parameters(pattern, call.method)
        wrong += [
            _told(call, "request", f"no query parameter {name!r}")
            for name, _ in call.query
            if name not in known
        ]
        if call.headers.get("accept") not in (None, "*/*", "application/vnd.github+json"):
            wrong.append(_told(call, "request", f"accept: {call.headers['accept']}"))
        return wrong

    def wrong_with_response(self, call: Call, answer: Answer) -> list[str]:
        """What GitHub would not have answered to ``call``.

        A status the operation does not document (401, 429, 500, 502) can be sent on purpose only;
        its body, when JSON, is held to the schema of GitHub's error bodies.
        """
        pattern = self.pattern(call)
        documented = self._operation(pattern, call.method)["responses"] if pattern else {}
        if str(answer.status_code) in documented:
            problems: Iterable[Exception] = self._responses.iter_response_errors(call, answer)
        elif answer.content_type == "application/json":
            problems = self._wrong_with_error_body(answer.content)
        else:
            problems = ()
        return [_told(call, f"response {answer.status_code}", problem) for problem in problems]

    def pattern(self, call: Call) -> str | None:
        """The path in the description that ``call`` is for, such as ``/repos/{owner}/{repo}``."""
        for pattern, operations in self._description["paths"].items():
            shape = re.sub(r"\{\w+\}", "[^/]+", pattern)
            if re.fullmatch(shape, call.path) and call.method in operations:
                return str(pattern)
        return None

    def example(self, schema: str) -> dict[str, Any]:
        """The plainest object that satisfies ``schema``: required properties only."""
        made = self._example({"$ref": f"#/components/schemas/{schema}"})
        assert isinstance(made, dict), f"{schema} is not an object"
        return made

    def _example(self, schema: dict[str, Any]) -> Any:
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return self._example(self._description["components"]["schemas"][name])
        if schema.get("nullable"):
            return None
        if "enum" in schema:
            return schema["enum"][0]
        if schema.get("format") == "uri":
            return "https://api.github.com/"
        if schema.get("format") == "date-time":
            return "2026-01-01T00:00:00Z"
        if schema.get("type") == "object":
            properties = schema.get("properties", {})
            return {name: self._example(properties[name]) for name in schema.get("required", ())}
        return {"integer": 0, "boolean": False, "array": [], "string": ""}[schema["type"]]

    def _operation(self, pattern: str, method: str) -> dict[str, Any]:
        found = self._description["paths"][pattern][method]
        assert isinstance(found, dict)
        return found

    def _query_parameters(self, pattern: str, method: str) -> set[str]:
        shared = self._description["components"]["parameters"]
        parameters = self._operation(pattern, method).get("parameters", ())
        resolved = [shared[p["$ref"].rpartition("/")[2]] if "$ref" in p else p for p in parameters]
        return {p["name"] for p in resolved if p["in"] == "query"}

    def _wrong_with_error_body(self, content: Any) -> list[Exception]:
        known = self._description["components"]["schemas"]["basic-error"]["properties"]
        if isinstance(content, dict) and content.keys() <= known.keys() and "message" in content:
            return []
        return [ValueError(f"not an error body of GitHub's: {content!r}")]


@cache
def contract() -> Contract:
    """The committed description, loaded once a process: it takes a fifth of a second."""
    return Contract(json.loads(DESCRIPTION.read_bytes()))


def _without_null_milestone(call: Call) -> Call:
    """``call`` without a ``milestone: null``, which is allowed but which the checker rejects.

    The description says nullable beside a ``oneOf`` of types without null, and openapi-core
    reads that as "null matches no branch".
    """
    if not (isinstance(call.content, dict) and call.content.get("milestone", 0) is None):
        return call
    rest = {name: value for name, value in call.content.items() if name != "milestone"}
    return Call(call.method, call.path, call.query, call.headers, json.dumps(rest).encode())


def _with_null_in_enums(node: Any) -> Any:
    """The description with null among the words of what it calls nullable.

    The letter of OpenAPI 3.0 wants it in both places. GitHub, which answers a null conclusion for a
    check that runs still, says it in one.
    """
    if isinstance(node, list):
        return [_with_null_in_enums(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: _with_null_in_enums(value) for key, value in node.items()}
    if found.get("nullable") is True and isinstance(found.get("enum"), list):
        found["enum"] = [*found["enum"], None]
    return found


def _told(call: Call, what: str, problem: Exception | str) -> str:
    """One violation in one line: openapi-core hangs the reasons below the error it raises."""
    cause: Any = problem
    while getattr(cause, "__cause__", None) is not None:
        cause = cause.__cause__
    below: Iterable[Any] = getattr(cause, "schema_errors", ())
    reasons = [f"{error.json_path}: {error.message}"[:300] for error in below] or [str(cause)]
    return f"{call.method.upper()} {call.path}: {what}: " + "; ".join(reasons)

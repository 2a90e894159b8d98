"""Cut GitHub's OpenAPI description down to what the test server answers.

GitHub publishes the description as the npm package ``@octokit/openapi``: 13 MB, far too much to
commit and slow to load. This keeps the operations named in ``OPERATIONS`` and whatever they refer
to, and drops all prose and examples; what validates a message is kept to the letter, so the
committed file is exactly as strict as the original. Run it again after adding an operation::

    python tests/github/trim_openapi.py                                # fetches it with npm pack
    python tests/github/trim_openapi.py .../generated/api.github.com.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = "@octokit/openapi@23.0.2"
MEMBER = "package/generated/api.github.com.json"
TARGET = Path(__file__).with_name("openapi.json")

_REPO = "/repos/{owner}/{repo}"
_ISSUE = f"{_REPO}/issues/{{issue_number}}"
OPERATIONS: dict[str, tuple[str, ...]] = {
    _REPO: ("get",),
    f"{_REPO}/issues": ("get", "post"),
    _ISSUE: ("get", "patch"),
    f"{_ISSUE}/comments": ("get", "post"),
    f"{_REPO}/labels": ("get", "post"),
    f"{_REPO}/labels/{{name}}": ("get",),
    f"{_REPO}/commits/{{ref}}/status": ("get",),
    f"{_REPO}/commits/{{ref}}/check-runs": ("get",),
}

# Error bodies GitHub sends for statuses an operation does not document (401, 429): the server
# checks them against this schema, so it must survive even where nothing refers to it.
ALWAYS = ("#/components/schemas/basic-error",)

# Nothing here takes part in validation.
_PROSE = frozenset(
    {"description", "summary", "title", "example", "examples", "externalDocs", "tags", "deprecated"}
)
# Maps whose keys are names chosen by the API: a property called "title" is not prose.
_NAME_MAPS = frozenset({"properties", "schemas", "parameters", "responses", "headers", "content"})


def trim(full: dict[str, Any]) -> dict[str, Any]:
    """The smallest description that validates ``OPERATIONS`` as the full one does."""
    paths = {
        path: {method: full["paths"][path][method] for method in methods}
        for path, methods in OPERATIONS.items()
    }
    info = {key: full["info"][key] for key in ("version", "license")}
    info["title"] = f"{full['info']['title']}, trimmed"
    return {
        "openapi": full["openapi"],
        "info": info,
        "servers": full["servers"],
        "paths": _without_prose(paths, names=True),
        "components": _without_prose(_reachable(full, paths), names=True),
    }


def _reachable(full: dict[str, Any], paths: dict[str, Any]) -> dict[str, Any]:
    """The components that ``paths`` need, directly or through one another."""
    kept: dict[str, Any] = {}
    queue = [*ALWAYS, *_references(paths)]
    while queue:
        _, _, section, name = queue.pop().split("/")
        if name not in kept.setdefault(section, {}):
            kept[section][name] = full["components"][section][name]
            queue.extend(_references(kept[section][name]))
    return {section: dict(sorted(kept[section].items())) for section in sorted(kept)}


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            elif key not in ("example", "examples"):
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _without_prose(node: Any, *, names: bool = False) -> Any:
    if isinstance(node, list):
        return [_without_prose(value) for value in node]
    if not isinstance(node, dict):
        return node
    kept: dict[str, Any] = {}
    for key, value in node.items():
        if not names and (key in _PROSE or key.startswith("x-")):
            continue
        kept[key] = _without_prose(value, names=key in _NAME_MAPS)
        if key == "responses":
            for response in kept[key].values():
                if "$ref" not in response:
                    response["description"] = ""  # the one piece of prose OpenAPI insists on
    return kept


def _packed() -> dict[str, Any]:
    """The description out of the npm package, from whichever registry npm is set up to use."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            ["npm", "pack", "--silent", PACKAGE], cwd=scratch, check=True, stdout=subprocess.DEVNULL
        )
        (archive,) = Path(scratch).glob("*.tgz")
        with tarfile.open(archive) as package:
            member = package.extractfile(MEMBER)
            assert member is not None, f"{MEMBER} is not a file in {PACKAGE}"
            return _object(member.read())


def _object(text: str | bytes) -> dict[str, Any]:
    value = json.loads(text)
    assert isinstance(value, dict), "an OpenAPI description is a JSON object"
    return value


def main() -> None:
    """Write ``openapi.json`` beside this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("description", nargs="?", type=Path, help="api.github.com.json; else npm")
    given: Path | None = parser.parse_args().description
    full = _packed() if given is None else _object(given.read_bytes())
    TARGET.write_text(json.dumps(trim(full), separators=(",", ":"), sort_keys=True) + "\n")
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

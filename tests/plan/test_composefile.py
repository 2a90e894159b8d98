"""Compose files of a release, read before any host is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployguard.errors import PlanInvalid
from deployguard.plan import load
from deployguard.plan.composefile import faults
from deployguard.rollout.releases import open_releases

GOOD = """\
services:
  api: {image: "shop/api:${TAG:-v1}", depends_on: [db]}
  db: {image: postgres}
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD, []),
        ("services:\n  api:\n   image: x\n  - y\n", ["compose.yaml:4:3: "]),
        ("services:\n\tapi: {}\n", ["compose.yaml:2:1: found character that cannot"]),
        ("- services\n", ["compose.yaml: holds no mapping"]),
        ("", ["compose.yaml: holds no mapping"]),
        ("version: '3'\n", ["compose.yaml: has no services"]),
        ("include: [other.yaml]\n", []),
        ("services: [api]\n", ["compose.yaml:1:11: services must be a mapping"]),
        ("services: {api: }\n", ["compose.yaml:1:17: service api must be a mapping"]),
        (
            "services:\n  api: {image: x, depends_on: [dbb]}\n  db: {image: y}\n",
            ["compose.yaml:2:32: api depends on dbb, which is no service"],
        ),
        (
            "services:\n  api:\n    depends_on:\n      dbb: {condition: service_healthy}\n",
            ["compose.yaml:4:7: api depends on dbb, which is no service"],
        ),
        ("services: {a: &x {image: i}, b: *x}\n", []),
        ("x-s: &s {db: {image: y}}\nservices: {<<: *s, a: {image: i, depends_on: [db]}}\n", []),
    ],
)
def test_what_is_said(text: str, said: list[str]) -> None:
    """Its place, and what is wrong; nothing that a newer tool may take is refused."""
    found = faults([("compose.yaml", text.encode())])
    assert len(found) == len(said), found
    assert all(line.startswith(start) for line, start in zip(found, said, strict=True)), found


def test_later_files_add_to_the_earlier() -> None:
    """A service may need one of another file."""
    first = b"services: {api: {image: x, depends_on: [db]}}"
    assert faults([("a.yaml", first), ("b.yaml", b"services: {db: {image: y}}")]) == []
    assert faults([("a.yaml", b"\xff")]) == ["a.yaml: not UTF-8"]


def _open(directory: Path, checks: str = "[{process: {}}]", **files: str) -> list[str]:
    tree = directory / "tree"
    tree.mkdir(exist_ok=True)
    (tree / "app.py").write_text("")
    for name, text in files.items():
        (tree / name.replace("_", ".")).write_text(text)
    (directory / "plan.yaml").write_text(
        "name: shop\nversion: v1\nhosts: {web1: }\ncomponents:\n  shop:\n    artifact: tree\n"
        "    path: /srv/shop\n    service: {compose: {}}\n"
        f"    checks: {checks}\n"
    )
    plan = load(directory / "plan.yaml", environ={})
    import contextlib

    try:
        with contextlib.ExitStack() as stack:
            open_releases(plan, stack)
    except PlanInvalid as error:
        return [str(mistake).replace(f"{directory}/", "") for mistake in error.mistakes]
    return []


def test_a_release_with_a_broken_file(tmp_path: Path) -> None:
    """Is a mistake with the place of the plan and that of the compose file; exit code 2."""
    said = _open(tmp_path, compose_yaml="services:\n  api: [\n")
    assert len(said) == 1
    assert said[0].startswith("plan.yaml:8:15 components.shop.service.compose: tree: compose.yaml:")
    assert said[0].endswith("mend the compose file")
    assert _open(tmp_path, compose_yaml=GOOD) == []


def test_a_release_without_a_file(tmp_path: Path) -> None:
    """The tools would look above the tree, and find who knows what."""
    said = _open(tmp_path)
    assert len(said) == 1
    assert "tree: there is no compose file in it; looked for compose.yaml" in said[0]


STACK = "services:\n  api: {image: x}\n  db: {image: y}\n"
NAMED = "[{container: [api, bd]}, {http: {url: 'http://127.0.0.1/', service: app}}]"


def test_a_service_that_the_stack_has_not(tmp_path: Path) -> None:
    """Its check could never pass: that is said here, and not after a switch and a restore."""
    said = _open(tmp_path, NAMED, compose_yaml=STACK)
    assert said == [
        "plan.yaml:9:15 components.shop.checks[0].container: "
        "tree: compose.yaml has no service bd; it has api, db",
        "plan.yaml:9:81 components.shop.checks[1].http.service: "
        'tree: compose.yaml has no service app; did you mean "api"?',
    ]


def test_where_services_may_come_from_elsewhere(tmp_path: Path) -> None:
    """Nothing is said of a stack that is not seen whole from here."""
    assert _open(tmp_path, NAMED, compose_yaml=f"include: [more.yaml]\n{STACK}") == []
    more = "services: {bd: {image: x}, app: {image: y}}\n"
    assert _open(tmp_path, NAMED, compose_yaml=STACK, **{"compose.override_yaml": more}) == []

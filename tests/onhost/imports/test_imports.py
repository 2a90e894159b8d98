"""Modules that a staged release asks for: what is found missing, and what is nobody's to check."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.onhost.imports import check as imports
from deployguard.onhost.imports import javascript as jsimports
from deployguard.onhost.imports import python as pyimports
from deployguard.onhost.imports.javascript import NotRead, needs
from deployguard.onhost.imports.overlay import Overlay
from deployguard.onhost.places import place
from deployguard.onhost.system import System
from deployguard.onhost.trees.inspection import View
from tests.onhost.sample_trees import make

system = System()


def names(source: str) -> List[str]:
    """What a source has to find."""
    return [need.name for need in needs(source) if not need.optional]


# -- the sources of Node ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('const a = require("./a"), b = require(\'b/sub\')', ["./a", "b/sub"]),
        ('import d, { x as y } from "./e.js"; import * as n from "n"', ["./e.js", "n"]),
        ('import "./side.js"\nexport * from "./x.js"\nexport { k } from "k"',
         ["./side.js", "./x.js", "k"]),
        ('const d = await import("./d.js")', ["./d.js"]),
        ('// require("no")\n/* require("no") */ require("yes")', ["yes"]),
        ("const s = \"require('no')\", t = `require('no') ${require('yes')} ${`${1}`}`", ["yes"]),
        ("const r = /require\\(\"no\"\\)/g; a = b / c / require('yes')", ["yes"]),
        ("if (/[/\"']/.test(x)) require('yes')", ["yes"]),
        ("return /'/.test(require('yes'))", ["yes"]),
        ("obj.require('no'); require(name); require('a' + b); import.meta.url", []),
        ("import type { T } from './types'; import type from './type.js'", ["./type.js"]),
        ("export const from = 3; export default function () {}; export { a }", []),
        ("const importer = 1, requirement = 2, $require = 3", []),
        ("#!/usr/bin/env node\nrequire('yes')", ["yes"]),
        ("`${{a: `${{b: require('yes')}.b}`}.a}`", ["yes"]),
    ],
)  # fmt: skip
def test_what_a_source_asks_for(source: str, found: List[str]) -> None:
    """Code, and not what only looks like it."""
    assert names(source) == found


def test_what_stands_in_a_try_may_be_missing() -> None:
    """And what stands in its catch, or behind it, may not."""
    source = 'try { require("./a"); if (x) { require("./b") } } catch { require("./c") }\n'
    assert names(source + 'require("./d")') == ["./c", "./d"]


def test_lines_are_those_of_the_source() -> None:
    """Counted from one, comments and all."""
    assert [need.line for need in needs('/*\n*/ require("a")\n\nrequire("b")')] == [2, 4]


@pytest.mark.parametrize("source", ["require('a", "require(`a", "require(x) `${", "import \\ /"])
def test_a_source_that_is_not_whole_is_not_judged(source: str) -> None:
    """Whoever runs it will say so."""
    with pytest.raises(NotRead):
        needs(source)


@given(st.text(alphabet="`'\"/\\${}()[]*\nrequire importfom;=.a1", max_size=80))
def test_any_text_ends(source: str) -> None:
    """With an answer or without, and never in another way."""
    try:
        needs(source)
    except NotRead:
        pass


def test_a_large_source_is_read_to_its_end() -> None:
    """A bundle has a megabyte and more; what took longer the longer it is would take minutes."""
    source = "const a = {b: `${x}`, c: /[/]/, d: require('e')}; // f\n" * 20000
    found = needs(source)
    assert (len(found), found[-1].line) == (20000, 20000)


# -- where Node looks ------------------------------------------------------------------------------


def missing(root: Path, *entries: str, packages: bool = True) -> List[str]:
    """What Node would not find, started from files of a tree that stands where it will be."""
    overlay = Overlay(str(root), str(root), None, [])
    paths = [str(root / entry) for entry in entries or ("index.js",)]
    return [found for found in jsimports.walk(overlay, paths, packages=packages) if found]


def test_relative_names(tmp_path: Path) -> None:
    """With endings, as a folder with an index or a main, and from file to file."""
    app = tmp_path / "app"
    make(str(app), {
        "index.js": "require('./a'); require('./dir'); require('./pkg'); require('./data.json')",
        "a.js": "require('./sub/b.cjs'); require('..')",
        "sub/b.cjs": "require('../gone'); require('./c.node')",
        "sub/c.node": "",
        "dir/index.js": "",
        "pkg/package.json": '{"main": "lib/main"}',
        "pkg/lib/main.js": "import './away.mjs?x=1'",
        "data.json": "{}",
    })  # fmt: skip
    assert missing(app) == [
        "a.js:1 needs ..",
        "pkg/lib/main.js:1 needs ./away.mjs?x=1",
        "sub/b.cjs:1 needs ../gone",
    ]


def test_packages(tmp_path: Path) -> None:
    """In any node_modules on the way up; what they need in turn is their own business."""
    app = tmp_path / "a" / "app"
    make(str(tmp_path), {
        "node_modules/express/index.js": "require('gone-too')",
        "a/node_modules/@acme/log/index.js": "",
        "a/app/package.json": '{"name": "self", "_moduleAliases": {"lib": "."}}',
        "a/app/index.js": "require('express/x'); require('@acme/log'); require('node:fs');"
        "require('fs/promises'); require('self/y'); require('#x'); require('lib/z');"
        "require('gone/deep'); require('https://x/y.js')",
    })  # fmt: skip
    assert missing(app) == ["index.js:1 needs gone/deep"]
    assert missing(app, packages=False) == []
    (tmp_path / "a" / ".pnp.cjs").write_text("")
    assert missing(app) == []


def test_links_are_followed_as_they_will_be(tmp_path: Path) -> None:
    """A tree in place stands elsewhere until the switch: its links lead from where it will be."""
    make(str(tmp_path), {
        "srv/common/util.js": "require('./more')",
        "srv/common/more.js": "",
        "srv/.app.deployguard/t1/index.js": "require('./common/util'); require('./kept/db')",
        "srv/app/kept/db.js": "require('../gone')",
        "srv/app/old.js": "",
    })  # fmt: skip
    live, tree = str(tmp_path / "srv/app"), str(tmp_path / "srv/.app.deployguard/t1")
    os.symlink("../common", os.path.join(tree, "common"))
    overlay = Overlay(live, tree, live, ["kept"])
    found = [x for x in jsimports.walk(overlay, [live + "/index.js"], packages=True) if x]
    assert found == ["kept/db.js:1 needs ../gone"]
    assert not overlay.is_file(live + "/old.js") and overlay.is_file(live + "/kept/db.js")
    os.symlink("loop", os.path.join(tree, "loop"))
    assert not overlay.is_file(live + "/loop")


# -- Python ----------------------------------------------------------------------------------------


def python(tree: Path, *entries: str, **more: Any) -> List[str]:
    """What this Python would not find."""
    asked: Dict[str, Any] = {"tree": str(tree), "root": None, "kept": [], "roots": ["."]}
    asked.update(entries=list(entries), own=[], packages=True)
    asked.update(more)
    problems: List[str] = pyimports.check(asked)["problems"]
    return problems


def test_own_modules(tmp_path: Path) -> None:
    """Absolute and relative, in functions as well; what is bound in a package is no module."""
    make(str(tmp_path), {
        "manage.py": "import shop.main\nfrom shop import settings, NAME, gone\n",
        "shop/__init__.py": "from .names import NAME\n",
        "shop/names.py": "NAME = 1\n",
        "shop/settings.py": "",
        "shop/main.py": "from . import names\nfrom .tele import x\nfrom ..out import y\n"
        "def f():\n    import shop.late\n    from shop.names import ANY\n",
    })  # fmt: skip
    assert python(tmp_path, "manage.py") == [
        "manage.py:2 needs gone from shop",
        "shop/main.py:2 needs .tele",
        "shop/main.py:3 needs ..out",
        "shop/main.py:5 needs shop.late",
    ]


def test_installed_packages_and_own_names(tmp_path: Path) -> None:
    """A name that nothing has is missing; whether it is ours only the plan can say."""
    make(str(tmp_path), {
        "app.py": "import os.path, json\nimport telemetry\nimport pytest\nfrom lib import x\n",
        "src/lib.py": "x = 1\n",
    })  # fmt: skip
    assert python(tmp_path, "app", roots=["src", "."]) == ["app.py:2 needs telemetry"]
    assert python(tmp_path, "app", packages=False) == []
    own = python(tmp_path, "app.py", packages=False, own=["telemetry"])
    assert own == ["app.py:2 needs telemetry"]


def test_what_may_be_missing(tmp_path: Path) -> None:
    """In a try that catches it, for type checkers, and in packages that make modules up."""
    make(str(tmp_path), {
        "app.py": "from typing import TYPE_CHECKING\nimport typing\n"
        "try:\n    import ujson_not_there\nexcept ImportError:\n    import json\n"
        "try:\n    import gone_a\nexcept (ValueError, ModuleNotFoundError):\n    import gone_b\n"
        "try:\n    import gone_c\nfinally:\n    pass\n"
        "if TYPE_CHECKING:\n    import gone_d\n"
        "if typing.TYPE_CHECKING:\n    import gone_e\nelse:\n    import gone_f\n"
        "from six.moves import urllib\nfrom lazy import anything\n",
        "six/__init__.py": "import sys\nsys.modules['six.moves'] = None\n",
        "lazy/__init__.py": "def __getattr__(name):\n    return 1\n",
    })  # fmt: skip
    assert python(tmp_path, "app.py") == [
        "app.py:10 needs gone_b",
        "app.py:12 needs gone_c",
        "app.py:20 needs gone_f",
    ]


def test_a_source_that_is_no_python(tmp_path: Path) -> None:
    """It would fail at its import, like a module that is not there."""
    make(str(tmp_path), {"app/__main__.py": "from . import bad\n", "app/bad.py": "def f(:\n"})
    (problem,) = python(tmp_path, "app")
    assert problem.startswith("app/bad.py:1 is no Python %d.%d: " % sys.version_info[:2])
    assert python(tmp_path, "gone.main", "gone.py") == [
        "gone.main is not there",
        "gone.py is not there",
    ]


# -- on the host -----------------------------------------------------------------------------------


def staged(tmp_path: Path, layout: str, files: Dict[str, str], keep: List[str]) -> View:
    """A component whose new tree stands where it is staged."""
    path = tmp_path / "srv" / "app"
    path.mkdir(parents=True, exist_ok=True)
    target = {"name": "app", "path": str(path), "layout": layout, "version": "v2", "keep": keep}
    target["ignore"] = []
    placement = place(target, "t1")
    make(placement.tree, files)
    return View(target, placement)


def check(language: str, *entries: str, **more: Any) -> Dict[str, Any]:
    """An ``imports`` check as the controller sends it."""
    data = {"id": "app/imports", "component": "app", "name": "imports", "critical": True}
    asked: Dict[str, Any] = {"language": language, "entries": list(entries), "packages": True}
    asked.update(data, interpreter=None, roots=["."], own=[], deadline=30.0)
    asked.update(more)
    return asked


@pytest.mark.parametrize("layout", ["releases", "in_place"])
@pytest.mark.parametrize(
    ("language", "entry", "files", "words"),
    [
        ("node", "index.js", {"index.js": "require('./db/x')"}, "index.js:1 needs ./db/x"),
        ("python", "app.py", {"app.py": "import db_gone"}, "app.py:1 needs db_gone"),
    ],
)
def test_a_staged_tree(
    tmp_path: Path, layout: str, language: str, entry: str, files: Dict[str, str], words: str
) -> None:
    """In both languages and layouts: the module and the file, or that all is well."""
    view = staged(tmp_path, layout, files, [])
    found = imports.look(check(language, entry), view, system)
    assert (found["state"], found["message"]) == ("unhealthy", words)
    assert imports.look(check(language, entry, packages=False, own=[]), view, system)["state"] == (
        "unhealthy" if language == "node" else "healthy"
    )
    # The stage is verified against its manifest: nothing may be written into it.
    assert sorted(os.listdir(view.placement.tree)) == sorted(files)


@pytest.mark.parametrize("language", ["node", "python"])
def test_kept_files_count_as_there(tmp_path: Path, language: str) -> None:
    """They are in the old tree until the switch."""
    old = tmp_path / "srv" / "app"
    make(str(old), {"db/__init__.py": "", "db/link.py": "", "db/link.js": ""})
    files = {"app.py": "from db import link\n", "app.js": "require('./db/link')"}
    entry = "app.js" if language == "node" else "app.py"
    for keep, state in ((["db"], "healthy"), (["other"], "unhealthy")):
        view = staged(tmp_path, "in_place", files, keep)
        assert imports.look(check(language, entry), view, system)["state"] == state


class Slow(System):
    """Its clock goes a minute at a look."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        """Later than before."""
        self.time += 60.0
        return self.time


def test_a_look_is_bounded(tmp_path: Path) -> None:
    """What was not read to the end is not known to be well."""
    view = staged(tmp_path, "in_place", {"index.js": "require('./a')", "a.js": ""}, [])
    found = imports.look(check("node", "index.js"), view, Slow())
    assert found["state"] == "unknown" and "within 30 s" in found["message"]


def test_an_interpreter_of_the_release(tmp_path: Path) -> None:
    """Its own where it has one; one that is named and not there is not known to be well."""
    view = staged(tmp_path, "in_place", {"app.py": "import db_gone\n"}, [])
    bin_ = Path(view.placement.tree) / ".venv" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "python").write_text("#!/bin/sh\necho not me >&2\nexit 3\n")
    (bin_ / "python").chmod(0o755)
    found = imports.look(check("python", "app.py"), view, system)
    assert found["state"] == "unknown" and "ended with status 3: not me" in found["message"]
    found = imports.look(check("python", "app.py", interpreter="env/bin/python"), view, system)
    assert found["message"] == "env/bin/python is no program in the release"
    found = imports.look(check("python", "app.py", interpreter=sys.executable), view, system)
    assert found["message"] == "app.py:1 needs db_gone"


def test_many_problems_are_counted(tmp_path: Path) -> None:
    """Twenty by name, and how many more there are."""
    source = "\n".join("require('./m%d')" % number for number in range(25))
    view = staged(tmp_path, "in_place", {"index.js": source}, [])
    message: Optional[str] = imports.look(check("node", "index.js"), view, system)["message"]
    assert message is not None and message.count("needs") == 20
    assert message.endswith("; and 5 more")

"""Whether the modules of a staged release resolve: asked before any traffic can see it.

Node's sources are read here (:mod:`deployguard.onhost.imports.javascript`), Python's by the
interpreter that will run them (:mod:`deployguard.onhost.imports.python`), as the owner of the tree:
what lies in its environment is not for root to run. Both are bounded in time, and neither runs the
release.
"""

from __future__ import annotations

import json
import os
import pwd
from typing import Any, Dict, List, Optional

from deployguard.onhost.imports import javascript as jsimports
from deployguard.onhost.imports.overlay import Overlay
from deployguard.onhost.places import WHOLE
from deployguard.onhost.system import System
from deployguard.onhost.trees.inspection import View
from deployguard.onhost.trees.kept import matches

Check = Dict[str, Any]

#: Problems that are named; a release that lacks a module often lacks it in many places.
NAMED = 20
#: Where a release brings its own interpreter along, and where not.
_ENVIRONMENTS = (".venv/bin/python", "venv/bin/python", "env/bin/python")
_PATHS = ("/usr/local/bin", "/usr/bin", "/bin")
#: The program comes first on stdin, the question behind it.
_START = "import sys; exec(sys.stdin.read(%d))"


class Unclear(Exception):
    """It could not be found out."""


def look(check: Check, view: View, system: System) -> Dict[str, Any]:
    """One ``imports`` check of a component whose tree is staged.

    ``{"id", "component", "name", "critical", "state", "message"}``: ``healthy``, ``unhealthy`` with
    the modules and the files that need them, or ``unknown``.
    """
    place = view.placement
    # A release is staged where it will be called; a tree in place is not.
    live = place.live if view.target["layout"] in WHOLE else place.tree
    kept = matches(place.root, view.target["keep"]) if place.root else []
    overlay = Overlay(live, place.tree, place.root, kept)
    answer = {name: check[name] for name in ("id", "component", "name", "critical")}
    try:
        if check["language"] == "node":
            problems = _node(check, overlay, system)
        else:
            problems = _python(check, view, overlay, kept, system)
    except Unclear as error:
        return dict(answer, state="unknown", message=str(error))
    if not problems:
        return dict(answer, state="healthy", message="every module resolves")
    more = len(problems) - NAMED
    shown = "; ".join(problems[:NAMED]) + ("; and %d more" % more if more > 0 else "")
    return dict(answer, state="unhealthy", message=shown)


def _node(check: Check, overlay: Overlay, system: System) -> List[str]:
    ends = system.monotonic() + check["deadline"]
    entries = [overlay.live + "/" + entry for entry in check["entries"]]
    problems = []
    for found in jsimports.walk(overlay, entries, packages=check["packages"]):
        if found is not None:
            problems.append(found)
        if system.monotonic() > ends:
            raise Unclear("not read to the end within %g s" % check["deadline"])
    return list(dict.fromkeys(problems))


def _python(
    check: Check, view: View, overlay: Overlay, kept: List[str], system: System
) -> List[str]:
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "python.py")
    with open(program, encoding="utf-8") as file:
        source = file.read()
    question = {
        "tree": view.placement.tree,
        "root": view.placement.root,
        "kept": kept,
        **{name: check[name] for name in ("roots", "entries", "own", "packages")},
    }
    interpreter = _interpreter(check, overlay)
    done = system.run(
        [interpreter, "-B", "-s", "-c", _START % len(source)],
        env={"PATH": ":".join(_PATHS), "LANG": "C.UTF-8"},
        clean=True,
        cwd="/",
        user=_owner(view.placement.tree),
        input=source.encode("utf-8") + json.dumps(question).encode("ascii"),
        timeout=check["deadline"],
    )
    try:
        if done.ok:
            return list(json.loads(done.stdout)["problems"])
    except (ValueError, KeyError):
        pass
    if done.timed_out:
        raise Unclear("not read to the end within %g s" % check["deadline"])
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [""]
    raise Unclear("%s ended with status %d: %s" % (interpreter, done.status, said[0]))


def _interpreter(check: Check, overlay: Overlay) -> str:
    """The path of the Python that will run the release."""
    wanted = check["interpreter"]
    if wanted and wanted.startswith("/"):
        return str(overlay.place(wanted))
    for name in [wanted] if wanted else _ENVIRONMENTS:
        path = overlay.place(overlay.live + "/" + name)
        if os.access(path, os.X_OK):
            return path
    if wanted:
        raise Unclear("%s is no program in the release" % wanted)
    for directory in _PATHS:
        if os.access(directory + "/python3", os.X_OK):
            return directory + "/python3"
    raise Unclear("there is no python3 in %s" % ":".join(_PATHS))


def _owner(tree: str) -> Optional[str]:
    """Whose the tree is, where we may become them."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwuid(os.stat(tree).st_uid).pw_name
    except KeyError:
        return None

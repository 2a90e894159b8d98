"""Whether a systemd unit is there, and whether we may stop and start it. Changes nothing."""

from __future__ import annotations

import difflib
import os
import pwd
from typing import Any, Dict, List, Mapping, Optional

from deployguard.onhost.system import Completed, System

_SECONDS = 10.0
#: Where a unit file may stand though systemd has not found it: a link into a tree to come, say.
_FOLDERS = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")


def refusal(
    question: Mapping[str, Any], shown: Completed, properties: Mapping[str, str], system: System
) -> Optional[Dict[str, str]]:
    """Why the deploy could not stop and start the unit: ``message`` and ``hint``, or ``None``.

    ``properties`` are what ``systemctl show`` said, which ended as ``shown``. ``question`` has
    ``unit``, ``scope``, ``comes`` (the deploy itself may bring the unit), and ``permit``: a
    command that systemd refuses in any case, after it has looked whether we may.
    """
    unit, state = question["unit"], properties.get("LoadState")
    if state is None:
        hint = "the host needs a systemd that runs; or choose another kind of service"
        return {"message": "nothing is known of %s: %s" % (unit, shown.describe()), "hint": hint}
    if state == "masked" and not question["comes"]:
        return {"message": "%s is masked" % unit, "hint": "systemctl unmask %s" % unit}
    if state == "not-found" and not question["comes"] and not _stands(question):
        hint = _similar(question, system) or "mend the name"
        hint += ", or bring it along with `unit_file`"
        return {"message": "the host has no unit %s" % unit, "hint": hint}
    if question.get("permit"):
        done = system.run(question["permit"], env={"LC_ALL": "C"}, timeout=_SECONDS)
        said = done.stderr.decode("utf-8", "replace").lower()
        if "access denied" in said or "authentication required" in said:
            name = _name()
            return {
                "message": "%s may not stop and start %s" % (name, unit),
                "hint": "set `become: true` for the host in the plan, or allow %s to by a rule "
                "of polkit" % name,
            }
    return None


def _stands(question: Mapping[str, Any]) -> bool:
    """Whether there is a file of that name, or a link that leads nowhere yet."""
    scope = question["scope"]
    folders = [os.path.join(folder, scope) for folder in _FOLDERS]
    if scope == "user":
        folders.append(os.path.expanduser("~/.config/systemd/user"))
    paths = [os.path.join(folder, question["unit"]) for folder in folders]
    return any(os.path.lexists(path) for path in paths)


def _similar(question: Mapping[str, Any], system: System) -> str:
    scope = ["--user"] if question["scope"] == "user" else []
    listing = ["list-unit-files", "--no-legend", "--no-pager", "--plain"]
    lines = system.run(["systemctl", *scope, *listing], timeout=_SECONDS).text.splitlines()
    names: List[str] = [line.split()[0] for line in lines if line.strip()]
    found = difflib.get_close_matches(question["unit"], names, n=1, cutoff=0.75)
    return "did you mean %s?" % found[0] if found else ""


def _name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "uid %d" % os.geteuid()

"""Points of no return: what a migration did to a schema, and the code that must not meet it.

A migration that cannot be taken back is a point of no return as soon as it has begun: what it did
nobody knows better than its database. From there on the old code is not put back by anybody but a
person who has said so: not by the controller, not at the end of a lease, not after a reboot. The
same holds on the other hosts of the transaction, which are told of it when they are armed.

The plan may give a command that proves that the schema is still the old one; then nothing was
crossed. A dump that was made before is kept, and named.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

from deployguard.onhost import durable
from deployguard.onhost.state.journal import Journal
from deployguard.onhost.system import System

#: Why a restore went on behind a point of no return, as the record ``restoring`` has it: a person
#: has said so, or the plan's command has proved that nothing was crossed.
ACCEPTED, UNCHANGED = "accepted", "unchanged"


#: What is recorded of a host that waits for a person.
HELD = ("task", "here", "live", "switched", "dumps")


def crossed(journal: Journal) -> Optional[Dict[str, Any]]:
    """The point of no return that lies behind a transaction, or ``None``.

    ``task`` is its name, ``here`` whether it ran on this host, ``live`` whether the ``new`` tree is
    live or the ``old`` one, ``switched`` whether every step of the procedure was done, and
    ``probe`` the action that may prove the opposite.
    """
    armed = journal.last("armed")
    if armed is None or any(record.get("no_return") for record in journal.all("restoring")):
        return None
    begun = {record["operation"] for record in journal.all("intent")}
    found: Dict[str, Any] = {"switched": journal.last("switched") is not None, "live": "old"}
    passed = [armed["procedure"][index] for index in sorted(begun)]
    if any(action["act"] == "swap" for operation in passed for action in operation["do"]):
        found["live"] = "new"
    for operation in passed:
        if operation.get("no_return"):
            probe = operation.get("unchanged")
            return dict(found, task=operation["no_return"], here=True, probe=probe)
    if begun and armed.get("crossed"):
        return dict(found, task=armed["crossed"], here=False, probe=None)
    return None


def accepted(journal: Journal) -> bool:
    """Whether a person has said that the old code is to come back all the same."""
    return any(record.get("no_return") == ACCEPTED for record in journal.all("restoring"))


def unchanged(point: Dict[str, Any], system: System) -> bool:
    """Whether the plan's own command proves that the schema is still the old one."""
    probe = point["probe"]
    if not probe:
        return False
    done = system.run(
        probe["argv"], env=probe.get("env"), cwd=probe.get("cwd"), timeout=probe["timeout"]
    )
    return done.ok


def stays(journal: Journal) -> List[str]:
    """The migrations that were begun here and not taken back, by the name of their task."""
    armed = journal.last("armed") or {"procedure": []}
    begun = {record["operation"] for record in journal.all("intent")}
    undone = {record["operation"] for record in journal.all("undone")}
    return [
        operation["migration"]
        for index, operation in enumerate(armed["procedure"])
        if operation.get("migration") and index in begun
        if not operation["undo"] or index not in undone
    ]


def takes_back(journal: Journal) -> bool:
    """Whether a restore of this host takes a schema back, or would have to."""
    armed = journal.last("armed") or {"procedure": []}
    begun = {record["operation"] for record in journal.all("intent")}
    return any(
        operation.get("undo_or_stop") and index in begun
        for index, operation in enumerate(armed["procedure"])
    )


def held(journal: Journal) -> Optional[Dict[str, Any]]:
    """What a host waits for a person with, as it was recorded; ``None`` where it does not."""
    if journal.state in ("committed", "restored", "aborted"):
        return None
    for record in reversed(journal.records):
        if record["kind"] in ("restoring", "prepared"):
            return None
        if record["kind"] == "held":
            return {name: record[name] for name in HELD}
    return None


# --- dumps ----------------------------------------------------------------------------------------


def dumps_of(journal: Journal) -> List[str]:
    """The dumps that this transaction has made on this host."""
    armed = journal.last("armed") or {"procedure": []}
    actions = [action for operation in armed["procedure"] for action in operation["do"]]
    return [a["path"] for a in actions if a["act"] == "dump" and os.path.exists(a["path"])]


def make_dump(action: Dict[str, Any], system: System) -> str:
    """Write a dump, and read it. Answers with what is wrong, or empty; a bad one does not stay."""
    path = action["path"]
    durable.make_directory(os.path.dirname(path), 0o700)
    try:
        with durable.writing(path) as stream:
            done = system.run(
                action["argv"],
                env=action.get("env"),
                user=action.get("user"),
                timeout=action["timeout"],
                output=stream.fileno(),
            )
            if not done.ok:
                raise _NoDump(done.describe())
    except _NoDump as error:
        return str(error)
    problem = "" if os.path.getsize(path) else "the dump is empty"
    if not problem and action.get("opens"):
        opens = [word.replace("{path}", path) for word in action["opens"]]
        done = system.run(opens, env=action.get("env"), timeout=action["timeout"])
        problem = "" if done.ok else "the dump does not open: %s" % done.describe()
    if problem:
        os.unlink(path)
    return problem


class _NoDump(Exception):
    """The program that writes the dump failed."""


def prune_dumps(journal: Journal) -> None:
    """After a commit: of each task only its newest dumps stay."""
    armed = journal.last("armed") or {"procedure": []}
    actions = [action for operation in armed["procedure"] for action in operation["do"]]
    for action in actions:
        if action["act"] != "dump":
            continue
        folder, name = os.path.split(action["path"])
        ending = name.partition("~")[2]
        # A transaction's id begins with its time: by name is by age.
        same = sorted(n for n in os.listdir(folder) if n.partition("~")[2] == ending)
        for old in same[: -int(action["keep"])]:
            os.unlink(os.path.join(folder, old))

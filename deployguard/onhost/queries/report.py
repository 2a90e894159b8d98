"""Answers from the host's memory: what is live where, and what is unfinished. Read only."""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator, List, Tuple

from deployguard.onhost.places import State, read_json
from deployguard.onhost.state import lease, locks, machine
from deployguard.onhost.state.journal import Journal
from deployguard.onhost.state.records import JournalDamaged
from deployguard.onhost.state.standing import epoch_of, past
from deployguard.onhost.system import System


def status(state: State, system: System) -> Dict[str, Any]:
    """Every managed path with its versions, every unfinished transaction, every lock."""
    live: List[Dict[str, Any]] = []
    directory = os.path.join(state.root, "live")
    for name in sorted(os.listdir(directory)):
        record = read_json(os.path.join(directory, name, "record.json"))
        if record is not None:
            record["previous"] = [
                {k: v for k, v in older.items() if k != "files"} for older in record["previous"]
            ]
            live.append(record)
    transactions = [_transaction(state, identifier, system) for identifier in state.transactions()]
    return {
        "live": live,
        "unfinished": [t for t in transactions if t["unfinished"]],
        "ended": [
            t for t in transactions if t["state"] in machine.TERMINAL and not t["unfinished"]
        ],
        "locks": locks.held(state),
    }


def _transaction(state: State, identifier: str, system: System) -> Dict[str, Any]:
    folder = state.transaction(identifier)
    try:
        journal = Journal(os.path.join(folder, "journal"), system.now)
    except JournalDamaged as error:
        return {
            "transaction": identifier,
            "state": "damaged",
            "plan": None,
            "owner": None,
            "epoch": 0,
            "since": None,
            "all_or_nothing": True,
            "voted": True,
            "takeovers": 1,
            "going_back": False,
            "held": None,
            "takes_back": False,
            "sent_back": False,
            "unfinished": True,
            "alive": locks.alive(folder),
            "attended": False,
            "error": str(error),
        }
    begun = journal.last("begun") or {}
    settled = journal.last("settled") is not None or journal.state == machine.ABORTED
    return {
        "transaction": identifier,
        "state": journal.state,
        "plan": begun.get("plan"),
        "owner": begun.get("owner"),
        "epoch": epoch_of(state.transaction(identifier)),
        "since": begun.get("at"),
        "all_or_nothing": begun.get("all_or_nothing", True),
        **past(journal),
        "unfinished": journal.state != machine.IDLE and not settled,
        "alive": locks.alive(folder),
        "attended": lease.attended(folder, system) and locks.alive(folder),
    }


def stored_manifest(state: State, args: Dict[str, Any]) -> Tuple[Dict[str, Any], Iterator[bytes]]:
    """The manifest that was committed at a path, for ``status --verify`` and evidence."""
    record = read_json(os.path.join(state.live(args["path"]), "record.json"))
    if record is None:
        raise ValueError("nothing was committed at %s" % args["path"])
    with open(record["manifest"], "rb") as file:
        data = file.read()
    pieces = (data[i : i + 65536] for i in range(0, len(data), 65536))
    return {"version": record["version"]}, pieces

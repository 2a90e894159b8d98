"""How a transaction stands, as its folder alone says it."""

from __future__ import annotations

import os
from typing import Any, Dict

from deployguard.onhost.places import read_json
from deployguard.onhost.state import machine, migrations
from deployguard.onhost.state.journal import Journal


def past(journal: Journal) -> Dict[str, Any]:
    """What the state does not say, and a decision needs.

    ``voted``; ``takeovers``, how many there were; ``going_back`` since a restore was begun;
    ``held`` behind a point of no return; ``takes_back`` a schema, if it goes back; ``sent_back`` by
    whoever took over, though the host had voted.
    """
    kinds = [record["kind"] for record in journal.records]
    back = "restoring" in kinds
    return {
        "voted": "prepared" in kinds,
        "takeovers": kinds.count("adopted"),
        "going_back": back and journal.state != machine.COMMITTED,
        "held": migrations.held(journal),
        "takes_back": migrations.takes_back(journal),
        "sent_back": back
        and "prepared" in kinds
        and "adopted" in kinds[: kinds.index("restoring")],
    }


def epoch_of(folder: str) -> int:
    """The highest epoch that worked on a transaction; 0 when it never began."""
    raised = read_json(os.path.join(folder, "epoch"))
    if raised is not None:
        return int(raised["epoch"])
    journal = Journal(os.path.join(folder, "journal"), lambda: 0.0)
    begun = journal.last("begun")
    return int(begun["epoch"]) if begun is not None else 0

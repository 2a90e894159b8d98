"""What checks know and no journal may hold: passwords, tokens, headers, environments.

A restore needs them as long as the transaction lasts, also with nobody there to send them again. So
they stand in one file beside the journal, 0600 in a folder 0700, which is written before the record
that needs it and removed when the transaction is settled.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Sequence

from deployguard.onhost.places import read_json, write_json

NAME = "withheld"
_KEYS = ("secret", "headers", "env")

Checks = List[Dict[str, Any]]


def withhold(folder: str, checks: Sequence[Dict[str, Any]]) -> Checks:
    """The checks as the journal holds them; the rest is in the file, durably."""
    kept: Dict[str, Dict[str, Any]] = {}
    journalled: Checks = []
    for check in checks:
        own = {key: check[key] for key in _KEYS if check.get(key)}
        if own:
            kept[check["id"]] = own
        journalled.append({key: value for key, value in check.items() if key not in own})
    if kept:
        write_json(os.path.join(folder, NAME), kept)
    return journalled


def complete(folder: str, journalled: Sequence[Dict[str, Any]]) -> Checks:
    """The checks as they were sent. Without the file they are made with what is left."""
    kept = read_json(os.path.join(folder, NAME)) or {}
    return [dict(check, **kept.get(check["id"], {})) for check in journalled]

"""From a plan's block to the vault in its store."""

from __future__ import annotations

import os
from pathlib import Path

from deployguard.errors import UsageError
from deployguard.plan.keys import parse_keys
from deployguard.plan.model import Plan, Snapshots
from deployguard.plan.snapshots import key_text, parse_address
from deployguard.snapshots.base import Store
from deployguard.snapshots.bucket import BucketStore
from deployguard.snapshots.directory import DirectoryStore
from deployguard.snapshots.sealing import Keyring
from deployguard.snapshots.vault import Vault

__all__ = ["open_vault"]


def open_vault(plan: Plan, address: str = "") -> Vault:
    """The vault of a plan, in the store of its block or at ``address``; nothing is read yet.

    Keys and endpoint are those of the block in either case; a directory that is named on the
    command line is relative to where that was typed, one in the plan to the plan. Raises
    :class:`UsageError`.
    """
    block = plan.snapshots
    if block is None and not address:
        raise UsageError(
            "the plan says nothing of snapshots",
            hint="name a place: `snapshots: s3://BUCKET/PREFIX`, or `--from` on the command line",
        )
    base = Path(plan.source).parent
    block = block or Snapshots.model_validate({"to": address})
    text = key_text(block, str(base), os.environ)
    keys = Keyring(parse_keys(text) if text is not None else ())
    return Vault(_store(block, address, base), keys, plan.name, plan.environment)


def _store(block: Snapshots, address: str, base: Path) -> Store:
    try:
        place = parse_address(address or block.to)
    except ValueError as error:
        problem, _, mend = str(error).partition("; ")
        raise UsageError(problem, hint=mend) from None
    if place.bucket:
        return BucketStore(place.bucket, place.path, endpoint=block.endpoint, region=block.region)
    return DirectoryStore(place.path if address else str(base / place.path))

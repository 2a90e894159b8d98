"""Asks git, on this machine, how far two revisions are apart."""

from __future__ import annotations

import re
import subprocess

from deployguard.guards.base import Unknown

__all__ = ["count_commits"]

#: Counting a million commits takes git a few seconds.
SECONDS = 60.0

#: What a host says is live is a version, and nothing that git takes for an option or a range.
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/-]*")


def count_commits(checkout: str, old: str, new: str) -> int:
    """How many commits are reachable from one of the two revisions and not from the other.

    Both ways, so that a release from a branch that lacks what is live counts too. Raises
    :class:`Unknown`.
    """
    for revision in (old, new):
        if ".." in revision or not _REVISION.fullmatch(revision):
            raise Unknown(f"{revision!r} is no revision", "deploy versions that are tags")
        _git(checkout, "rev-parse", "--quiet", "--verify", f"{revision}^{{commit}}", name=revision)
    said = _git(checkout, "rev-list", "--count", f"{old}...{new}", "--", name=new)
    return int(said)


def _git(checkout: str, *arguments: str, name: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", checkout, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            timeout=SECONDS,
        )
    except FileNotFoundError:
        raise Unknown("there is no git on this machine", "install git") from None
    except subprocess.TimeoutExpired:
        raise Unknown(
            f"git did not answer within {SECONDS:.0f} s", "look at the checkout"
        ) from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        why = f": {said[-1]}" if said else ""
        raise Unknown(
            f"the checkout {checkout} has no revision {name}{why}",
            "fetch its tags and history (`fetch-depth: 0` of actions/checkout), or name another "
            "`checkout`",
        )
    return done.stdout.strip()

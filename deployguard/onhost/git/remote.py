"""What a remote has under a name, and what is to be done when it does not give it.

Git says what went wrong in the words of a person at a terminal. There is none; so for the likeliest
failures the mend is said as well.
"""

from __future__ import annotations

import os
import pwd
import re
from typing import Dict, Sequence

from deployguard.onhost.git.command import Git, GitFailed
from deployguard.onhost.places import NotManageable

_OBJECT = re.compile(r"^(?:[0-9a-f]{40}|[0-9a-f]{64})$")
_SHORT = re.compile(r"^[0-9a-f]{7,63}$")

#: What a git that cannot fetch says, and the mend; ``%s`` is the user that it runs as.
_MENDS = (
    (
        "terminal prompts disabled",
        "it asks for a password, and nobody is there to type one: let %s have a deploy key, or a "
        "credential helper (git config credential.helper) on the host",
    ),
    (
        "Host key verification failed",
        "%s does not know that server yet: connect once by hand as that user, compare the "
        "fingerprint, or put its key into ~/.ssh/known_hosts",
    ),
    (
        "Permission denied (",
        "let %s have a key on the host that the server knows, without a passphrase",
    ),
    (
        "detected dubious ownership",
        "the repository there belongs to somebody else than %s: git config --global --add "
        "safe.directory, as that user",
    ),
    (
        "' not allowed",
        "git of %s does not take that way to a remote: use https or ssh",
    ),
)


def named(name: str, refs: Dict[str, str], remote: str) -> str:
    """The full name of a revision among the ``refs`` of the remote; empty for a commit.

    Raises :class:`NotManageable` for one that is not there, and for one that is two things.
    """
    if name in refs:
        return name
    found = [ref for ref in ("refs/tags/" + name, "refs/heads/" + name) if ref in refs]
    if len(found) > 1:
        raise NotManageable(
            "%s is a branch and a tag at %s" % (name, remote),
            "write refs/heads/%s or refs/tags/%s" % (name, name),
        )
    if found:
        return found[0]
    if _OBJECT.match(name):
        return ""
    raise NotManageable("%s has no branch or tag %s" % (remote, name), _meant(name, refs, remote))


def _meant(name: str, refs: Dict[str, str], remote: str) -> str:
    import difflib

    names = [ref.partition("/")[2].partition("/")[2] for ref in refs if not ref.endswith("^{}")]
    if name == "HEAD":
        return "name a branch or a tag: HEAD is another one in every clone"
    here, _, there = name.partition("/")
    if here == remote and there in names:
        return "write %s, as it is called there" % there
    close: Sequence[str] = difflib.get_close_matches(name, names, 1)
    if close:
        return "did you mean %s?" % close[0]
    if _SHORT.match(name):
        return "a commit is named by its whole hash: git rev-parse %s" % name
    return "push it there first"


def _our_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "uid %d" % os.geteuid()


def failed(git: Git, name: str, remote: str, error: GitFailed) -> NotManageable:
    """Why a revision does not come from a remote, for a person."""
    user, text = git.user or _our_name(), str(error)
    mend = next((mend for said, mend in _MENDS if said in text), "")
    hint = mend % user if mend else "git runs as %s on the host, with that user's keys" % user
    return NotManageable("%s cannot be fetched from %s: %s" % (name, remote, text), hint)

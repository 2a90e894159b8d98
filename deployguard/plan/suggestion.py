"""`did you mean`: the nearest known word, or the list when it is short."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean", "meant", "nearest"]

# Comparing with more than this many names takes longer than reading the list.
_MAX_NAMES = 5000


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` is most likely a slip of, or ``None``."""
    import difflib

    names = list(known)[:_MAX_NAMES]
    folded = {name.lower().replace("-", "_"): name for name in names}
    wanted = word.lower().replace("-", "_")
    if wanted in folded:
        return folded[wanted]
    matches = difflib.get_close_matches(wanted, folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


#: What other tools call it, whose files people have at hand.
_ELSEWHERE = {
    "artifact": ("src", "source", "build", "package"),
    "path": ("dest", "destination", "directory", "deploy_to"),
    "needs": ("depends_on", "depends", "requires", "after"),
    "checks": ("healthcheck", "healthchecks", "health"),
    "identity_file": ("key", "keyfile", "ssh_key", "private_key", "identity"),
    "become": ("sudo", "root"),
    "user": ("username", "login"),
    "address": ("hostname", "host", "ip"),
    "deadline": ("wait", "max_wait"),
}


def meant(word: str, known: Iterable[str]) -> str | None:
    """The known word for what other tools call ``word``, else the nearest one, or ``None``."""
    names = list(known)
    others = {other: name for name in names for other in _ELSEWHERE.get(name, ())}
    return others.get(word.lower().replace("-", "_")) or nearest(word, names)


def did_you_mean(word: str, known: Iterable[str], *, among: str = "known are") -> str:
    """A hint for an unknown word; empty when nothing useful can be said."""
    names = list(known)
    match = nearest(word, names)
    if match is not None and match != word:
        return f'did you mean "{match}"?'
    if 0 < len(names) <= 12:
        return f"{among} {', '.join(names)}"
    return ""

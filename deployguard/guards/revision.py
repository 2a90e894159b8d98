"""Where the revision of a git checkout leads. Asked always.

A tag that was moved, or a branch that no longer has what is live in it, is not what its name says;
and a name that leads to another commit on another host is no version.
"""

from __future__ import annotations

from collections.abc import Iterator

from deployguard.guards.base import HostView, Known, Verdict, some

__all__ = ["agreement", "judge", "lost"]


def judge(known: Known) -> Iterator[Verdict]:
    """One verdict for each checkout on each host."""
    for host in known.hosts:
        for name, component in host.components.items():
            found = host.looked["components"][name].get("git")
            if found is None:
                continue
            accepted = component.git is not None and component.git.rewritten == "accept"
            if found["rewritten"] and not accepted:
                mend = "deploy another revision, or accept it with git: {rewritten: accept}"
                words = f"{name}: {found['rewritten']} ({mend})"
                yield Verdict("revision", False, words, host.name)
            else:
                words = f"{name}: it is the commit {found['commit'][:12]}"
                yield Verdict("revision", True, words, host.name)


def agreement(known: Known) -> Iterator[Verdict]:
    """One verdict for each component with a checkout, for all hosts."""
    found: dict[str, dict[str, list[str]]] = {}
    for host in known.hosts:
        for name, looked in host.looked["components"].items():
            if "git" in looked:
                commits = found.setdefault(name, {})
                commits.setdefault(looked["git"]["commit"], []).append(host.name)
    for name, commits in found.items():
        if len(commits) == 1:
            yield Verdict("agreement", True, f"{name}: one commit on all hosts")
            continue
        words = "; ".join(f"{commit[:12]} on {some(hosts)}" for commit, hosts in commits.items())
        yield Verdict(
            "agreement",
            False,
            f"{name}: its revision is not the same commit everywhere: {words} (deploy again when "
            "all remotes have it, or name the commit)",
        )


def lost(host: HostView, name: str) -> list[str]:
    """What the live checkout has and its new commit has not, in words."""
    looked = host.looked["components"][name]
    found = (
        ("changed by hand", looked["drift"]["changed"]),
        ("in no commit", looked["git"]["extra"]),
        ("committed there and nowhere else", looked["git"]["local_commits"]),
    )
    return [f"{what}: {some(names)}" for what, names in found if names]

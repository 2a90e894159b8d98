"""Runs git on the host, so that a repository has no say in what root runs.

What a repository's own config and hooks name, git runs: ``core.hooksPath``, ``core.fsmonitor``,
``core.sshCommand``, filters, aliases of protocols. Who can write to a checkout would be root with
the next deploy. So git runs as the owner of the checkout, who can do all of that anyway; hooks and
the file system monitor are off for everybody; nothing of our own environment that git looks at
comes along; and there is no terminal to ask for a password.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from deployguard.onhost.excerpts import last_line
from deployguard.onhost.places import NotManageable
from deployguard.onhost.system import NOT_FOUND, System

#: Older ones lack ``--pathspec-from-file`` and worse; Debian 10 and CentOS 8 have this.
NEEDED = (2, 20)

#: Seconds for what does not wait for a network.
TIMEOUT = 600.0

#: A listing of every path of a large repository is longer than what a program may say elsewhere.
_MOST = 1024 * 1024 * 1024

#: Where an option and a config key disagree, the option wins.
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=",  # empty: before 2.36 `false` was the name of a program
    "core.untrackedCache=false",
    "core.splitIndex=false",
    # Would be run for a repository that this one borrows objects from.
    "core.alternateRefsCommand=true",
    "protocol.ext.allow=never",
    # No second git that goes on when we believe to be done.
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    # What arrives stays in packs: a file or two, and not thousands.
    "fetch.unpackLimit=1",
    "transfer.unpackLimit=1",
    "advice.detachedHead=false",
    "log.showSignature=false",
)

_ENVIRONMENT = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",  # none, whatever core.askPass says
    "SSH_ASKPASS": "false",
    "GIT_EDITOR": "false",
    "GIT_PAGER": "cat",
    "GIT_COMMITTER_NAME": "deployguard",
    "GIT_COMMITTER_EMAIL": "deployguard@localhost",
    "GIT_AUTHOR_NAME": "deployguard",
    "GIT_AUTHOR_EMAIL": "deployguard@localhost",
    "LC_ALL": "C",
}


class GitFailed(Exception):
    """A git command failed; the message says which, and what it said."""


class Git:
    """One repository, and who works in it.

    ``directory`` is the ``.git``; ``user`` is ``None`` where that is who we are.
    """

    def __init__(
        self, system: System, directory: str, user: Optional[str], work_tree: Optional[str] = None
    ) -> None:
        self.system = system
        self.directory = directory
        self.user = user
        self.work_tree = work_tree

    def run(
        self,
        *arguments: str,
        data: Optional[bytes] = None,
        timeout: float = TIMEOUT,
        accept: Sequence[int] = (0,),
        environment: Optional[Dict[str, str]] = None,
        settings: Sequence[str] = (),
    ) -> bytes:
        """What the command writes to stdout. ``settings`` are config keys with their values.

        Raises :class:`GitFailed` for an exit status that is not in ``accept``, and
        :class:`NotManageable` where there is no git.
        """
        argv = ["git"]
        for setting in (*_SETTINGS, *settings):
            argv += ["-c", setting]
        done = self.system.run(
            [*argv, *arguments],
            env=self._environment(environment or {}),
            cwd=self.work_tree or self.directory,
            timeout=timeout,
            input=data,
            max_output=_MOST,
            user=self.user,
        )
        if done.status == NOT_FOUND:
            raise missing()
        if done.timed_out:
            raise GitFailed("git %s did not end within %g s" % (arguments[0], timeout))
        if done.status not in accept:
            raise GitFailed("git %s: %s" % (arguments[0], _complaint(done.stderr, done.status)))
        return done.stdout

    def ask(self, *arguments: str) -> Optional[str]:
        """The one line that the command answers; ``None`` where it has none."""
        try:
            return self.run(*arguments).decode("utf-8", "surrogateescape").strip() or None
        except GitFailed:
            return None

    def names(self, *arguments: str, data: Optional[bytes] = None) -> List[str]:
        """What the command lists, with ``-z`` among its options."""
        listed = self.run(*arguments, data=data).split(b"\0")
        return [os.fsdecode(name) for name in listed if name]

    def lines(self, *arguments: str, data: Optional[bytes] = None) -> List[str]:
        """The lines that the command writes."""
        text = self.run(*arguments, data=data).decode("utf-8", "surrogateescape")
        return text.splitlines()

    def has(self, name: str) -> bool:
        """Whether the object is there, here or where this repository borrows."""
        return self.ask("cat-file", "-t", name) is not None

    def present(self, names: Iterable[str]) -> List[str]:
        """Those of the objects that are there, in their order, each once."""
        asked = list(dict.fromkeys(names))
        data = "".join(name + "\n" for name in asked).encode("ascii")
        answers = self.lines("cat-file", "--batch-check=%(objecttype)", data=data)
        return [name for name, answer in zip(asked, answers) if not answer.endswith("missing")]

    def _environment(self, more: Dict[str, str]) -> Dict[str, Optional[str]]:
        found: Dict[str, Optional[str]] = {
            name: None for name in os.environ if name.startswith("GIT_")
        }
        found.update(_ENVIRONMENT, GIT_DIR=self.directory)
        if self.work_tree is not None:
            found["GIT_WORK_TREE"] = self.work_tree
        found.update(more)
        return found


@contextlib.contextmanager
def legible(path: str) -> Iterator[None]:
    """Raise :class:`NotManageable` where git fails on what a repository has at ``path``."""
    try:
        yield
    except GitFailed as error:
        raise NotManageable(
            "git cannot work with %s: %s" % (path, error),
            "see what is wrong there, as its owner: git -C %s status; git -C %s fsck"
            % (path, path),
        ) from error


def missing() -> NotManageable:
    """There is no git on this host."""
    return NotManageable(
        "git is not installed on the host", "install it there: apt-get install git"
    )


def demand(system: System) -> None:
    """Raise :class:`NotManageable` where git is not there, or too old."""
    done = system.run(["git", "--version"], timeout=TIMEOUT)
    if done.status == NOT_FOUND:
        raise missing()
    version = _version(done.text)
    if version < NEEDED:
        raise NotManageable(
            "the host has %s" % (done.text.strip() or "a git that does not run"),
            "layout: git needs git %d.%d or later there" % NEEDED,
        )


def account(path: str, uid: int) -> Optional[str]:
    """The user that works on ``path``, which belongs to ``uid``; ``None`` where we are that.

    Raises :class:`NotManageable` for somebody that we cannot become.
    """
    if uid == os.geteuid():
        return None
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        raise NotManageable(
            "%s belongs to the user id %d, which has no account on the host" % (path, uid),
            "git runs as the owner of the checkout: give it to a user, or make the account",
        ) from None
    if os.geteuid() != 0:
        raise NotManageable(
            "%s belongs to %s" % (path, name),
            "git runs as the owner of the checkout: connect as %s, or set `become: true`" % name,
        )
    return name


def _version(text: str) -> Tuple[int, ...]:
    """``git version 2.39.5 (Apple Git-154)`` as ``(2, 39)``."""
    words = text.split()
    parts = words[2].split(".")[:2] if len(words) > 2 else []
    return tuple(int(part) for part in parts if part.isdigit())


#: Git's own words for it; why stands in the line above, in those of ssh.
_NOT_READ = "fatal: Could not read from remote repository."


def _complaint(said: bytes, status: int) -> str:
    """What git said in its own words: the first ``fatal:`` or ``error:``, else the last line."""
    lines = said.decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines):
        if line == _NOT_READ and number and lines[number - 1].strip():
            return lines[number - 1].strip()
        if line.startswith(("fatal: ", "error: ", "ERROR: ")):
            words = line.partition(": ")[2]
            more = lines[number + 1] if line.endswith(":") and lines[number + 1 :] else ""
            return (words + " " + more.replace("error: ", "").strip()).strip()
    return last_line("\n".join(lines), 300) or "it ended with status %d" % status

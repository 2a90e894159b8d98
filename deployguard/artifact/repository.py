"""A revision of a git repository on this machine, and bundles of what a host lacks of it.

Nothing is written to the repository: a bundle is made in a temporary one that borrows its objects.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployguard.artifact.base import ArtifactInvalid
from deployguard.onhost.trees import blobs

__all__ = ["Bundle", "GitRevision"]

#: What a bundle calls the revision.
TIP = "refs/deployguard/tip"

_OBJECT = re.compile(r"[0-9a-f]{4,64}")
_TIMEOUT = 600
_PIECE = 256 * 1024


@dataclass(frozen=True)
class Bundle:
    """A bundle file, by the hash of its content."""

    path: Path
    digest: str
    size: int

    def stream(self) -> Iterator[bytes]:
        """As blobs travel. Its packs are compressed already."""
        return blobs.encode([(self.digest, self.size, self._pieces())], level=0)

    def _pieces(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while data := file.read(_PIECE):
                yield data


class GitRevision:
    """One revision of one repository, resolved once for all hosts; for any number of threads.

    ``commit`` is what it leads to, ``tip`` the object with its name (a tag, or that commit),
    ``ref`` its full name or ``None`` for what was named by its hash, ``format`` the kind of hash.
    """

    def __init__(self, path: Path, revision: str) -> None:
        """Raises :class:`ArtifactInvalid`."""
        self.path = path
        self.revision = revision
        self._lock = threading.Lock()
        self._bundles: dict[tuple[str, ...], Bundle] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        inside = self._ask("rev-parse", "--absolute-git-dir", problem="is not a git repository")
        self._objects = Path(inside) / "objects"
        common = self._line("rev-parse", "--git-common-dir")
        if common:
            self._objects = (path / common / "objects").resolve()
        # One that does not know the question repeats it.
        answer = self._line("rev-parse", "--show-object-format")
        self.format = answer if answer == "sha256" else "sha1"
        if self._line("rev-parse", "--is-shallow-repository") == "true":
            raise ArtifactInvalid(
                str(path),
                ["it is a shallow clone, and lacks what a host may need"],
                hint="git fetch --unshallow; in GitHub Actions, fetch-depth: 0 for checkout",
                option="repository",
            )
        self.ref = self._full_name()
        name = self.ref or revision
        self.tip = self._ask("rev-parse", "-q", "--verify", f"{name}^{{object}}")
        self.commit = self._ask("rev-parse", "-q", "--verify", f"{name}^{{commit}}")
        if self.ref is None:
            self.tip = self.commit

    def _full_name(self) -> str | None:
        """The tag or branch that is meant; ``None`` for a commit or ``HEAD``."""
        name = self.revision
        names = [f"refs/tags/{name}", f"refs/heads/{name}"]
        if name.startswith("refs/"):
            names = [name]
        found = [ref for ref in names if self._line("rev-parse", "-q", "--verify", ref)]
        if len(found) > 1:
            raise self._unknown("is a branch and a tag", f"write {found[0]} or {found[1]}")
        if found:
            return found[0]
        if name == "HEAD":
            return None
        if _OBJECT.fullmatch(name) and self._line("rev-parse", "-q", "--verify", f"{name}^0"):
            return None
        raise self._unknown("is no branch, tag or commit there", self._like(name))

    def _unknown(self, problem: str, hint: str) -> ArtifactInvalid:
        text = f"{self.revision} {problem}"
        return ArtifactInvalid(str(self.path), [text], hint=hint, option="revision")

    def _like(self, name: str) -> str:
        import difflib

        listed = self._line("for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags") or ""
        names = [ref.split("/", 2)[2] for ref in listed.splitlines()]
        close: Sequence[str] = difflib.get_close_matches(name, names, 1)
        return f"did you mean {close[0]}?" if close else "git fetch --tags, or mend the revision"

    def entry(self, path: str) -> tuple[str, int] | None:
        """What the revision has at a path: ``f``, ``d`` or ``l``, and the size of a file."""
        listed = self._line("ls-tree", "-l", "--full-tree", self.commit, path).split(maxsplit=4)
        if len(listed) < 4:
            return None
        kind = {"040000": "d", "120000": "l"}.get(listed[0], "f")
        return kind, int(listed[3]) if kind == "f" and listed[3].isdigit() else 0

    def files(self) -> list[str]:
        """The paths of the files of the revision."""
        listed = self._run("ls-tree", "-r", "-z", "--name-only", "--full-tree", self.commit).stdout
        return [os.fsdecode(path) for path in listed.split(b"\0") if path]

    def read(self, path: str) -> bytes:
        """The content of a file of the revision."""
        return self._run("cat-file", "blob", f"{self.commit}:{path}").stdout

    def known(self, names: Iterable[str]) -> list[str]:
        """Those of the objects of a host that this repository has as well."""
        asked = "".join(f"{name}\n" for name in names)
        answers = self._run("cat-file", "--batch-check=%(objectname) %(objecttype)", data=asked)
        pairs = [line.split() for line in answers.stdout.decode().splitlines()]
        return [pair[0] for pair in pairs if len(pair) == 2 and pair[1] in ("commit", "tag")]

    def bundle(self, known: Sequence[str]) -> Bundle:
        """What a host with the ``known`` objects lacks; equal hosts get the same file."""
        key = tuple(sorted(known))
        with self._lock:
            if key not in self._bundles:
                self._bundles[key] = self._make(key)
            return self._bundles[key]

    def close(self) -> None:
        """Remove the bundles."""
        with self._lock:
            if self._folder is not None:
                self._folder.cleanup()
            self._folder = None

    def _make(self, known: Sequence[str]) -> Bundle:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="deployguard-git-")
            self._borrow(Path(self._folder.name))
        folder = Path(self._folder.name)
        path = folder / f"{len(self._bundles)}.bundle"
        # From stdin: there may be more of them than a command line takes.
        revisions = "".join(f"{name}\n" for name in (TIP, *(f"^{name}" for name in known)))
        make = ["bundle", "create", "--quiet", str(path), "--stdin"]
        done = self._run(*make, directory=folder / "git", data=revisions)
        if done.returncode != 0:
            raise ArtifactInvalid(
                str(self.path),
                [f"no bundle can be made of {self.revision}: {_said(done)}"],
                hint=f"git -C {self.path} fsck",
                option="repository",
            )
        hashed = hashlib.sha256()
        with path.open("rb") as file:
            while data := file.read(_PIECE):
                hashed.update(data)
        return Bundle(path, hashed.hexdigest(), path.stat().st_size)

    def _borrow(self, folder: Path) -> None:
        """A repository with one name in it, and all objects of the user's."""
        inside = folder / "git"
        for name in ("objects/info", "refs"):
            (inside / name).mkdir(parents=True)
        (inside / "HEAD").write_text("ref: refs/heads/none\n")
        config = "[core]\nrepositoryformatversion = 0\n"
        if self.format != "sha1":
            config = "[core]\nrepositoryformatversion = 1\n"
            config += f"[extensions]\nobjectformat = {self.format}\n"
        (inside / "config").write_text(config)
        (inside / "objects/info/alternates").write_text(f"{self._objects}\n")
        (inside / "packed-refs").write_text(f"{self.tip} {TIP}\n")

    def _ask(self, *arguments: str, problem: str = "") -> str:
        done = self._run(*arguments)
        if done.returncode != 0:
            hint = "name the folder of a clone"
            if b"dubious ownership" in done.stderr:
                hint = f"git config --global --add safe.directory {self.path.resolve()}"
            words = problem or f"git cannot resolve {self.revision}"
            raise ArtifactInvalid(
                str(self.path), [f"{words}: {_said(done)}"], hint=hint, option="repository"
            )
        return done.stdout.decode().strip()

    def _line(self, *arguments: str) -> str:
        """What git answers, or nothing."""
        done = self._run(*arguments)
        return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""

    def _run(
        self, *arguments: str, directory: Path | None = None, data: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        # A run from a hook of git has its variables, which would lead elsewhere.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_REPLACE_OBJECTS": "1"}
        environment["GIT_LITERAL_PATHSPECS"] = "1"
        where = ["--git-dir", str(directory)] if directory else ["-C", str(self.path)]
        try:
            return subprocess.run(
                ["git", *where, *arguments],
                env=environment,
                input=data.encode(),
                capture_output=True,
                check=False,
                timeout=_TIMEOUT,
            )
        except (FileNotFoundError, NotADirectoryError):
            raise ArtifactInvalid(
                str(self.path),
                ["git is not installed on this machine"],
                hint="install it, or let the hosts fetch from their remote",
                option="repository",
            ) from None
        except subprocess.TimeoutExpired:
            raise ArtifactInvalid(
                str(self.path),
                [f"git {arguments[0]} did not end within {_TIMEOUT} s"],
                option="repository",
            ) from None


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    first = next((line for line in lines if line.startswith(("fatal: ", "error: "))), "")
    return first.partition(": ")[2] or (lines[-1] if lines else f"status {done.returncode}")

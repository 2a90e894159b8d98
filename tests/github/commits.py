"""What a GitHub repository remembers of its commits: check runs and statuses, newest last."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.github.contract import contract


@dataclass
class Commits:
    """Commits by SHA, and the tags and branches that lead to them."""

    refs: dict[str, str] = field(default_factory=dict)
    _statuses: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    _runs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def push(self, sha: str, *refs: str) -> str:
        """A commit that was pushed, with the names that lead to it; returns its SHA."""
        self._statuses.setdefault(sha, [])
        self._runs.setdefault(sha, [])
        self.refs.update(dict.fromkeys(refs, sha))
        return sha

    def set_status(self, sha: str, context: str, state: str) -> None:
        """Report ``error``, ``failure``, ``pending`` or ``success`` for a context."""
        made = contract().example("simple-commit-status")
        made |= {"id": len(self._statuses[sha]) + 1, "context": context, "state": state}
        self._statuses[sha].append(made)

    def set_check(
        self, sha: str, name: str, *, status: str = "completed", conclusion: str = "", url: str = ""
    ) -> None:
        """Report a check run: its ``status``, and its ``conclusion`` once it is completed."""
        made = contract().example("check-run")
        made |= {"id": 1 + sum(map(len, self._runs.values())), "name": name, "head_sha": sha}
        made |= {"status": status, "conclusion": conclusion or None, "details_url": url or None}
        self._runs[sha].append(made)

    def sha_of(self, ref: str) -> str | None:
        """Where a tag, a branch, a SHA or the beginning of one leads."""
        if ref in self.refs:
            return self.refs[ref]
        found = [sha for sha in self._runs if len(ref) >= 7 and sha.startswith(ref)]
        return found[0] if len(found) == 1 else None

    def statuses(self, sha: str) -> list[dict[str, Any]]:
        """The last status of each context."""
        return list({status["context"]: status for status in self._statuses[sha]}.values())

    def state(self, sha: str) -> str:
        """The combined state, which is ``pending`` where nothing was ever set."""
        states = {status["state"] for status in self.statuses(sha)}
        if states & {"error", "failure"}:
            return "failure"
        return "success" if states == {"success"} else "pending"

    def check_runs(self, sha: str, *, latest: bool) -> list[dict[str, Any]]:
        """All runs, or the last one of each name."""
        runs = self._runs[sha]
        return list({run["name"]: run for run in runs}.values()) if latest else list(runs)

"""Drafts and checks the post-mortems of the incidents in a store."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deployguard.incidents.book import Book
from deployguard.incidents.lookup import Lookup
from deployguard.incidents.record import Incident
from deployguard.report.postmortem import files
from deployguard.report.postmortem.facts import Facts, gather
from deployguard.report.postmortem.judge import Verdict, judge
from deployguard.report.redaction import Redaction
from deployguard.rollout.outcome import Outcome
from deployguard.store.journal import Journal

__all__ = ["Judged", "draft", "facts_of", "of_files", "of_incident", "wanted"]


@dataclass(frozen=True)
class Judged:
    """A post-mortem and what is left of it; ``path`` is empty for one that is not there."""

    path: str
    verdict: Verdict


def facts_of(incident: str, lookup: Lookup, journal: Journal, last: Outcome | None = None) -> Facts:
    """What is on record of an incident now."""
    return gather(lookup.get(incident), lookup, journal, time.time(), last)


def draft(
    incident: str,
    book: Book,
    journal: Journal,
    directory: Path,
    redaction: Redaction,
    last: Outcome | None = None,
) -> Path:
    """Write the draft of an incident, or bring it up to date, and link it; where it is."""
    facts = facts_of(incident, book.lookup, journal, last)
    path = files.draft(facts, directory, redaction.redactor().text)
    link = ("postmortem", str(path))
    if link[1] not in facts.linked("postmortem"):
        words = f"post-mortem drafted: {path}"
        book.note(incident, words, kind="linked", links=[link], key=f"postmortem/{incident}/{path}")
    return path


def of_files(paths: Iterable[Path]) -> list[Judged]:
    """The post-mortems among some files, and in some folders: what has no block of ours is none.

    Raises ``OSError``, and :class:`UsageError` for a file that was named and is none.
    """
    found = []
    for path in paths:
        names = sorted(path.rglob("*.md")) if path.is_dir() else [path]
        for name in names:
            verdict = judge(files.read(name))
            if verdict.incident or not path.is_dir():
                found.append(Judged(str(name), verdict))
    return found


def of_incident(incident: Incident, lookup: Lookup) -> Judged:
    """The post-mortem of one incident."""
    links = [link.value for link in lookup.links(incident.id) if link.kind == "postmortem"]
    path = files.found(links)
    if path is None:
        where = f"; it was drafted at {links[-1]}" if links else ""
        missing = f"it is not on this machine{where}" if links else "it was never drafted"
        return Judged("", Verdict(incident.id, incident.postmortem_by, (missing,)))
    return Judged(str(path), judge(files.read(path)))


def wanted(lookup: Lookup) -> list[Judged]:
    """Those of every incident that needs one and is not closed."""
    return [of_incident(incident, lookup) for incident in lookup.needing_postmortem()]

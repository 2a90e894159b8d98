"""After the deploy is over: the forensics are sealed, the incident is filed, the outbox is emptied.

Nothing here can change what happened or the exit code. What goes wrong becomes a line in
``Outcome.report_errors``.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from deployguard import __version__, faults
from deployguard.errors import DeployguardError, ExitCode
from deployguard.evidence.layout import Folder
from deployguard.incidents.book import Book
from deployguard.incidents.record import Incident
from deployguard.notify.settings import remember
from deployguard.notify.tidying import KEPT
from deployguard.plan.model import Plan
from deployguard.report import incident, incidents, notifications, postmortems
from deployguard.report.github import GitHubIssues
from deployguard.report.redaction import Redaction
from deployguard.rollout.member import Member
from deployguard.rollout.outcome import Event, Finding, Listener, Outcome
from deployguard.secret import Secret
from deployguard.store.journal import Journal
from deployguard.store.outbox import Entry, Outbox

__all__ = ["Forensics", "after_recovery", "report", "send_issues"]

#: What the issue may cost at the end of a deploy; after that the next command sends it.
DEADLINE = 30.0
TIMEOUT = 8.0
TRIES = 3

_TAIL_BYTES = 16 * 1024
_TAIL_LINES = 12

_FAILED = (ExitCode.ROLLED_BACK, ExitCode.NEEDS_PERSON)
_NOT_ASKED = ("untouched", "unreachable")


class Forensics:
    """The forensics folder of one run; it is only made when there is something to put in it."""

    def __init__(
        self,
        plan: Plan,
        version: str,
        started_at: float,
        hosts: list[str],
        redaction: Redaction,
    ) -> None:
        self._plan = plan
        self._version = version
        self._started_at = started_at
        self._hosts = hosts
        self._redaction = redaction
        self._lock = threading.Lock()
        self._folder: Folder | None = None
        self.problems: list[str] = []

    def save(self, member: Member, pieces: Iterable[bytes]) -> None:
        """Take one host's bundle. Called from the hosts' threads."""
        folder = self._open()
        problems = folder.add_bundle(member.name, pieces)
        self.problems += [f"{member.name}: {problem}" for problem in problems]
        if member.check_results:
            folder.add_json(member.name, "checks.json", member.check_results)
        member.forensics = str(folder.host(member.name))

    def _open(self) -> Folder:
        with self._lock:
            if self._folder is None:
                base = Path(self._plan.source).resolve().parent
                self._folder = Folder.create(
                    base / self._plan.rescue.evidence.directory,
                    self._version,
                    int(self._started_at),
                    self._hosts,
                    self._redaction.redactor(),
                )
            return self._folder

    def seal(self, outcome: Outcome) -> Outcome:
        """Write ``metadata.json`` and the checksums; only for a deploy that failed."""
        if outcome.exit_code not in _FAILED:
            return outcome
        if self._folder is None and all(host.state in _NOT_ASKED for host in outcome.hosts):
            return outcome  # Nothing was looked at; how it ended is in the journal.
        try:
            folder = self._open()
            outcome = dataclasses.replace(
                outcome, findings=(*outcome.findings, *self._last_words(folder, outcome))
            )
            folder.finish(_metadata(outcome, self.problems))
        except OSError as error:
            note = f"the forensics could not be written: {error}"
            return dataclasses.replace(outcome, report_errors=(*outcome.report_errors, note))
        return dataclasses.replace(outcome, forensics=str(folder.path))

    def _last_words(self, folder: Folder, outcome: Outcome) -> list[Finding]:
        """The end of each failed component's log, from the first host that failed: what the person
        who is woken up looks for first. The files are redacted already."""
        found: dict[str, Finding] = {}
        for finding in outcome.findings:
            if not finding.host or not finding.component or finding.component in found:
                continue
            path = folder.host(finding.host) / f"{finding.component}-service.log"
            if not path.is_file():
                continue
            with path.open("rb") as file:
                file.seek(max(path.stat().st_size - _TAIL_BYTES, 0))
                lines = file.read().decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
            lines = [line for line in lines if line.strip()]
            said = [line for line in lines if " systemd[" not in line and line[:4] != "==> "]
            if lines:
                found[finding.component] = Finding(
                    finding.host,
                    finding.component,
                    "log",
                    path.name,
                    said[-1] if said else lines[-1],
                    critical=False,
                    evidence="\n".join(lines),
                )
        return list(found.values())


def _metadata(outcome: Outcome, problems: list[str]) -> dict[str, Any]:
    data = outcome.as_dict()
    data["deployguard"] = __version__
    data["controller"] = os.uname().nodename
    data["problems"] = problems
    return data


def report(
    outcome: Outcome,
    plan: Plan,
    journal: Journal,
    listen: Listener | None,
    redaction: Redaction,
    incident_id: str = "",
) -> Outcome:
    """Keep and file the incident of a failed deploy, and send what earlier runs could not.

    ``incident_id`` is the incident that the deploy should have ended; it is told there then.

    Raises nothing: what goes wrong is in ``report_errors`` of the outcome that is returned, and
    keeps none of the other steps from being tried.
    """
    if not faults.reported():
        return outcome
    book = incidents.book_of(journal, redaction)
    found: Incident | None = None

    def keep(outcome: Outcome) -> Outcome:
        nonlocal found
        outcome, found = incidents.after_deploy(outcome, plan, book, incident_id)
        return outcome

    def settle(outcome: Outcome) -> Outcome:
        remember(journal, plan)
        return outcome

    outcome = _try(outcome, "what the plan says about notifications is not kept", settle)
    outcome = _try(outcome, "the incident is not kept", keep)
    draft = functools.partial(_draft, plan, journal, redaction, book, found)
    outcome = _try(outcome, "the post-mortem is not drafted", draft)
    # People first: the issue may wait for GitHub.
    say = functools.partial(
        notifications.tell, plan=plan, journal=journal, redaction=redaction, listen=listen
    )
    outcome = _try(outcome, "notifications were not sent", say)
    if outcome.exit_code in _FAILED and plan.rescue.incident.github is not None:
        file = functools.partial(_put_issue, plan, journal, redaction, book, found)
        outcome = _try(outcome, f"the issue cannot be kept in {journal.path}", file)
    key = f"incident/{outcome.transaction}"
    send = functools.partial(deliver_pending, journal=journal, book=book, listen=listen, key=key)
    told = _try(outcome, f"reports cannot be kept in {journal.path}", send)
    if told.incident_url == outcome.incident_url:
        return told
    # The draft was there before anybody was told; now it knows where.
    return _try(told, "the post-mortem is not brought up to date", draft)


def after_recovery(
    outcome: Outcome, plan: Plan | None, journal: Journal, redaction: Redaction
) -> Outcome:
    """Note in the incidents what `recover` has ended, and send what earlier runs could not."""
    if not faults.reported():
        return outcome
    book = incidents.book_of(journal, redaction)

    def keep(outcome: Outcome) -> Outcome:
        if plan is not None and plan.name:
            remember(journal, plan)
        incidents.after_recovery(outcome, plan, book)
        return outcome

    outcome = _try(outcome, "the incident is not kept", keep)
    say = functools.partial(notifications.send, journal=journal)
    outcome = _try(outcome, "notifications were not sent", say)
    send = functools.partial(deliver_pending, journal=journal, book=book)
    return _try(outcome, f"reports cannot be kept in {journal.path}", send)


def _try(outcome: Outcome, what: str, step: Callable[[Outcome], Outcome]) -> Outcome:
    """A step of reporting; the outcome says where it failed, and is the same otherwise."""
    try:
        return step(outcome)
    except (DeployguardError, sqlite3.Error, OSError) as error:
        words = f"{what}: {error}"
    except Exception as error:  # noqa: BLE001 - the deploy is over, and a bug must not hide its end
        words = f"{what}: {type(error).__name__}: {error}; this is a bug"
    return dataclasses.replace(outcome, report_errors=(*outcome.report_errors, words))


def _draft(
    plan: Plan,
    journal: Journal,
    redaction: Redaction,
    book: Book,
    found: Incident | None,
    outcome: Outcome,
) -> Outcome:
    """Draft the post-mortem of an incident that needs one, or bring it up to date."""
    if found is None or found.postmortem_by is None or not plan.rescue.postmortem.draft:
        return outcome
    directory = Path(plan.source).resolve().parent / plan.rescue.postmortem.directory
    path = postmortems.draft(found.id, book, journal, directory, redaction, outcome)
    return dataclasses.replace(outcome, postmortem=str(path))


def _put_issue(
    plan: Plan,
    journal: Journal,
    redaction: Redaction,
    book: Book,
    found: Incident | None,
    outcome: Outcome,
) -> Outcome:
    github = plan.rescue.incident.github
    assert github is not None
    similar = book.lookup.similar(found) if found is not None else []
    filed = incident.render(outcome, plan, github, redaction.redactor().text, found, similar)
    payload = {**filed.to_payload(), "base_url": github.base_url, "token_env": github.token_env}
    outbox = Outbox(journal.path, clock=time.time)
    try:
        outbox.put("github", f"incident/{outcome.transaction}", payload)
    finally:
        outbox.close()
    return outcome


def deliver_pending(
    outcome: Outcome,
    journal: Journal,
    book: Book,
    *,
    listen: Listener | None = None,
    key: str = "",
) -> Outcome:
    """Try everything in the outbox once; the incident of this outcome is noted in it."""
    outbox = Outbox(journal.path, clock=time.time)
    try:
        for entry in outbox.deliver({"github": _to_github}):
            _note(entry, listen)
            _link(entry, book)
        outbox.forget("github", time.time() - KEPT)
        mine = outbox.entry(key) if key else None
        left = [entry for entry in outbox.pending("github") if entry.last_error]
    finally:
        outbox.close()
    errors = list(outcome.report_errors)
    if mine is not None and mine.state != "delivered":
        kept = "kept, the next command sends it" if mine.state == "pending" else "refused"
        errors.append(f"the incident issue is not filed ({kept}): {mine.last_error}")
    elif left:
        errors.append(f"issues of earlier deploys that are not filed yet: {len(left)}")
    url = mine.result.get("url") if mine is not None and mine.result else None
    return dataclasses.replace(
        outcome, incident_url=url or outcome.incident_url, report_errors=tuple(errors)
    )


def send_issues(journal: Journal, book: Book) -> list[Entry]:
    """Try the issues that wait to be filed; those that were tried, as they stand then."""
    outbox = Outbox(journal.path, clock=time.time)
    try:
        tried = outbox.deliver({"github": _to_github})
        for entry in tried:
            _link(entry, book)
        return tried
    finally:
        outbox.close()


def _note(entry: Entry, listen: Listener | None) -> None:
    if listen is None:
        return
    if entry.state == "delivered" and entry.result:
        words = f"incident {entry.result.get('action', 'filed')}: {entry.result.get('url', '')}"
    else:
        words = f"incident not filed: {entry.last_error}"
    listen(Event(time.time(), "report", "note", "", words))


def _link(entry: Entry, book: Book) -> None:
    if entry.state != "delivered" or not entry.result or not entry.result.get("url"):
        return
    action = str(entry.result.get("action", "filed"))
    incidents.filed(book, str(entry.payload["transaction"]), str(entry.result["url"]), action)


def _to_github(payload: dict[str, Any]) -> object:
    token_env = str(payload["token_env"])

    def token() -> str:
        from deployguard.delivery import Rejected

        secret = Secret.from_environment(token_env)
        if secret is None:
            raise Rejected(f"${token_env} is not set", f"export {token_env} and run again")
        return secret.reveal()

    client = GitHubIssues(
        str(payload["base_url"]),
        str(payload["repo"]),
        token,
        clock=time.monotonic,
        sleep=time.sleep,
        timeout=TIMEOUT,
        deadline=DEADLINE,
        tries=TRIES,
    )
    return client.send(payload)

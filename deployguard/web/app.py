"""The pages of a store, as a Starlette application: history, live transactions, incidents, metrics,
evidence and post-mortems. :mod:`deployguard.web.guard` says who is let in.

Every handler is a plain function, which Starlette runs in a thread of its own: the store waits for
the disk.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route

from deployguard.errors import DeployguardError, UsageError
from deployguard.evidence.redact import Redactor
from deployguard.evidence.timeline import lasting
from deployguard.incidents.book import Book
from deployguard.incidents.lookup import Lookup
from deployguard.incidents.machine import Event
from deployguard.incidents.metrics import Metrics, measure
from deployguard.incidents.periods import KINDS, Kind
from deployguard.incidents.tally import DURATIONS
from deployguard.notify.delivery import flush
from deployguard.report import metrics as written
from deployguard.report.page import transaction
from deployguard.report.page.render import style_source
from deployguard.report.postmortem import files
from deployguard.report.postmortem.judge import judge
from deployguard.report.postmortem.page import STYLE_SOURCE
from deployguard.report.postmortem.page import page as postmortem_page
from deployguard.report.postmortems import of_incident, wanted
from deployguard.rollout.outcome import Outcome
from deployguard.store.journal import Journal
from deployguard.store.trail import steps_of
from deployguard.web import charts, live, queries
from deployguard.web.evidence import confined
from deployguard.web.guard import COOKIE, Door, Guarded, policy
from deployguard.web.render import page

__all__ = ["application"]

_MOVES: dict[str, Event] = {
    "acknowledge": "acknowledge",
    "mitigate": "mitigate",
    "resolve": "resolve",
}
_MOST_WORDS = 20_000
_MOST_BYTES = 256 * 1024
_PERIODS = {"week": 12, "month": 12, "quarter": 8}


def application(journal: Journal, book: Book, *, token: str | None = None) -> Starlette:
    """The pages of a journal; whoever gives the ``token`` writes into ``book``."""
    door = Door.with_token(token)
    pages = _Pages(journal, door, book)
    return Starlette(
        routes=[
            Route("/", pages.overview),
            Route("/history", pages.history),
            Route("/transactions/{name}", pages.transaction),
            Route("/evidence/{name}/{file:path}", pages.evidence),
            Route("/incidents", pages.incidents),
            Route("/incidents/{name}", pages.incident),
            Route("/incidents/{name}/{move}", pages.change, methods=["POST"]),
            Route("/metrics", pages.metrics),
            Route("/openmetrics", pages.openmetrics),
            Route("/postmortems", pages.postmortems),
            Route("/postmortems/{name}", pages.postmortem),
            Route("/token", pages.token, methods=["GET", "POST"]),
            Route("/static/live.js", _script),
            Route("/favicon.ico", _no_icon),
        ],
        middleware=[Middleware(Guarded, door=door)],
        exception_handlers={HTTPException: _missing, DeployguardError: _said},
    )


class _Pages:
    """The handlers, with what they ask."""

    def __init__(self, journal: Journal, door: Door, book: Book) -> None:
        self._journal = journal
        self._door = door
        self._book = book
        self._lookup = Lookup(journal)

    def _page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        key = self._door.key(request)
        body = page(
            template,
            here=request.url.path,
            now=time.time(),
            key=key,
            locked=self._door.opens and not key,
            **values,
        )
        headers = {"content-security-policy": policy(style_source())}
        return HTMLResponse(body, status, headers)

    def overview(self, request: Request) -> Response:
        """What is at work, what is not over, what was last."""
        unended = queries.unended(self._journal)
        return self._page(
            request,
            "overview.html",
            unended=unended,
            at={row["id"]: live.where(steps_of(self._journal.path, row["id"])) for row in unended},
            ongoing=self._lookup.ongoing(),
            debts=self._journal.debts()[:50],
            rows=queries.transactions(self._journal, 0).rows[:20],
        )

    def history(self, request: Request) -> Response:
        """Every transaction, with filters."""
        chosen = _chosen(request, "plan", "environment", "status")
        listed = queries.transactions(self._journal, _number(request), **chosen)
        return self._page(
            request,
            "history.html",
            listed=listed,
            filters=queries.choices(self._journal, "transactions", chosen),
            to=_to(request, chosen),
        )

    def transaction(self, request: Request) -> Response:
        """One transaction: the report, inside the frame of these pages."""
        name = request.path_params["name"]
        row = self._journal.get(name)
        if row is None:
            raise HTTPException(404, f"there is no transaction {name} here")
        if row["outcome"] is None:
            decision = self._journal.decision(name)
            steps = steps_of(self._journal.path, name)
            return self._page(
                request,
                "unended.html",
                row=row,
                decision=decision,
                steps=steps,
                hosts=live.hosts(row["hosts"], steps),
            )
        outcome = _clean_outcome(row["outcome"])
        found = transaction.made(
            outcome,
            str(row["owner"]),
            evidence_base=f"/evidence/{quote(name)}",
            incident_page=lambda incident: f"/incidents/{quote(incident)}",
        )
        return self._page(request, "transaction.html", page=found)

    def evidence(self, request: Request) -> Response:
        """A file of the forensics of a transaction, as text."""
        name = request.path_params["name"]
        row = self._journal.get(name)
        folder = (row["outcome"] or {}).get("forensics") if row is not None else None
        path = confined(folder, name, request.path_params["file"])
        if path is None:
            raise HTTPException(404, "there is no such evidence here")
        return FileResponse(path, media_type="text/plain; charset=utf-8")

    def incidents(self, request: Request) -> Response:
        """Every incident, with filters."""
        chosen = _chosen(request, "service", "state", "severity")
        listed = queries.incidents(self._journal, _number(request), **chosen)
        return self._page(
            request,
            "incidents.html",
            listed=listed,
            filters=queries.choices(self._journal, "incidents", chosen),
            to=_to(request, chosen),
        )

    def incident(self, request: Request) -> Response:
        """One incident with its timeline."""
        found = self._found(request)
        return self._page(
            request,
            "incident.html",
            incident=found,
            entries=self._lookup.timeline(found.id),
            links=self._lookup.links(found.id),
            similar=self._lookup.similar(found),
        )

    async def change(self, request: Request) -> Response:
        """Move an incident on, or write a note; for those who gave the token."""
        form = await _form(request)
        if not self._door.may_change(request, form.get("key", "")):
            raise HTTPException(403, "this needs the token that deployguard serve was started with")
        name = await run_in_threadpool(self._change, request, form)
        # Whoever is to be told is told after the answer; what fails waits for the next time.
        tell = BackgroundTask(flush, self._journal)
        return RedirectResponse(f"/incidents/{name}", 303, background=tell)

    def _change(self, request: Request, form: dict[str, str]) -> str:
        found = self._found(request)
        said = {name: form.get(name, "")[:_MOST_WORDS].strip() for name in ("text", "cause", "fix")}
        move = request.path_params["move"]
        event = _MOVES.get(move)
        if event is not None:
            self._book.move(found.id, event, said["text"], cause=said["cause"], fix=said["fix"])
        elif move != "note":
            raise HTTPException(404, "there is nothing of that name to be done")
        elif not said["text"]:
            raise UsageError("there is nothing to write down")
        else:
            self._book.note(found.id, said["text"])
        return str(found.id)

    def metrics(self, request: Request) -> Response:
        """DORA's four and the times of incidents, as charts and tables."""
        chosen = _chosen(request, "service", "environment", "by")
        kind: Kind = next((kind for kind in KINDS if kind == chosen["by"]), "month")
        found = measure(
            self._journal,
            time.time(),
            by=kind,
            count=_PERIODS[kind],
            service=chosen["service"] or None,
            environment=chosen["environment"] or None,
        )
        filters = queries.choices(self._journal, "metrics", chosen)
        filters.append(queries.Choice("by", "By", KINDS, kind))
        return self._page(
            request,
            "metrics.html",
            metrics=found,
            durations=DURATIONS,
            filters=filters,
            charts=_charts(found),
        )

    def openmetrics(self, request: Request) -> Response:
        """For a scrape."""
        found = measure(self._journal, time.time(), by="week", count=5)
        text = written.openmetrics(found, self._lookup.ongoing(), time.time())
        return Response(text, media_type=written.CONTENT_TYPE)

    def postmortems(self, request: Request) -> Response:
        """Those that are wanted, and what is left of each."""
        now = time.time()
        rows = [(one, one.verdict.state(now)) for one in wanted(self._lookup)[:100]]
        return self._page(request, "postmortems.html", rows=rows)

    def postmortem(self, request: Request) -> Response:
        """The post-mortem of an incident, as `postmortem render` makes it."""
        found = self._found(request)
        judged = of_incident(found, self._lookup)
        # The name of the file is from the store; what is in it says whether it is one.
        if not judged.path or judged.verdict.incident != found.id:
            raise HTTPException(404, "the post-mortem is not on this machine")
        text = Redactor().text(files.read(Path(judged.path)))
        body = postmortem_page(text, judge(text), time.time())
        return HTMLResponse(
            body, headers={"content-security-policy": policy(STYLE_SOURCE, forms=False)}
        )

    async def token(self, request: Request) -> Response:
        """Where the token is given."""
        if not self._door.opens:
            raise HTTPException(404, "deployguard serve was started without a token: read only")
        if request.method == "GET":
            return self._page(request, "token.html", wrong=False)
        form = await _form(request)
        session = self._door.enter(form.get("token", ""))
        if session is None:
            return self._page(request, "token.html", 403, wrong=True)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, session, httponly=True, samesite="strict", max_age=12 * 3600)
        return answer

    def _found(self, request: Request) -> Any:
        try:
            return self._lookup.get(request.path_params["name"])
        except UsageError as error:
            raise HTTPException(404, error.message) from None


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form of ours; it is small."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_BYTES:
            raise HTTPException(413, "that is too long")
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def _clean_outcome(data: dict[str, Any]) -> Outcome:
    """Redacted once more: rules of today may know more than those of then."""
    clean = Redactor().data(data)
    return Outcome.from_dict({**clean, "transaction": data["transaction"]})


def _chosen(request: Request, *names: str) -> dict[str, str]:
    return {name: request.query_params.get(name, "") for name in names}


def _number(request: Request) -> int:
    text = request.query_params.get("page", "0")
    return min(int(text), 100_000) if text.isascii() and text.isdigit() else 0


def _to(request: Request, chosen: dict[str, str]) -> Callable[[int], str]:
    """The address of another screen of the same list."""
    kept = {name: value for name, value in chosen.items() if value}
    return lambda number: f"{request.url.path}?{urlencode({**kept, 'page': number})}"


def _charts(found: Metrics) -> list[charts.Chart]:
    labels = [period.name for period in found.periods]
    failed = [float(one.failed_deployments) for one in found.tallies]
    good = [one.deployments - one.failed_deployments for one in found.tallies]
    words = [f"{one.failed_deployments} of {one.deployments}" for one in found.tallies]
    drawn = [charts.columns("Deployments that failed, of all", labels, good, failed, words)]
    for name in ("recovery", "mitigate"):
        medians = [one.durations[name].median for one in found.tallies]
        said = [
            "none" if median is None else f"{lasting(median)} of {one.durations[name].n}"
            for median, one in zip(medians, found.tallies, strict=True)
        ]
        title = f"{DURATIONS[name].capitalize()}, median of n"
        drawn.append(charts.columns(title, labels, medians, words=said))
    return drawn


@functools.lru_cache(maxsize=1)
def _source() -> str:
    return (resources.files("deployguard.web") / "static" / "live.js").read_text(encoding="utf-8")


def _script(_: Request) -> Response:
    return Response(_source(), media_type="text/javascript")


def _no_icon(_: Request) -> Response:
    """Browsers ask for one whatever a page says."""
    return Response(status_code=204)


def _missing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}\n", error.status_code)


def _said(request: Request, error: Exception) -> Response:
    assert isinstance(error, DeployguardError)
    code = 409 if isinstance(error, UsageError) else 503
    return PlainTextResponse(f"{error.message}\n{error.hint}\n", code)

"""How long commands and pages take on a store of 10,000 transactions and 1,000 incidents.

Run: ``python -m bench.store [--write]``. Each transaction has the outcome that a deploy to three
hosts leaves (about 9 KB); one in ten failed and has an incident. A page is asked of ``serve``, as a
program, over a connection of its own; ``metrics`` and ``status`` are whole commands, with the start
of Python. Of ``status PLAN`` it is what the store is asked: the rest is the hosts' answer. Best and
median of some runs, and the processor time of one, which depends least on what else the machine
does: it ends with 1 where that is above the bound.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.table import DOCUMENT
from deployguard.errors import ExitCode
from deployguard.incidents.book import Book
from deployguard.incidents.deploys import failed
from deployguard.incidents.lookup import Lookup
from deployguard.incidents.severity import Targets
from deployguard.rollout.outcome import Event, Finding, HostOutcome, Outcome
from deployguard.store.journal import SqliteJournal

TRANSACTIONS, INCIDENTS = 10_000, 1_000
RUNS = 15
BEGIN, END = "<!-- bench store: begin -->", "<!-- bench store: end -->"
_DAY = 86400.0
_PHASES = ("connect", "inspect", "stage", "switch", "check")


def outcome(number: int, at: float, bad: bool) -> Outcome:
    """What a deploy to three hosts leaves behind."""
    hosts = ("web1", "web2", "web3")
    events = []
    for place, phase in enumerate((*_PHASES, "restore" if bad else "commit")):
        for host in hosts:
            begun = at + place * 1.5
            status = "failed" if bad and (phase, host) == ("check", "web2") else "done"
            events.append(Event(begun, phase, "started", host))  # type: ignore[arg-type]
            health = [
                [begun + 0.5, f"backend/{name}", "healthy", True] for name in ("process", "http")
            ]
            detail = {"health": health} if phase in ("check", "restore") else {}
            events.append(Event(begun + 1, phase, status, host, "", detail))  # type: ignore[arg-type]
    version = {"backend": f"v{number}"}
    return Outcome(
        transaction=f"20260101T000000-shop-{number:06x}",
        plan=f"shop-{number % 7}",
        version=f"v{number}",
        environment="production" if number % 3 else "staging",
        exit_code=ExitCode.ROLLED_BACK if bad else ExitCode.COMMITTED,
        status="rolled_back" if bad else "committed",
        summary="v failed on web2; 3 hosts restored" if bad else "live on 3 hosts, healthy",
        started_at=at,
        ended_at=at + 10,
        hosts=tuple(
            HostOutcome(
                host,
                "restored" if bad else "committed",
                verified=True,
                healthy=True,
                versions_before=version,
                versions_after=version,
            )
            for host in hosts
        ),
        findings=(
            Finding(
                "web2", "backend", "http", "http", f"answered 503: kind {number % 40} of error"
            ),
        )
        if bad
        else (),
        timeline=tuple(events),
    )


def fill(path: Path, now: float) -> str:
    """The store; the id of the last incident."""
    journal = SqliteJournal(path)
    # It is thrown away: nothing has to be on the disk.
    journal.connection.execute("PRAGMA synchronous=OFF")
    moment = 0.0
    book = Book(journal, clock=lambda: moment)
    draw = random.Random(7)
    last = ""
    for number in range(TRANSACTIONS):
        at = now - (TRANSACTIONS - number) * 365 * _DAY / TRANSACTIONS
        bad = number % (TRANSACTIONS // INCIDENTS) == 0
        made = outcome(number, at, bad)
        about = {"source": "plan.yaml", "owner": "ann@laptop", "changed_at": at - 3600}
        values = {name: getattr(made, name) for name in ("plan", "version", "environment")}
        values |= {"id": made.transaction, "started_at": at, **about}
        journal.begin(values, ["web1", "web2", "web3"])
        if bad:
            moment = at + 10
            opened = failed(made, book, targets=Targets(), postmortem=48 * 3600)
            assert opened is not None
            last = opened[0].id
            for event, wait in (("acknowledge", 300), ("resolve", 3600)):
                moment += draw.random() * wait
                # The newest stay open, and are not joined by the next.
                if number < TRANSACTIONS - 100:
                    book.move(last, event, cause="pool" if draw.random() < 0.3 else "")  # type: ignore[arg-type]
        journal.end(made.transaction, made.as_dict())
    journal.close()
    return last


def timed(
    call: Callable[[], object], spent: Callable[[], float], runs: int = RUNS
) -> tuple[float, float, float]:
    """Best and median, and the processor time of a run, in milliseconds; the first run is not
    counted. ``spent`` says how much processor time there was so far, in seconds."""
    call()
    found, before = [], spent()
    for _ in range(runs):
        begun = time.perf_counter()
        call()
        found.append(1000 * (time.perf_counter() - begun))
    return min(found), statistics.median(found), 1000 * (spent() - before) / runs


def installed(environment: dict[str, str], folder: str) -> dict[str, str]:
    """Python keeps what it has compiled, as where deployguard was installed; elsewhere than in the
    checkout. Compiling everything anew, with every start, takes longer than a command does."""
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**environment, "PYTHONPYCACHEPREFIX": str(Path(folder) / "compiled")}


def by_children() -> float:
    """Processor time of the programs that were run, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def by_process(number: int) -> float:
    """Processor time of a program that runs, in seconds."""
    fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(environment: dict[str, str]) -> Iterator[tuple[str, int]]:
    """`deployguard serve`; its address, and the number of its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "deployguard", "serve", "--port", "0", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"], process.pid
    finally:
        process.terminate()
        process.wait()


def measured() -> list[tuple[str, float, float, float, int]]:
    """What was asked, best, median, processor time, and the bound."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        incident = fill(path, time.time())
        environment = installed({**os.environ, "DEPLOYGUARD_STATE": folder}, folder)
        rows = []

        def status() -> None:
            journal = SqliteJournal(path)
            journal.debts()
            Lookup(journal).ongoing("shop-1", "production")
            journal.close()

        rows.append(
            ("`status PLAN`: what the store is asked", *timed(status, time.process_time), 150)
        )

        def command(*words: str) -> Callable[[], object]:
            argv = [sys.executable, "-m", "deployguard", *words]
            return lambda: subprocess.run(argv, env=environment, check=True, capture_output=True)

        for bound, *words in (
            (150, "status"),
            (300, "metrics"),
            (300, "metrics", "--by", "week", "--periods", "52"),
        ):
            name = f"`{' '.join(words)}`: the whole command"
            rows.append((name, *timed(command(*words), by_children), bound))
        with served(environment) as (url, number):
            transaction = f"20260101T000000-shop-{TRANSACTIONS - 10:06x}"
            for page in (
                "/",
                "/history",
                "/history?plan=shop-3&environment=staging&status=rolled_back",
                "/history?page=190",
                f"/transactions/{transaction}",
                "/incidents",
                "/incidents?service=shop-3&severity=high",
                f"/incidents/{incident}",
                "/metrics",
                "/metrics?by=week",
                "/openmetrics",
                "/postmortems",
            ):

                def ask(page: str = page) -> None:
                    with urllib.request.urlopen(url.rstrip("/") + page) as answer:
                        answer.read()

                rows.append(
                    (
                        f"`{page.replace(transaction, 'TXN').replace(incident, 'INC')}`",
                        *timed(ask, lambda: by_process(number)),
                        300,
                    )
                )
        return rows


def main() -> None:
    """Measure, print, and with ``--write`` bring docs/performance.md up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write into docs/performance.md")
    arguments = parser.parse_args()
    head = "| asked | best | median | processor time | bound |"
    lines = [head, "| --- | ---: | ---: | ---: | ---: |"]
    over = []
    for name, best, median, cpu, bound in measured():
        over += [name] if cpu > bound else []
        lines.append(f"| {name} | {best:.0f} ms | {median:.0f} ms | {cpu:.0f} ms | {bound} ms |")
        print(lines[-1], flush=True)
    if arguments.write:
        text = DOCUMENT.read_text()
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
        when = time.strftime("%Y-%m-%d", time.gmtime())
        head = f"Measured on {when} on {os.cpu_count()} cores, load average {load}."
        DOCUMENT.write_text(
            before + BEGIN + f"\n{head}\n\n" + "\n".join(lines) + f"\n{END}" + after
        )
    if over:
        sys.exit(f"above the bound, in processor time: {', '.join(over)}")


if __name__ == "__main__":
    main()

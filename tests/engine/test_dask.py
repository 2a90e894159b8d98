"""What can be wrong with an engine before anything has begun."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

import deployguard
from deployguard.engine import dask
from deployguard.engine.job import HostJob
from deployguard.engine.opening import open_engine
from deployguard.errors import EngineUnavailable, ExitCode, UsageError
from deployguard.store.journal import SqliteJournal
from deployguard.store.postgres import PostgresJournal
from tests.cli.conftest import Site
from tests.dask import a_cluster


@pytest.mark.parametrize(
    "url", ["scheduler:8786", "dask://scheduler", "http://s:1", "dask://ann:x@s:1", "dask://s:x"]
)
def test_no_url_of_an_engine(url: str, site: Site, tmp_path: Path) -> None:
    """A usage error that shows what one looks like."""
    plan = deployguard.load(site.plan)
    with pytest.raises(UsageError, match="dask://HOST:PORT") as caught:
        open_engine(url, plan, SqliteJournal(tmp_path / "journal.db"))
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_journal_of_this_machine_alone(site: Site, tmp_path: Path) -> None:
    """No worker could read it."""
    plan = deployguard.load(site.plan)
    with pytest.raises(UsageError, match="workers share") as caught:
        open_engine("dask://s:8786", plan, SqliteJournal(tmp_path / "journal.db"))
    assert "--journal postgresql://" in caught.value.hint


def test_a_host_that_is_this_machine(site: Site, journal: PostgresJournal) -> None:
    """It would be another one to each worker."""
    with pytest.raises(UsageError, match="here: with `transport: local`"):
        open_engine("dask://s:8786", deployguard.load(site.plan), journal)


def test_what_only_this_machine_can_do(site: Site, journal: PostgresJournal) -> None:
    """It is refused before anything begins, and not when half of it is done."""
    text = site.plan.read_text().replace("transport: local", "address: web1.example.com")
    site.plan.write_text(f"{text}snapshots: {{to: /var/kept}}\n")
    with pytest.raises(UsageError, match="snapshots") as caught:
        open_engine("dask://s:8786", deployguard.load(site.plan), journal)
    assert "without --engine" in caught.value.hint


def test_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error; nothing is left of the try."""
    monkeypatch.setattr(dask, "CONNECT_SECONDS", 0.5)
    with pytest.raises(EngineUnavailable, match=r"dask://127\.0\.0\.1:1 cannot be used"):
        dask.DaskEngine("dask://127.0.0.1:1", "tcp://127.0.0.1:1")


def test_a_worker_that_cannot_stop_for_good(tmp_path: Path) -> None:
    """Dask's profiler and many threads can, together, under an earlier Python."""
    with a_cluster(tmp_path / "dask") as cluster:
        cluster.add_workers(1)
        engine = dask.DaskEngine(cluster.url, cluster.url.replace("dask://", "tcp://"))
        job = HostJob("t1", "web1", "postgresql://nobody@127.0.0.1:1/none?x=y", b"k" * 32, 60.0)
        with pytest.raises(Exception, match="cannot be used"):
            engine.submit(job).result(timeout=600)
        profiles = engine._client.run(
            lambda dask_worker: dask_worker.periodic_callbacks["profile"].is_running()
        )
        assert list(profiles.values()) == [sys.version_info >= (3, 12)]
        engine.close()


def test_no_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for one for ever."""
    monkeypatch.setattr(dask, "WORKERS_SECONDS", 0.5)
    with a_cluster(tmp_path / "dask") as cluster:
        cluster.scheduler.says("Scheduler at:")
        engine = dask.DaskEngine(cluster.url, cluster.url.replace("dask://", "tcp://"))
        with pytest.raises(EngineUnavailable, match="has no workers"):
            engine.problems(threading.Event(), str)
        assert engine.lost() == ""
        cluster.scheduler.kill()
        engine.close()

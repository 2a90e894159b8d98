"""Deploys by the workers of a real Dask scheduler, which die in the middle of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployguard.store.postgres import PostgresJournal
from tests.dask import Cluster, a_cluster
from tests.fleet.container import until
from tests.fleet.fleet import Fleet
from tests.postgres import Postgres, a_server
from tests.scenarios.conftest import MakeScene
from tests.scenarios.scene import Result, Scene

#: Seconds after which something will never come: this machine may have much else to do.
LONG = 600.0
#: In the plan, and nobody's business but the hosts'.
SENTINEL = "sentinel0of0the0plan"


@pytest.fixture(scope="module")
def database(fleet: Fleet) -> Iterator[Postgres]:
    """One database for this file, in the network of the hosts."""
    with a_server() as made:
        yield made


@pytest.fixture
def server(database: Postgres) -> Postgres:
    """It runs."""
    if not database.running():
        database.start()
    return database


@pytest.fixture
def cluster(fleet: Fleet, tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler, in the network of the hosts as well."""
    with a_cluster(tmp_path / "dask") as made:
        yield made


def shop_of(scene: MakeScene, server: Postgres, hosts: int = 3, **plan: Any) -> Scene:
    """A shop that runs v1, with a v2 to deploy."""
    shop = scene(hosts=hosts, **plan)
    shop.connect_deadline = "60s"
    within(shop, "60s")
    shop.environment["DEPLOYGUARD_JOURNAL"] = server.url
    first = shop.apply("v1")
    assert first.code == 0, first
    return shop


def within(shop: Scene, deadline: str) -> None:
    """How long a new version may take until it is healthy."""
    for check in shop.checks:
        for options in check.values():
            options["deadline"] = deadline


class Deploy:
    """A deploy on an engine, while it runs. What it says goes to files: a pipe would be full."""

    def __init__(self, shop: Scene, cluster: Cluster, version: str, **faults: Any) -> None:
        if not (shop.directory / "build" / version).exists():
            shop.release(version)
        shop.artifact(version)
        shop.write_plan(version)
        self._said, self._errors = shop.directory / "said", shop.directory / "errors"
        environment = {**os.environ, **shop.environment}
        if faults:
            environment["DEPLOYGUARD_FAULTS"] = json.dumps(faults)
        self._argv = [sys.executable, "-m", "deployguard", "apply", "plan.yaml", "--json"]
        self._argv += ["--engine", cluster.url]
        with self._said.open("w") as stdout, self._errors.open("w") as stderr:
            self.process = subprocess.Popen(
                self._argv,
                cwd=shop.directory,
                env=environment,
                stdout=stdout,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
            )
        cluster.deploys.append(self.process)

    def comes_to(self, point: Callable[[], bool]) -> None:
        """Wait until it has come to a point, however long that takes here."""
        over = time.monotonic() + LONG
        assert until(lambda: point() or self.process.poll() is not None, over, 0.2)
        assert self.process.poll() is None, self.end()

    def end(self) -> Result:
        """How it ended."""
        code = self.process.wait(timeout=LONG)
        said, errors = self._said.read_text(), self._errors.read_text()
        return Result(subprocess.CompletedProcess(self._argv, code, said, errors))


def waits_at(shop: Scene, point: str) -> tuple[dict[str, Any], Path]:
    """A fault of the controller by which it waits at a point, and the file that it waits for."""
    path = shop.directory / "waits"
    return {"point": point, "action": "wait", "path": str(path)}, path


def workers_of(server: Postgres) -> dict[str, int]:
    """The process that works on each host, as the jobs themselves say."""
    journal = PostgresJournal(server.url)
    rows = journal._database.rows("SELECT host, worker FROM deployguard_jobs")
    journal.close()
    return {row["host"]: int(row["worker"].rpartition(":")[2]) for row in rows}


def written(server: Postgres) -> bytes:
    """All that controller and jobs have written to each other, and is still there."""
    journal = PostgresJournal(server.url)
    found = b""
    for table in ("jobs", "messages", "parcels"):
        rows = journal._database.rows(f"SELECT content FROM deployguard_{table}")
        found += b"".join(bytes(row["content"]) for row in rows)
    journal.close()
    return found


def agreed(shop: Scene, version: str) -> None:
    """All hosts come to serve one version, and nothing of a deploy is left on any."""
    assert until(
        lambda: not any(shop.leftovers(host) for host in shop.hosts), time.monotonic() + LONG, 0.5
    ), [shop.leftovers(host) for host in shop.hosts]
    assert [shop.served(host)["version"] for host in shop.hosts] == [version] * len(shop.hosts)


def serves(shop: Scene, version: str) -> bool:
    """Whether the first host does."""
    try:
        return bool(shop.served(shop.hosts[0])["version"] == version)
    except OSError:
        return False


def recovered(shop: Scene) -> Result:
    """``recover``, which has to find its way to an end."""
    result = shop.command("recover", "plan.yaml", "--json")
    assert result.code == 0, result
    return result


def test_a_good_deploy_and_a_bad_one(scene: MakeScene, server: Postgres, cluster: Cluster) -> None:
    """As with threads: commit, and restore with the evidence; nothing stays in the journal."""
    cluster.add_workers(2)
    shop = shop_of(scene, server)
    shop.component["files"] = {f"/etc/{shop.name}.conf": {"content": SENTINEL}}
    good = Deploy(shop, cluster, "v2").end()
    assert good.code == 0, good
    agreed(shop, "v2")
    shop.release("v3", fault="exit")
    within(shop, "3s")
    bad = Deploy(shop, cluster, "v3").end()
    assert bad.code == 3, bad
    agreed(shop, "v2")
    assert {host["state"] for host in bad.outcome["hosts"]} == {"restored"}
    folder = Path(bad.outcome["forensics"])
    assert (folder / "web1" / "checks.json").exists() and (folder / "SHA256SUMS").exists()
    assert len(list(folder.glob("web*/*"))) > 10
    assert written(server) == b""
    assert SENTINEL not in cluster.text()


@pytest.mark.slow
def test_a_worker_killed_after_the_vote(
    scene: MakeScene, server: Postgres, cluster: Cluster
) -> None:
    """The votes of its hosts stand: the deploy is committed."""
    cluster.add_workers(2)
    shop = shop_of(scene, server)
    shop.component["files"] = {f"/etc/{shop.name}.conf": {"content": SENTINEL}}
    fault, path = waits_at(shop, "before decide")
    deploy = Deploy(shop, cluster, "v2", controller=[fault])
    deploy.comes_to(path.exists)
    first = workers_of(server)["web1"]
    stored = written(server)
    assert len(stored) > 10_000 and SENTINEL.encode() not in stored
    os.kill(first, signal.SIGKILL)
    deploy.comes_to(lambda: first not in workers_of(server).values())
    path.unlink()
    result = deploy.end()
    assert result.code == 0, result
    assert written(server) == b""
    agreed(shop, "v2")
    notes = [event["message"] for event in result.outcome["timeline"] if event["status"] == "note"]
    assert any("was lost" in note for note in notes), notes


def held_at_the_switch(shop: Scene, cluster: Cluster, workers: int = 2) -> Path:
    """Workers whose host program on web1 waits between two steps of a switch; a file says when.

    It is a file on the host, and this the way to it from here.
    """
    path = f"/srv/{shop.name}.waits"
    fault = {"point": "after done backend:stop", "action": "wait", "path": path}
    cluster.add_workers(workers, hosts={"web1": [fault]})
    return Path(path)


def waiting(shop: Scene, path: Path) -> bool:
    """Whether web1 has come to where it waits."""
    return shop.hosts[0].run(["test", "-e", str(path)], check=False).returncode == 0


def go_on(shop: Scene, path: Path) -> None:
    """Let it go on."""
    shop.hosts[0].run(["rm", "-f", str(path)])


@pytest.mark.slow
def test_the_scheduler_killed_after_the_decision(
    scene: MakeScene, server: Postgres, cluster: Cluster
) -> None:
    """What was decided is carried out."""
    cluster.add_workers(2)
    shop = shop_of(scene, server)
    fault, path = waits_at(shop, "after decide")
    deploy = Deploy(shop, cluster, "v2", controller=[fault])
    deploy.comes_to(path.exists)
    cluster.scheduler.kill()
    path.unlink()
    result = deploy.end()
    assert result.code == 0, result
    agreed(shop, "v2")


@pytest.mark.slow
@pytest.mark.parametrize(("point", "version"), [("before decide", "v1"), ("after decide", "v2")])
def test_the_controller_killed(
    scene: MakeScene, server: Postgres, cluster: Cluster, point: str, version: str
) -> None:
    """A decision that was recorded is carried out by the workers; without one they leave."""
    cluster.add_workers(2)
    shop = shop_of(scene, server, lease="10s")
    deploy = Deploy(shop, cluster, "v2", controller=[{"point": point, "action": "kill"}])
    assert deploy.end().code == -9
    if version == "v1":
        # Its jobs hold the hosts for the length of the lease; then somebody has to say how it ends.
        assert until(
            lambda: shop.command("recover", "plan.yaml").code == 0, time.monotonic() + LONG, 1.0
        )
    agreed(shop, version)
    recovered(shop)


@pytest.mark.slow
def test_interrupted(scene: MakeScene, server: Postgres, cluster: Cluster) -> None:
    """The hosts are told within seconds, and go back by themselves."""
    shop = shop_of(scene, server)
    path = held_at_the_switch(shop, cluster)
    deploy = Deploy(shop, cluster, "v2")
    deploy.comes_to(lambda: waiting(shop, path))
    deploy.process.send_signal(signal.SIGTERM)
    result = deploy.end()
    assert result.code == 7, result
    go_on(shop, path)
    agreed(shop, "v1")
    recovered(shop)


@pytest.mark.slow
def test_with_tls(scene: MakeScene, server: Postgres, tmp_path: Path) -> None:
    """Everybody speaks TLS; who has no certificate is told so, and nothing begins."""
    settings = certified(tmp_path)
    shop = shop_of(scene, server, hosts=1)
    with a_cluster(tmp_path / "tls", settings) as cluster:
        cluster.add_workers(1)
        stranger = Deploy(shop, cluster, "v2").end()
        assert stranger.code == 5 and "tls://" in stranger.text, stranger
        shop.environment.update(settings)
        assert Deploy(shop, cluster, "v2").end().code == 0
    agreed(shop, "v2")


def certified(folder: Path) -> dict[str, str]:
    """A certificate of its own authority, and Dask's settings that name it."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    argv += ["-nodes", "-keyout", str(key), "-out", str(certificate), "-subj", "/CN=dask"]
    subprocess.run(argv, check=True, capture_output=True)
    prefix = "DASK_DISTRIBUTED__COMM__"
    settings = {f"{prefix}REQUIRE_ENCRYPTION": "true", f"{prefix}TLS__CA_FILE": str(certificate)}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        settings[f"{prefix}TLS__{role}__CERT"] = str(certificate)
        settings[f"{prefix}TLS__{role}__KEY"] = str(key)
    return settings


@pytest.mark.slow
def test_forty_hosts(scene: MakeScene, server: Postgres, cluster: Cluster) -> None:
    """Over two workers, one thing after the other dies in the middle of a switch: all agree."""
    shop = shop_of(scene, server, hosts=40)
    path = held_at_the_switch(shop, cluster)

    def deploy(version: str, **faults: Any) -> Deploy:
        begun = Deploy(shop, cluster, version, **faults)
        begun.comes_to(lambda: waiting(shop, path))
        return begun

    # The database, for a while: everybody waits for it.
    away = deploy("v2")
    server.stop()
    go_on(shop, path)
    away.comes_to(lambda: serves(shop, "v2"))
    server.start()
    ends(away, 0, shop, "v2")

    # A worker: what it left is joined elsewhere, and goes back.
    halved = deploy("v3")
    os.kill(workers_of(server)["web1"], signal.SIGKILL)
    go_on(shop, path)
    ends(halved, 3, shop, "v2")
    assert [worker.process.poll() for worker in cluster.workers].count(-9) == 1
    held_at_the_switch(shop, cluster, workers=1)

    # The database, for good, when it is to be decided: not known is not decided, as with threads.
    fault, decision = waits_at(shop, "before decide")
    gone = deploy("v4", controller=[fault])
    go_on(shop, path)
    gone.comes_to(decision.exists)
    server.stop()
    decision.unlink()
    result = gone.end()
    assert result.code == 7, result
    assert "in doubt" in result.outcome["summary"], result.outcome["summary"]
    server.start()
    recovered(shop)
    agreed(shop, "v2")

    # The scheduler: the controller brings every host back itself.
    orphaned = deploy("v5")
    cluster.scheduler.kill()
    go_on(shop, path)
    ends(orphaned, 3, shop, "v2")
    recovered(shop)


def ends(deploy: Deploy, code: int, shop: Scene, version: str) -> None:
    """It ends so, every host says that it is back or all say that they are not, and it is so."""
    result = deploy.end()
    assert result.code == code, result
    # Where the switch had not begun yet there is nothing to restore.
    ended = {"committed"} if code == 0 else {"restored", "aborted"}
    assert {host["state"] for host in result.outcome["hosts"]} <= ended, result
    agreed(shop, version)

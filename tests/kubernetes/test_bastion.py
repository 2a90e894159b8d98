"""The host with kubectl is another machine, reached over SSH, with systemd."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, kubectl
from tests.fleet import Fleet, Host
from tests.fleet.base import CONTROLLER
from tests.kubernetes.scene import Scene

KUBECONFIG = "/etc/deployguard/kubeconfig"


@pytest.fixture
def bastion(fleet: Fleet, tmp_path: Path) -> Iterator[Scene]:
    """A cluster in the network of the hosts, and one of them to deploy from."""
    cluster = Cluster(tmp_path, CONTROLLER)
    host = fleet.hosts[0]
    shutil.copy(kubectl(), host.path("/usr/local/bin/kubectl"))
    host.write(KUBECONFIG, cluster.kubeconfig.read_bytes(), 0o600)
    scene = Scene(cluster, tmp_path)
    scene.service.update(program="kubectl", kubeconfig=KUBECONFIG, patience="60s")
    scene.path = "/srv/chat"
    scene.hosts = {
        host.name: {
            "address": host.address,
            "user": host.user,
            "identity_file": str(fleet.client_key),
            "known_hosts": str(fleet.known_hosts),
            "become": True,
        }
    }
    yield scene
    cluster.close()
    host.reset()


@pytest.mark.slow
def test_power_cut_in_the_middle_of_a_rollout(bastion: Scene, fleet: Fleet) -> None:
    """The cluster is half way while nobody is there; the boot of the host ends that."""
    scene, host = bastion, fleet.hosts[0]
    scene.live("v1")
    others = _left(host)  # of transactions that ended stuck, as other tests want them
    before = scene.cluster.objects()
    scene.release("v2", replicas=2)
    scene.plan("v2")
    process = scene.start("apply", "plan.yaml", "--json")
    scene.cluster.wait(lambda: len(scene.cluster.pods("app")) == 3, "no new pod was started")
    host.power_cut()
    process.kill()
    process.communicate()
    assert scene.cluster.objects() != before
    host.boot()
    scene.cluster.wait(lambda: scene.cluster.objects() == before, "nobody restored it")
    assert scene.served() == {"version": "v1", "greeting": "hello from v1"}

    scene.cluster.wait(lambda: _left(host) <= others, "something is left on the host")


def _left(host: Host) -> set[bytes]:
    find = ["find", "/var/lib/deployguard", "-name", "kept-*", "-o", "-path", "*/locks/*.json"]
    return set(host.run(find, check=False).stdout.splitlines())

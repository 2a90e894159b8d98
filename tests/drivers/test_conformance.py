"""Every driver passes the conformance suite: two on this machine, systemd's on real hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployguard.testing import DriverCase, DriverConformance
from tests.cluster.cluster import Cluster
from tests.drivers.cases import (
    command_case,
    kubernetes_case,
    let_user_managers_run,
    pm2_case,
    process_case,
    systemd_case,
)
from tests.drivers.nginx import nginx_case
from tests.drivers.stacks import compose_case, plugin_on
from tests.fleet import Fleet


class TestProcess(DriverConformance):
    """Programs with a pid file."""

    @pytest.fixture
    def case(self, tmp_path: Path) -> Iterator[DriverCase]:
        """On this machine, in a folder."""
        case = process_case(tmp_path, "releases")
        yield case
        case.stop()


class TestCommand(DriverConformance):
    """The user's own start, stop and status."""

    @pytest.fixture
    def case(self, tmp_path: Path) -> Iterator[DriverCase]:
        """On this machine, with a script that fails where there is nothing to do."""
        case = command_case(tmp_path, "in_place")
        yield case
        case.stop()


class TestKubernetes(DriverConformance):
    """A Deployment."""

    @pytest.fixture
    def case(self, cluster: Cluster, tmp_path: Path) -> DriverCase:
        """In a cluster of this process, by the real kubectl."""
        return kubernetes_case(tmp_path, cluster)


class TestSystemd(DriverConformance):
    """Units of the system manager."""

    @pytest.fixture
    def case(self, fleet: Fleet, tmp_path: Path) -> Iterator[DriverCase]:
        """On a real host, as root through sudo."""
        case = systemd_case(fleet, fleet.hosts[0], tmp_path)
        yield case
        case.stop()


@pytest.mark.slow
class TestNginx(DriverConformance):
    """A static site: releases, a configuration that is tested, and a reload."""

    @pytest.fixture
    def case(self, fleet: Fleet, tmp_path: Path) -> Iterator[DriverCase]:
        """On a real host, an nginx that is never stopped."""
        case = nginx_case(fleet, fleet.hosts[0], tmp_path)
        yield case
        case.stop()


class TestSystemdUser(DriverConformance):
    """Units of a user's manager."""

    @pytest.fixture
    def case(self, fleet: Fleet, tmp_path: Path) -> Iterator[DriverCase]:
        """On a real host, as the user who logs in."""
        let_user_managers_run(fleet.hosts[0])
        case = systemd_case(fleet, fleet.hosts[0], tmp_path, user=True, layout="in_place")
        yield case
        case.stop()


class TestPm2(DriverConformance):
    """PM2 of a user, driven by root."""

    @pytest.fixture
    def case(self, fleet: Fleet, tmp_path: Path) -> Iterator[DriverCase]:
        """On a real host: deleted and started anew from the release's ecosystem file."""
        case = pm2_case(fleet, fleet.hosts[0], tmp_path)
        yield case
        case.stop()


@pytest.mark.slow
class TestComposeOld(DriverConformance):
    """A stack, by docker-compose 1."""

    @pytest.fixture
    def case(self, engines: Fleet, tmp_path: Path) -> Iterator[DriverCase]:
        """On a real host with a real Docker Engine, as root through sudo."""
        case = compose_case(engines, engines.hosts[0], tmp_path, "docker-compose")
        yield case
        case.stop()


@pytest.mark.slow
class TestPm2Reload(DriverConformance):
    """PM2 of the user who logs in, two processes in cluster mode."""

    @pytest.fixture
    def case(self, fleet: Fleet, tmp_path: Path) -> Iterator[DriverCase]:
        """On a real host: reloaded in place, without a moment of a closed port."""
        case = pm2_case(
            fleet,
            fleet.hosts[0],
            tmp_path,
            become=False,
            layout="in_place",
            instances=2,
            action="reload",
        )
        yield case
        case.stop()


@pytest.mark.slow
class TestComposePlugin(DriverConformance):
    """A stack, by docker compose."""

    @pytest.fixture
    def case(self, engines: Fleet, tmp_path: Path) -> Iterator[DriverCase]:
        """On the same host, with the plugin."""
        plugin_on(engines.hosts[0])
        case = compose_case(engines, engines.hosts[0], tmp_path, "docker compose", "releases")
        yield case
        case.stop()


@pytest.mark.slow
class TestComposePodman(DriverConformance):
    """A stack, by podman-compose."""

    @pytest.fixture
    def case(self, engines: Fleet, tmp_path: Path) -> Iterator[DriverCase]:
        """On the same host, with podman."""
        case = compose_case(engines, engines.hosts[0], tmp_path, "podman-compose", "releases")
        yield case
        case.stop()

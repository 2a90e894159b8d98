"""The transport on real hosts: sudo with a pty of its own, and a network that goes dark."""

from __future__ import annotations

import time

import pytest

from deployguard.errors import ConnectionLost
from deployguard.plan.model import Host
from deployguard.transport import registry
from deployguard.transport.payload import Program
from tests import fleet as hosts
from tests.fleet import Fleet


def plan_host(fleet: Fleet, host: hosts.Host, **changes: object) -> Host:
    """How a plan names a host of the fleet."""
    fields: dict[str, object] = {
        "address": host.address,
        "user": host.user,
        "identity_file": str(fleet.client_key),
        "known_hosts": str(fleet.known_hosts),
        "become": True,
    }
    return Host.model_validate({**fields, **changes})


def test_root_through_sudo(fleet: Fleet, program: Program) -> None:
    """With ``become`` the program is root and keeps its state where root's is."""
    with registry.connect("web1", plan_host(fleet, fleet.hosts[0]), program=program) as session:
        assert session.hello["state"] == "/var/lib/deployguard"
        assert session.call("upload", stream=[bytes(5_000_000)])["size"] == 5_000_000
    plain = plan_host(fleet, fleet.hosts[0], become=False)
    with registry.connect("web1", plain, program=program) as session:
        assert session.hello["state"] == f"/home/{fleet.hosts[0].user}/.local/state/deployguard"


@pytest.mark.parametrize("become", [True, False])
def test_it_outlives_the_connection(fleet: Fleet, program: Program, become: bool) -> None:
    """Neither sshd nor sudo takes the program with it when the connection ends."""
    host = fleet.hosts[0]
    session = registry.connect("web1", plan_host(fleet, host, become=become), program=program)
    sign = f"{session.hello['state']}/sign"
    with pytest.raises(ConnectionLost):
        session.call("stay", timeout=0.5)
    until = time.monotonic() + 10
    while host.run(["test", "-e", sign], check=False).returncode:
        assert time.monotonic() < until
        time.sleep(0.2)
    host.run(["rm", sign])


@pytest.mark.slow
def test_a_network_that_goes_dark(fleet: Fleet, program: Program) -> None:
    """A connection that nothing comes back from is given up in half a minute, not in fifteen."""
    host = fleet.hosts[0]
    session = registry.connect("web1", plan_host(fleet, host), program=program)
    session.keep_alive(5)
    host.cut_network()
    try:
        started = time.monotonic()
        with pytest.raises(ConnectionLost):
            session.call("sleep", {"seconds": 120})
        assert 10 < time.monotonic() - started < 50
    finally:
        host.heal_network()

"""Picks the transport a host asks for; the one entry point for the rest of deployguard."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployguard.plan.model import Host
    from deployguard.transport.base import Transport
    from deployguard.transport.payload import Program
    from deployguard.transport.session import Session

__all__ = ["connect", "reach", "transport_for"]


def transport_for(host: Host) -> Transport:
    """The transport of ``host``."""
    if host.transport == "local":
        from deployguard.transport.local import LocalTransport

        return LocalTransport()
    # fabric and paramiko take 0.2 s to import, so only who needs them pays.
    from deployguard.transport.ssh import SshTransport

    return SshTransport()


def connect(host_name: str, host: Host, *, program: Program | None = None) -> Session:
    """A session with the host program on ``host``; raises ``Unreachable`` or nothing."""
    return transport_for(host).connect(host_name, host, program=program)


def reach(name: str, host: Host) -> Session:
    """As :func:`connect`, to a host of a plan: without an address its name is one."""
    if host.address is None:
        host = host.model_copy(update={"address": name})
    return connect(name, host)

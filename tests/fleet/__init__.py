"""Real hosts for the tests: systemd, sshd, and a network that can be cut.

A deploy that survives a power cut cannot be shown with a fake. The package boots systemd
containers, each with its own disk, network cable and host key, in a network namespace that has
no way out, fast enough that a test may ask for a fresh one.
"""

from __future__ import annotations

from tests.fleet.fleet import Fleet
from tests.fleet.host import Host
from tests.fleet.machine import FleetUnavailable
from tests.fleet.tree import Entry

__all__ = ["Entry", "Fleet", "FleetUnavailable", "Host"]

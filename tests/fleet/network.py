"""A fleet's own network: one namespace with a bridge, one more namespace and cable per host.

There is no route out, so a test cannot reach anything but its hosts, and every fleet can use the
same documentation addresses at the same time as another. The controller is whichever process
enters the bridge's namespace.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tests.fleet.base import CONTROLLER, address_of, name_of
from tests.fleet.machine import command

NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000


def enter(namespace: Path) -> None:
    """Move the calling thread, and the threads and processes it starts later, into `namespace`.

    Other threads stay where they are: the kernel keeps the network namespace per thread.
    """
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(handle, CLONE_NEWNET) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(namespace))
    finally:
        os.close(handle)


class Network:
    """The bridge, and the cables that can be plugged into it."""

    def __init__(self, fleet: str) -> None:
        self.name = f"dgf.{fleet}"
        self.path = NAMESPACES / self.name

    def create(self) -> None:
        """Make the namespace and its bridge, with the controller's address on it."""
        _ip("netns", "add", self.name)
        _ip_batch(
            self.name,
            "link set lo up",
            "link add br0 type bridge",
            "link set br0 addrgenmode none",
            f"addr add {CONTROLLER}/24 dev br0",
            "link set br0 up",
        )

    def destroy(self) -> None:
        """Remove every namespace of the fleet, and with them all its interfaces."""
        if not NAMESPACES.is_dir():
            return
        for name in sorted(os.listdir(NAMESPACES)):
            if name == self.name or name.startswith(f"{self.name}."):
                _ip("netns", "del", name)

    def host_namespace(self, number: int) -> str:
        """The name of the namespace the nth host lives in."""
        return f"{self.name}.{name_of(number)}"

    def plug(self, number: int) -> None:
        """Make the nth host's namespace and its cable, connected."""
        name, namespace = name_of(number), self.host_namespace(number)
        # The hardware address stays the same for life, as neighbours remember it.
        hardware = f"02:00:c0:00:02:{number:02x}"
        _ip("netns", "add", namespace)
        _ip_batch(
            self.name,
            f"link add {name} type veth peer name host0 address {hardware} netns {namespace}",
            f"link set {name} addrgenmode none",
            f"link set {name} master br0 up",
        )
        _ip_batch(
            namespace,
            "link set lo up",
            "link set host0 addrgenmode none",
            f"addr add {address_of(number)}/24 dev host0",
            "link set host0 up",
        )

    def unplug(self, number: int) -> None:
        """Remove the nth host's namespace, and with it every connection the kernel still holds.

        Without this the kernel would say goodbye to the peers of a host whose power was cut.
        """
        if (NAMESPACES / self.host_namespace(number)).exists():
            # The namespace itself lives until its last process is gone; the cable goes now.
            with suppress(OSError):  # the cable may be gone already
                _ip("-n", self.name, "link", "del", name_of(number))
            _ip("netns", "del", self.host_namespace(number))

    def cut(self, number: int) -> None:
        """Pull the nth host's cable: packets vanish, nobody is told."""
        _ip("-n", self.name, "link", "set", name_of(number), "down")

    def heal(self, number: int) -> None:
        """Put the nth host's cable back."""
        _ip("-n", self.name, "link", "set", name_of(number), "up")

    def banner(self, number: int, timeout: float = 1.0) -> bytes:
        """What the nth host's port 22 says first, seen from the bridge, wherever the caller is."""
        with ThreadPoolExecutor(1, initializer=enter, initargs=(self.path,)) as inside:
            return inside.submit(_first_line, address_of(number), timeout).result()


class Visit:
    """The calling thread's stay in a fleet's network, and the way back."""

    def __init__(self, network: Network) -> None:
        self._origin = os.open(
            f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC
        )
        enter(network.path)

    def end(self) -> None:
        """Return to the namespace the visit began in."""
        enter(Path(f"/proc/self/fd/{self._origin}"))
        os.close(self._origin)


def _first_line(address: str, timeout: float) -> bytes:
    with socket.create_connection((address, 22), timeout) as connection:
        return connection.recv(64)


def _ip(*arguments: str) -> None:
    command(["ip", *arguments])


def _ip_batch(namespace: str, *lines: str) -> None:
    command(["ip", "-n", namespace, "-batch", "-"], lines=lines)

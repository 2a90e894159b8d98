"""One host of a fleet: what a test may read, change and break.

Its disk is an overlay above the shared base. Everything here works on the host itself, as its
hardware and its root user would; how deployguard reaches the host is left to deployguard.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fleet.base import USER, address_of, name_of
from tests.fleet.cgroup import Cgroup
from tests.fleet.container import Container, until
from tests.fleet.machine import command
from tests.fleet.network import NAMESPACES, Network
from tests.fleet.tree import Entry, tree, within

BOOT_TIMEOUT = 60.0


class Host:
    """A systemd machine with sshd, a disk, a power switch and a network cable."""

    port = 22
    user = USER

    def __init__(self, fleet: str, number: int, home: Path, base: Path, network: Network) -> None:
        self.number = number
        self.name = name_of(number)
        self.address = address_of(number)
        self.directory = home / "hosts" / self.name
        self.client_key = home / "client_key"
        self.known_hosts = home / "known_hosts"
        self._base = base
        self._network = network
        self._container = Container(
            f"dgf.{fleet}.{self.name}",
            self.name,
            self.directory / "disk",
            Cgroup(fleet, self.name),
        )

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.address} {'up' if self.running else 'down'}>"

    # What a test asserts with

    @property
    def running(self) -> bool:
        """Whether the power is on."""
        return self._container.leader() is not None

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        check: bool = True,
        input: bytes | None = None,  # noqa: A002 - the name subprocess.run gives it
        timeout: float | None = 120.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command on the host as root, not through SSH."""
        return self._container.run(argv, check=check, input=input, timeout=timeout)

    def read(self, path: str | os.PathLike[str]) -> bytes:
        """The bytes of a file, as the host itself sees it (also below /run)."""
        return within(self._view, path).read_bytes()

    def write(
        self,
        path: str | os.PathLike[str],
        data: bytes | str,
        mode: int = 0o644,
        owner: str = "root",
    ) -> None:
        """Make a file with these bytes, and the directories above it; all of it `owner`'s."""
        place = within(self._view, path)
        uid, gid = self._ids(owner)
        for parent in reversed(place.parents):
            if not parent.exists():
                parent.mkdir()
                os.chown(parent, uid, gid)
        place.write_bytes(data.encode() if isinstance(data, str) else data)
        os.chown(place, uid, gid)
        place.chmod(mode)

    def path(self, path: str | os.PathLike[str]) -> Path:
        """Where the host's disk holds `path`, seen from out here; stays valid across a power cut.

        It shows the disk, so what the host mounts for itself (/run, /proc) is not in it.
        """
        return within(self._container.root, path, follow=False)

    def tree(self, path: str | os.PathLike[str]) -> dict[bytes, Entry]:
        """Every entry at and below `path`, to compare with itself later."""
        return tree(within(self._view, path))

    def journal(self, unit: str) -> str:
        """All the host's log of one unit, earlier boots included; works with the power off too."""
        argv = ["journalctl", "--no-pager", "--output=short-precise", f"--unit={unit}"]
        if self.running:
            self.run(["journalctl", "--sync"])
            done = self.run(argv)
        else:
            argv.append(f"--directory={self._container.root / 'var/log/journal'}")
            done = subprocess.run(argv, capture_output=True, check=True)
        return done.stdout.decode(errors="replace")

    # What a test breaks

    def power_cut(self) -> None:
        """Stop everything at once, as if the plug were pulled; peers hear nothing of it.

        The page cache is this machine's own and survives: what was written but not synced is
        still there at the next boot.
        """
        if self.running:
            self.cut_network()
        self._container.kill()
        self._network.unplug(self.number)

    def boot(self, timeout: float = BOOT_TIMEOUT) -> None:
        """Switch the power on, with the disk as it is; returns when systemd has settled."""
        self.start()
        self.await_booted(timeout)

    def reboot(self, timeout: float = BOOT_TIMEOUT) -> None:
        """Restart the orderly way: every unit is stopped first; returns when systemd has settled.

        A reboot from within only switches the host off; `boot` then brings it back.
        """
        self.run(["systemctl", "reboot"])
        if not until(lambda: not self.running, time.monotonic() + timeout):
            raise TimeoutError(f"{self.name} did not go down for its reboot")
        self.boot(timeout)

    def boot_id(self) -> str:
        """What tells this boot from every other; empty while there is none."""
        try:
            return self.read("/proc/sys/kernel/random/boot_id").decode().strip()
        except OSError:
            return ""

    def cut_network(self) -> None:
        """Pull the cable: established connections hang, new ones time out."""
        self._network.cut(self.number)

    def heal_network(self, timeout: float = 10.0) -> None:
        """Put the cable back; returns when packets pass again."""
        self._network.heal(self.number)
        # The bridge takes up to a second to notice.
        if self.running and not until(self._answers, time.monotonic() + timeout):
            raise TimeoutError(f"{self.name} does not answer after its network was healed")

    def small_disk(
        self,
        path: str | os.PathLike[str],
        size: int,
        *,
        inodes: int | None = None,
        filesystem: str = "tmpfs",
    ) -> None:
        """Mount an empty disk of `size` bytes at `path`; it stays through power cuts, till `reset`.

        `tmpfs` takes bytes and inodes exactly; `ext4` behaves like the real thing, from 1 MiB on.
        """
        place = within(self._container.root, path)
        place.mkdir(parents=True, exist_ok=True)
        if filesystem == "tmpfs":
            limits = f"size={size},mode=755" + (f",nr_inodes={inodes}" if inodes else "")
            command(["mount", "-t", "tmpfs", "-o", limits, "tmpfs", str(place)])
            return
        image = self.directory / f"disk-{time.monotonic_ns()}.ext4"
        with image.open("wb") as file:
            file.truncate(size)
        count = ["-N", str(inodes)] if inodes else []
        command(["mkfs.ext4", "-q", "-F", "-m", "0", *count, str(image)])
        command(["mount", "-o", "loop", str(image), str(place)])

    def reset(self, timeout: float = BOOT_TIMEOUT) -> None:
        """Throw the disk away and boot a new one; the host keeps its name, address and keys."""
        self.remove_disk()
        self.insert_disk()
        self.boot(timeout)

    # How a fleet takes a host through its life

    def insert_disk(self) -> None:
        """Mount an empty layer above the base, with what tells this host from the others."""
        root = self._container.root
        root.mkdir(parents=True, exist_ok=True)
        # A new place for every layer: the old one may still be held by a dying mount.
        layer = self.directory / f"layer-{time.monotonic_ns()}"
        (layer / "upper").mkdir(parents=True)
        (layer / "work").mkdir()
        # redirect_dir: a rename of a directory of the base works, as it does on a plain disk.
        lower = f"lowerdir={self._base},upperdir={layer}/upper,workdir={layer}/work"
        command(["mount", "-t", "overlay", "-o", f"{lower},redirect_dir=on", "overlay", str(root)])
        # A disk mounted later from out here appears inside the running container.
        command(["mount", "--make-shared", str(root)])
        self._personalise(root)

    def remove_disk(self) -> None:
        """Pull the power and delete the disk."""
        if self._container.root.exists():
            self.power_cut()
            unmount_below(self._container.root)
        for left in (*self.directory.glob("layer-*"), *self.directory.glob("disk-*.ext4")):
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def start(self) -> None:
        """Switch the power on and return at once."""
        if self.running:
            raise RuntimeError(f"{self.name} is running already")
        self._container.kill()  # what a host that switched itself off may have left
        self._network.unplug(self.number)
        self._network.plug(self.number)
        self._container.start(NAMESPACES / self._network.host_namespace(self.number))

    def await_booted(self, timeout: float = BOOT_TIMEOUT) -> None:
        """Wait until sshd answers and systemd has settled; a failure shows the console."""
        self._container.await_booted(self._answers, timeout)

    @property
    def _view(self) -> Path:
        leader = self._container.leader()
        return Path(f"/proc/{leader}/root") if leader else self._container.root

    def _answers(self) -> bool:
        try:
            return self._network.banner(self.number).startswith(b"SSH-2.0-")
        except OSError:
            return False

    def _ids(self, owner: str) -> tuple[int, int]:
        for line in within(self._view, "/etc/passwd").read_text().splitlines():
            name, _, uid, gid, *_ = line.split(":")
            if name == owner:
                return int(uid), int(gid)
        raise KeyError(f"{self.name} has no user {owner}")

    def _personalise(self, root: Path) -> None:
        (root / "etc/hostname").write_text(f"{self.name}\n")
        host_key = root / "etc/ssh/ssh_host_ed25519_key"
        shutil.copy(self.directory / "host_key", host_key)
        host_key.chmod(0o600)
        shutil.copy(self.directory / "host_key.pub", f"{host_key}.pub")
        for user, home in (("root", "root"), (USER, f"home/{USER}")):
            uid, gid = self._ids(user)
            ssh = root / home / ".ssh"
            ssh.mkdir(mode=0o700, exist_ok=True)
            shutil.copy(f"{self.client_key}.pub", ssh / "authorized_keys")
            for entry in (ssh, ssh / "authorized_keys"):
                os.chown(entry, uid, gid)


def unmount_below(directory: Path) -> None:
    """Unmount everything at or below `directory`, innermost first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [Path(os.fsdecode(_unescape(line.split()[4]))) for line in lines]
    for point in reversed(points):
        if point == directory or directory in point.parents:
            command(["umount", "--lazy", str(point)])


def _unescape(field: str) -> bytes:
    # mountinfo writes a space as \040
    return field.encode("latin-1", "surrogateescape").decode("unicode_escape").encode("latin-1")

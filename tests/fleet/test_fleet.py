"""The hosts are what they claim to be; every other test on real hosts rests on this."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.fleet import fleet as fleets
from tests.fleet import machine
from tests.fleet.cgroup import Cgroup
from tests.fleet.container import until
from tests.fleet.fleet import Fleet
from tests.fleet.host import Host
from tests.fleet.network import NAMESPACES
from tests.fleet.tree import within

pytestmark = pytest.mark.fleet


def ssh(fleet: Fleet, host: Host, *argv: str) -> str:
    """What a command prints over OpenSSH with strict host keys, from this process's network."""
    done = subprocess.run(
        ["ssh", "-F", str(fleet.ssh_config), host.name, *argv],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.stdout.strip()


def test_ssh_sudo_and_systemd(fleet: Fleet) -> None:
    """A login with strict host keys gives a user with sudo on a machine that systemd runs."""
    host = fleet.hosts[0]
    assert ssh(fleet, host, "id", "-un") == "deploy"
    assert ssh(fleet, host, "sudo", "-n", "id", "-un") == "root"
    assert ssh(fleet, host, "-l", "root", "hostname") == host.name
    assert ssh(fleet, host, "systemctl", "is-system-running") == "running"
    assert ssh(fleet, host, "systemctl", "--user", "is-system-running") == "running"


def test_network_reaches_both_ways_and_nowhere_else(fleet: Fleet) -> None:
    """A server of this process answers a host and itself on loopback; there is no way out."""
    handler = http.server.SimpleHTTPRequestHandler
    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_port
        probe = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"]
        answer = fleet.hosts[0].run([*probe, f"http://{fleet.controller}:{port}/"])
        assert answer.stdout == b"200"
        with socket.create_connection(("127.0.0.1", port), 5):
            pass
        server.shutdown()
    with pytest.raises(OSError, match="unreachable"):
        socket.create_connection(("198.51.100.1", 80), 5)


def test_tree_sees_every_kind_of_change(fleet: Fleet) -> None:
    """Bytes, mode, owner, time, extended attributes and link targets all count; reading none."""
    host = fleet.hosts[0]
    host.write("/srv/app/file", "one", mode=0o640, owner="deploy")
    host.run(["ln", "-s", "/srv/app/file", "/srv/app/link"])
    before = host.tree("/srv/app")
    assert host.read("/srv/app/link") == b"one"
    assert host.tree("/srv/app") == before
    assert before[b"file"].mode == 0o640
    assert before[b"link"].content == "/srv/app/file"
    for change in (
        ["touch", "-d", "2001-01-01", "/srv/app/file"],
        ["chmod", "600", "/srv/app/file"],
        ["chown", "root", "/srv/app/file"],
        ["python3", "-c", "import os; os.setxattr('/srv/app/file', 'user.a', b'1')"],
        ["ln", "-sfn", "/etc", "/srv/app/link"],
    ):
        host.run(change)
        after = host.tree("/srv/app")
        assert after != before
        before = after
    host.run(["rm", "-r", "/srv/app"])
    assert host.tree("/srv/app") == {}


def test_power_cut_keeps_the_disk_and_tells_nobody(fleet: Fleet) -> None:
    """Files and logs survive; memory, processes and connections do not, without a goodbye."""
    host = fleet.hosts[1]
    host.write("/srv/kept", "on disk")
    host.write("/run/lost", "in memory")
    unit = ["systemd-run", "--unit=marker", "--quiet", "sh", "-c", "echo written; exec sleep 600"]
    host.run(unit)
    assert until(lambda: "written" in host.journal("marker.service"), time.monotonic() + 10)
    with socket.create_connection((host.address, host.port), 5) as connection:
        connection.settimeout(0.3)
        assert connection.recv(64).startswith(b"SSH-2.0-")
        host.power_cut()
        assert not host.running
        with pytest.raises(TimeoutError):
            connection.recv(4096)
    assert host.path("/srv/kept").read_bytes() == b"on disk"
    assert "written" in host.journal("marker.service")
    host.boot()
    assert host.read("/srv/kept") == b"on disk"
    assert not within(host.path("/"), "/run/lost").exists()
    assert host.run(["systemctl", "is-active", "marker"], check=False).stdout == b"inactive\n"
    assert ssh(fleet, host, "hostname") == host.name


def test_cut_network_hangs_and_heals(fleet: Fleet) -> None:
    """A cut cable leaves the host running and unreachable, and the same connection goes on."""
    host = fleet.hosts[2]
    with socket.create_connection((host.address, host.port), 5) as connection:
        assert connection.recv(64).startswith(b"SSH-2.0-")
        host.cut_network()
        connection.sendall(b"SSH-2.0-probe\r\n")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(64)
        assert host.run(["true"]).returncode == 0
        host.heal_network()
        connection.settimeout(10)
        assert connection.recv(64)


def test_small_disk_fills_up_and_reset_forgets(fleet: Fleet) -> None:
    """A disk of a megabyte takes no more, stays through a power cut, and goes with a reset."""
    host = fleet.hosts[3]
    host.small_disk("/srv/small", 1 << 20)
    host.small_disk("/srv/inodes", 8 << 20, inodes=64, filesystem="ext4")
    fill = ["sh", "-c", "head -c 2M /dev/zero > /srv/small/file"]
    assert b"No space left" in host.run(fill, check=False).stderr
    host.power_cut()
    host.boot()
    assert host.run(["stat", "-c", "%s", "/srv/small/file"]).stdout == b"1048576\n"
    key = host.read("/etc/ssh/ssh_host_ed25519_key.pub")
    host.reset()
    assert host.tree("/srv")[b"."].kind == "directory"
    assert list(host.tree("/srv")) == [b"."]
    assert host.read("/etc/ssh/ssh_host_ed25519_key.pub") == key
    assert ssh(fleet, host, "hostname") == host.name


@pytest.mark.usefixtures("fleet")
def test_killed_owner_leaves_nothing_for_long() -> None:
    """What a SIGKILLed test run leaves behind is gone after the next `up` on the machine."""
    name = f"killed-{os.getpid()}"
    code = (
        "import sys, time; from tests.fleet import Fleet\n"
        f"Fleet.up(1, {name!r}); print('up', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        fleets.sweep()
        assert fleets.owned(name)
        assert Cgroup(name).pids()
        os.kill(owner.pid, signal.SIGKILL)
    assert name in fleets.names()
    fleets.sweep()
    assert name not in fleets.names()
    assert not list(NAMESPACES.glob(f"dgf.{name}*"))
    assert name not in Path("/proc/self/mounts").read_text()


def test_links_inside_a_host_stay_inside(tmp_path: Path) -> None:
    """A path is resolved as the host would, whatever the same path is out here."""
    (tmp_path / "real").mkdir()
    (tmp_path / "absolute").symlink_to("/real")
    (tmp_path / "up").symlink_to("../../../../real")
    assert within(tmp_path, "/absolute/x") == tmp_path / "real/x"
    assert within(tmp_path, "/up/x") == tmp_path / "real/x"
    assert within(tmp_path, "/absolute", follow=False) == tmp_path / "absolute"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="too many links"):
        within(tmp_path, "/loop")


def test_mirror_is_read_in_both_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first source with this release and `main` wins; other people's archives do not."""
    release = {"VERSION_CODENAME": "trusty"}
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: release)
    monkeypatch.setattr(machine, "APT", tmp_path)
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "mirrors.txt").write_text("# near\nhttp://mirror.example/debian\tpriority:1\n")
    (tmp_path / "sources.list.d/tool.list").write_text("deb http://tool.example trusty stable\n")
    (tmp_path / "sources.list.d/debian.sources").write_text(
        "Types: deb\n# a comment\n"
        f"URIs: mirror+file:{tmp_path}/mirrors.txt\n"
        "Suites: trusty trusty-updates\nComponents: main extra\nSigned-By: /keys/a.gpg\n"
    )
    found = machine.mirror()
    assert found.url == "http://mirror.example/debian"
    assert (found.suite, found.components) == ("trusty", ("main", "extra"))
    assert found.keyring == "/keys/a.gpg"
    line = "deb [arch=amd64 signed-by=/keys/b.gpg] http://old.example/debian trusty main\n"
    (tmp_path / "sources.list").write_text(line)
    assert machine.mirror().url == "http://old.example/debian"
    assert machine.mirror().keyring == "/keys/b.gpg"


def test_reboot_stops_units_and_comes_back(fleet: Fleet) -> None:
    """An orderly restart lets units say goodbye, and what is enabled starts again."""
    host = fleet.hosts[0]
    unit = (
        "[Service]\nExecStart=/bin/sleep infinity\nExecStopPost=/bin/touch /srv/goodbye\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )
    host.write("/etc/systemd/system/polite.service", unit)
    host.run(["systemctl", "enable", "--now", "polite"])
    before = host.boot_id()
    host.reboot()
    assert host.boot_id() != before
    assert b"goodbye" in host.tree("/srv")
    assert host.run(["systemctl", "is-active", "polite"]).stdout == b"active\n"
    host.reset()


def test_boot_is_quick_enough_to_ask_for(fleet: Fleet) -> None:
    """A host comes back from a power cut in seconds, so tests need not spare it."""
    host = fleet.hosts[0]
    host.power_cut()
    began = time.monotonic()
    host.boot()
    assert time.monotonic() - began < 20

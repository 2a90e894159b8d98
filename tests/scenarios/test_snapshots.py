"""A machine is lost, and another takes its place: what is in the bucket is what it serves."""

from __future__ import annotations

import json
import shlex

from tests.fleet.host import Host
from tests.fleet.tree import Entry
from tests.scenarios.conftest import MakeScene
from tests.scenarios.scene import Scene
from tests.servers.bucket import CREDENTIALS, a_bucket

KEY = "ab" * 32
SENTINEL = "hunter2-sentinel"


def user(host: Host, name: str, number: int) -> None:
    """A user with a number of its own, which the other host has not."""
    for kind, words in (
        ("group", ["groupadd", "-g"]),
        ("passwd", ["useradd", "-M", "-g", name, "-u"]),
    ):
        if host.run(["getent", kind, name], check=False).returncode != 0:
            host.run([*words, str(number), name])


def owned(tree: dict[bytes, Entry], numbers: dict[int, str]) -> dict[bytes, Entry]:
    """A tree with the names of its owners in place of their numbers."""
    return {
        path: entry._replace(uid=numbers[entry.uid], gid=numbers[entry.gid])  # type: ignore[arg-type]
        for path, entry in tree.items()
    }


def only(scene: Scene, host: Host) -> None:
    """The plan is about this host from now on."""
    scene.hosts = [host]


def test_another_machine_takes_its_place(scene: MakeScene) -> None:
    """v1 was live when v2 was deployed. Its machine is gone; on an empty one with other numbers for
    the same users, v1 is back from the bucket: every file, the unit with its drop-in, enabled, and
    served. The bucket has no word of it in clear."""
    shop = scene(hosts=2)
    old, new = shop.hosts
    user(old, "shopper", 3001)
    user(new, "shopper", 4002)
    (shop.directory / "limits.conf").write_text("[Service]\nLimitNOFILE=4096\n")
    unit = {"unit": shop.unit, "unit_file": "app.service", "enable": True}
    shop.component = {
        "owner": "shopper",
        "group": "shopper",
        "service": {"systemd": {**unit, "drop_ins": {"limits.conf": "limits.conf"}}},
        "files": {
            f"/etc/{shop.name}.env": {"content": SENTINEL, "mode": "0640", "owner": "shopper"}
        },
    }
    with a_bucket() as bucket:
        shop.environment |= {**CREDENTIALS, "SNAPSHOT_KEY": KEY}
        shop.extra["snapshots"] = {
            "to": "s3://backups/prod",
            "key_env": "SNAPSHOT_KEY",
            "endpoint": bucket.endpoint,
            "required": True,
        }
        only(shop, old)
        release = shop.release("v1")
        (release / "secret.txt").write_text(SENTINEL)
        (release / "tool").write_bytes(b"\x7fELF" + bytes(2_000_000))
        (release / "tool").chmod(0o4750)
        (release / "link").symlink_to("../../shared")
        (release / "link").unlink()
        (release / "link").symlink_to("app/same.txt")
        assert shop.apply("v1").code == 0
        before, state = shop.tree(old), shop.unit_state(old)
        env = old.path(f"/etc/{shop.name}.env").stat()
        done = shop.apply("v2")
        assert done.code == 0, done
        old.run(["systemctl", "stop", shop.unit])

        only(shop, new)
        # What the plan says of it now does not count.
        del shop.component["service"]["systemd"]["enable"]
        shop.write_plan("v2")
        done = shop.command("restore", "plan.yaml", "--json", "--host", new.name, "--of", old.name)
        assert done.code == 0, done
        assert shop.served(new)["version"] == "v1"
        names = {0: "root", 3001: "shopper", 4002: "shopper"}
        assert owned(shop.tree(new), names) == owned(before, names)
        assert {entry.uid for entry in shop.tree(new).values()} == {4002}
        assert shop.unit_state(new) == state and "UnitFileState=enabled" in state
        drop_in = f"/etc/systemd/system/{shop.unit}.d/limits.conf"
        assert new.read(drop_in) == old.read(drop_in)
        there = new.path(f"/etc/{shop.name}.env").stat()
        assert (there.st_mode, there.st_mtime_ns) == (env.st_mode, env.st_mtime_ns)
        assert (there.st_uid, new.read(f"/etc/{shop.name}.env").decode()) == (4002, SENTINEL)
        assert shop.leftovers(new) == []
        assert shop.command("status", "plan.yaml", "--verify").code == 0

        objects = bucket.objects()
        text = json.dumps(sorted(objects)).encode() + b"".join(objects.values())
        for secret in (SENTINEL, KEY, shop.unit, "secret.txt"):
            assert secret.encode() not in text
        for host in (old, new):
            command = f"grep -rl {shlex.quote(KEY)} /var/lib/deployguard /srv || true"
            assert host.run(["sh", "-c", command]).stdout == b""

        # A user that is not there is said before anything is touched.
        new.run(["systemctl", "stop", shop.unit])
        new.run(["userdel", "shopper"])
        lost = shop.command("restore", "plan.yaml", "--host", new.name, "--of", old.name)
        assert lost.code == 5, lost
        assert "there is no user shopper" in lost.text and "useradd" in lost.text

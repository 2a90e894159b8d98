"""What the host collects, and that a collector which misbehaves costs its own share only."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from deployguard.onhost.evidence import collect as evidence
from deployguard.onhost.evidence.collect import CollectorData, collect, mark, pack
from deployguard.onhost.logs.source import journal_cursor
from deployguard.onhost.share import Share, UnsafeName, write_file
from deployguard.onhost.system import Completed, System
from deployguard.onhost.trees.scan import scan
from tests.onhost.fake_system import FakeSystem, completed

system = System()


def collector(identifier: str, kind: str, to: str, **parameters: Any) -> CollectorData:
    """A collector with a share of 1 MB and ten seconds."""
    data: Any = {
        "id": identifier,
        "kind": kind,
        "to": to,
        "stage": "critical",
        "max_bytes": 1_000_000,
        "max_seconds": 10.0,
        **parameters,
    }
    result: CollectorData = data
    return result


def by_id(results: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Results by collector."""
    return {result["id"]: result for result in results}


def test_each_kind_leaves_its_file(tmp_path: Path) -> None:
    """Private files in private folders, and a result each."""
    (tmp_path / "conf").write_text("a = 1\n")
    out = tmp_path / "out"
    results = by_id(
        collect(
            [
                collector("c", "command", "a/c.txt", argv=["printf", "hello"], component="a"),
                collector("f", "file", "a/conf", path=str(tmp_path / "conf")),
                collector("h", "facts", "facts.json", paths=[str(tmp_path)]),
            ],
            str(out),
            system,
        )
    )
    assert (out / "a/c.txt").read_text() == "hello"
    assert (out / "a/conf").read_text() == "a = 1\n"
    assert results["c"]["component"] == "a" and results["c"]["bytes"] == 5
    assert [result["error"] for result in results.values()] == ["", "", ""]
    for path in [out, *out.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_only_the_stage_that_is_asked_for(tmp_path: Path) -> None:
    """The rest is collected after the restore, into the same folder and the same list."""
    collectors = [
        collector("now", "command", "now", argv=["true"]),
        collector("later", "command", "later", argv=["true"], stage="rest"),
    ]
    first = collect(collectors, str(tmp_path / "out"), system, stage="critical")
    second = collect(collectors, str(tmp_path / "out"), system, stage="rest")
    assert [r["id"] for r in first] == ["now"] and [r["id"] for r in second] == ["later"]
    lines = (tmp_path / "out" / evidence.RESULTS).read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["now", "later"]


def test_a_collector_that_hangs_costs_its_share_only(tmp_path: Path) -> None:
    """What it said before is kept, and the next one has its turn."""
    results = by_id(
        collect(
            [
                collector(
                    "hangs", "command", "h", argv=["sh", "-c", "echo x; sleep 300"], max_seconds=0.3
                ),
                collector("next", "command", "n", argv=["printf", "y"]),
            ],
            str(tmp_path / "out"),
            system,
        )
    )
    assert results["hangs"]["truncated"] and "did not end within" in results["hangs"]["error"]
    assert results["hangs"]["seconds"] < 5.0
    assert (tmp_path / "out/h").read_text() == "x\n"
    assert (tmp_path / "out/n").read_text() == "y"


def test_a_collector_stuck_in_the_kernel_is_left_behind(tmp_path: Path) -> None:
    """A thread that hangs in a read of a dead file server cannot be ended, only abandoned."""
    fake = FakeSystem()
    fake.hanging.append("stuck")
    (tmp_path / "f").write_text("f")
    results = by_id(
        collect(
            [
                collector("stuck", "file", "s", path="/dead/nfs"),
                collector("next", "file", "n", path=str(tmp_path / "f")),
            ],
            str(tmp_path / "out"),
            fake,
        )
    )
    assert results["stuck"]["error"] == "did not end in time"
    assert results["next"]["error"] == ""


def test_a_flood_is_cut_to_the_share(tmp_path: Path) -> None:
    """Both ends of it are kept, and the others do not suffer."""
    results = by_id(
        collect(
            [
                collector("flood", "command", "f", argv=["seq", "1000000"], max_bytes=1000),
                collector("next", "command", "n", argv=["printf", "y"]),
            ],
            str(tmp_path / "out"),
            system,
        )
    )
    text = (tmp_path / "out/f").read_text()
    assert results["flood"]["truncated"] and len(text) < 1200
    assert text.startswith("1\n2\n") and text.endswith("999999\n1000000\n")
    assert results["next"]["error"] == ""


def test_the_whole_has_a_budget(tmp_path: Path) -> None:
    """When it is spent the rest is named as not collected."""
    collectors = [
        collector(str(number), "command", str(number), argv=["printf", "%0100d", "0"])
        for number in range(4)
    ]
    results = collect(collectors, str(tmp_path / "out"), system, max_bytes=250)
    assert [result["bytes"] for result in results[:2]] == [100, 100]
    assert results[3]["truncated"]
    assert sum(result["bytes"] for result in results) < 400
    fake = FakeSystem()

    def slow(machine: FakeSystem) -> Completed:
        machine.sleep(50.0)
        return completed("x")

    fake.programs["slow"] = slow
    both = [collector(n, "command", n, argv=["slow"], max_seconds=99.0) for n in "ab"]
    results = collect(both, str(tmp_path / "slow"), fake, max_seconds=40.0)
    assert results[1]["error"] == "nothing left of the budget of the whole"


def test_what_fails_is_a_result(tmp_path: Path) -> None:
    """Absent, not a file, incomplete, unknown, hostile: never an exception."""
    os.mkfifo(str(tmp_path / "pipe"))
    results = by_id(
        collect(
            [
                collector("absent", "file", "a", path=str(tmp_path / "absent")),
                collector("pipe", "file", "p", path=str(tmp_path / "pipe")),
                collector("incomplete", "file", "i"),
                collector("unknown", "magic", "u"),
                collector("hostile", "command", "../escaped", argv=["true"]),
                collector("status", "command", "s", argv=["false"]),
            ],
            str(tmp_path / "out"),
            system,
        )
    )
    assert "No such file" in results["absent"]["error"]
    assert "no regular file" in results["pipe"]["error"]
    assert "has no 'path'" in results["incomplete"]["error"]
    assert "unknown kind" in results["unknown"]["error"]
    assert "UnsafeName" in results["hostile"]["error"]
    assert "ended with status 1" in results["status"]["error"]
    assert not (tmp_path / "escaped").exists()


def test_a_log_is_kept_from_the_mark_on(tmp_path: Path) -> None:
    """Exactly the window of the deploy; a log that was rotated meanwhile is all news."""
    log = tmp_path / "log"
    log.write_text("before\n")
    collectors = [collector("log", "tail", "log", path=str(log))]
    marks = mark(collectors, system)
    with log.open("a") as stream:
        stream.write("during\n")
    collect(collectors, str(tmp_path / "one"), system, marks=marks)
    assert (tmp_path / "one/log").read_text() == "during\n"
    log.rename(tmp_path / "log.1")
    log.write_text("a new file, longer than the old one was\n")
    collect(collectors, str(tmp_path / "two"), system, marks=marks)
    assert (tmp_path / "two/log").read_text().startswith("a new file")


def test_a_log_that_did_not_exist_is_kept_from_its_start(tmp_path: Path) -> None:
    """The service wrote its first line during the deploy."""
    log = tmp_path / "log"
    collectors = [collector("log", "tail", "log", path=str(log))]
    marks = mark(collectors, system)
    log.write_text("first\n")
    collect(collectors, str(tmp_path / "out"), system, marks=marks)
    assert (tmp_path / "out/log").read_text() == "first\n"


def test_a_huge_log_is_kept_at_both_ends(tmp_path: Path) -> None:
    """Without reading what lies between."""
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    result = collect(
        [collector("log", "tail", "log", path=str(log), max_bytes=200)],
        str(tmp_path / "out"),
        system,
    )[0]
    text = (tmp_path / "out/log").read_text()
    assert result["truncated"] and len(text) < 300
    assert text.startswith("line 0\n") and text.endswith("line 99999\n")
    kept = sum(len(line) + 1 for line in text.splitlines() if line.startswith("line"))
    assert f"[... {log.stat().st_size - kept} bytes left out ...]" in text


def test_the_journal_is_read_from_its_cursor(tmp_path: Path) -> None:
    """By unit and manager; the cursor is asked for once a manager."""
    fake = FakeSystem()
    fake.programs["--lines=1"] = lambda _: completed('{"__CURSOR": "s=abc;i=1", "PRIORITY": "6"}\n')
    fake.programs["--after-cursor=s=abc;i=1"] = lambda _: completed("the window\n")
    collectors = [
        collector("j", "journal", "j.log", unit="x.service", scope="system"),
        collector("k", "journal", "k.log", kernel=True),
        collector("u", "journal", "u.log", unit="y.service", scope="user"),
    ]
    marks = mark(collectors, fake)
    assert marks["j"]["cursor"] == "s=abc;i=1"
    assert len(fake.ran) == 2
    results = collect(collectors, str(tmp_path / "out"), fake, marks=marks)
    assert [result["error"] for result in results] == ["", "", ""]
    assert (tmp_path / "out/j.log").read_text() == "the window\n"
    lines = [" ".join(argv) for argv in fake.ran[2:]]
    assert "--unit=x.service" in lines[0] and "--user" not in lines[0]
    assert "--dmesg" in lines[1]
    assert "--user" in lines[2] and "--unit=y.service" in lines[2]


def test_a_cursor_that_is_refused_falls_back_to_the_time(tmp_path: Path) -> None:
    """A journal that was rotated away, or replaced, still has times."""
    fake = FakeSystem()
    fake.programs["--after-cursor"] = lambda _: completed("", 1)
    fake.programs["--since=@1702292800"] = lambda _: completed("by time\n")
    marks = {"j": {"cursor": "s=gone", "since": 1702292800.9}}
    collectors = [collector("j", "journal", "j.log", unit="x.service")]
    assert collect(collectors, str(tmp_path / "out"), fake, marks=marks)[0]["error"] == ""
    assert (tmp_path / "out/j.log").read_text() == "by time\n"


def test_without_a_journal_there_is_no_cursor() -> None:
    """No program, no entries, no sense: none."""
    fake = FakeSystem()
    assert journal_cursor(fake) is None
    fake.programs["journalctl"] = lambda _: completed("")
    assert journal_cursor(fake) is None
    fake.programs["journalctl"] = lambda _: completed("[1]")
    assert journal_cursor(fake) is None


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A live tree, and beside it the manifest of what was there before."""
    root = tmp_path / "tree"
    (root / "lib").mkdir(parents=True)
    (root / "same").write_text("same")
    (root / "gone").write_text("gone")
    (root / "lib/changed").write_text("old")
    (root / "link").symlink_to("same")
    (tmp_path / "manifest").write_bytes(scan(str(root)).to_bytes())
    (root / "gone").unlink()
    (root / "lib/changed").write_text("new text")
    (root / "lib/added").write_text("added")
    (root / "core").write_text("x" * 5000)
    (root / "cache").mkdir()
    (root / "cache/x.pyc").write_text("x")
    return root


def test_the_failed_tree_against_the_old_manifest(tree: Path, tmp_path: Path) -> None:
    """A listing of all of it, what differs, and copies of that, the small ones first."""
    out = tmp_path / "out"
    data = collector(
        "t",
        "tree",
        "backend",
        path=str(tree),
        manifest=str(tmp_path / "manifest"),
        ignore=["**/*.pyc"],
        max_bytes=4000,
    )
    result = collect([data], str(out), system)[0]
    changes = json.loads((out / "backend/CHANGES.json").read_text())
    assert changes == {
        "added": ["cache", "core", "lib/added"],
        "changed": ["lib/changed"],
        "removed": ["gone"],
        "left_out": ["core"],
    }
    assert (out / "backend/files/lib/changed").read_text() == "new text"
    assert (out / "backend/files/lib/added").read_text() == "added"
    assert not (out / "backend/files/core").exists() and result["truncated"]
    rows = [json.loads(line) for line in (out / "backend/MANIFEST.jsonl").read_text().splitlines()]
    listing = {row["path"]: row for row in rows}
    assert set(listing) == {"cache", "core", "lib", "lib/added", "lib/changed", "link", "same"}
    assert len(listing["same"]["sha256"]) == 64 and "change" not in listing["same"]
    assert listing["link"]["target"] == "same"
    assert listing["lib/changed"]["change"] == "changed"


def test_a_build_gives_every_file_a_new_time(tree: Path, tmp_path: Path) -> None:
    """That is no change; what the trial wrote into a deployed file is one."""
    for name in ("same", "lib/changed", "lib/added"):
        os.utime(tree / name, (2e9, 2e9))
    (tmp_path / "staged").write_bytes(scan(str(tree)).to_bytes())
    (tree / "lib/added").write_text("written meanwhile")
    out = tmp_path / "out"
    where = {name: str(tmp_path / name) for name in ("manifest", "staged")}
    collect([collector("t", "tree", "b", path=str(tree), **where)], str(out), system)
    changes = json.loads((out / "b/CHANGES.json").read_text())
    assert changes["changed"] == ["lib/changed"]
    assert sorted(changes["added"]) == ["cache", "cache/x.pyc", "core", "lib/added"]
    assert not (out / "b/files/same").exists()
    rows = [json.loads(line) for line in (out / "b/MANIFEST.jsonl").read_text().splitlines()]
    listing = {row["path"]: row for row in rows}
    digest = hashlib.sha256(b"same").hexdigest()
    assert listing["same"]["sha256"] == digest and "change" not in listing["same"]
    assert "sha256" not in listing["lib/added"]
    os.utime(tree / "same", (1e9, 1e9))
    collect([collector("t", "tree", "c", path=str(tree), **where)], str(out), system)
    assert "same" in json.loads((out / "c/CHANGES.json").read_text())["changed"]


def test_a_tree_without_a_manifest_is_listed(tree: Path, tmp_path: Path) -> None:
    """There is nothing to differ from, so nothing is copied."""
    result = collect(
        [collector("t", "tree", "b", path=str(tree), manifest=str(tmp_path / "no"))],
        str(tmp_path / "out"),
        system,
    )[0]
    assert result["error"] == ""
    assert [path.name for path in (tmp_path / "out/b").iterdir()] == ["MANIFEST.jsonl"]


def test_facts_of_the_machine(tmp_path: Path) -> None:
    """Load, memory, disk, who listens, who runs: read, not asked of programs."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        collect([collector("h", "facts", "f.json", paths=["/", "/no"])], str(tmp_path), system)
        facts = json.loads((tmp_path / "f.json").read_text())
        port = server.getsockname()[1]
    assert len(facts["load"]) == 3 and facts["uptime_seconds"] > 0
    assert facts["memory_bytes"]["MemTotal"] > 2**20
    assert facts["disks"][0]["bytes_free"] > 0 and "error" in facts["disks"][1]
    mine = [entry for entry in facts["sockets"]["listening"] if entry["port"] == port]
    assert mine[0]["address"] == "127.0.0.1" and mine[0]["pid"] == os.getpid()
    assert facts["processes"]["count"] > 0
    assert {"pid", "command", "rss_bytes"} <= set(facts["processes"]["largest"][0])


def test_facts_leave_out_what_finds_no_room(tmp_path: Path) -> None:
    """The machine's numbers before its process list."""
    result = collect([collector("h", "facts", "f.json", max_bytes=300)], str(tmp_path), system)[0]
    facts = json.loads((tmp_path / "f.json").read_text())
    assert result["truncated"] and "processes" not in facts and "load" in facts


def test_a_bundle_holds_the_files_and_nothing_else(tmp_path: Path) -> None:
    """In pieces fit for a frame, links and pipes left out, odd names carried."""
    (tmp_path / "out/sub").mkdir(parents=True)
    (tmp_path / "out/sub/big").write_bytes(os.urandom(300_000))
    (tmp_path / "out/empty").touch()
    (tmp_path / "out" / os.fsdecode(b"odd\xff")).write_text("odd")
    (tmp_path / "out/link").symlink_to("/etc/passwd")
    os.mkfifo(str(tmp_path / "out/pipe"))
    pieces = list(pack(str(tmp_path / "out")))
    assert max(map(len, pieces)) <= 65536
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        names = archive.getnames()
        big = archive.extractfile("sub/big")
        assert big is not None
        assert big.read() == (tmp_path / "out/sub/big").read_bytes()
    assert sorted(names) == ["empty", os.fsdecode(b"odd\xff"), "sub/big"]


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../x", "a//x", "a/.", "a\0b"])
def test_names_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    """Whatever the controller, or a tree, calls its files."""
    with pytest.raises(UnsafeName):
        write_file(str(tmp_path / "out"), name, b"x")


def test_no_file_is_written_through_a_link(tmp_path: Path) -> None:
    """Neither a folder nor the file itself."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/folder").symlink_to(tmp_path)
    (tmp_path / "out/file").symlink_to(tmp_path / "target")
    with pytest.raises(UnsafeName):
        write_file(str(tmp_path / "out"), "folder/x", b"x")
    with pytest.raises(OSError):
        write_file(str(tmp_path / "out"), "file", b"x")
    assert not (tmp_path / "target").exists()


def test_a_share_ends() -> None:
    """By the clock it was given."""
    times = iter([1.0, 4.9, 5.1])
    share = Share(10, 5.0, lambda: next(times))
    assert share.seconds() == 4.0
    assert not share.over()
    assert share.over()

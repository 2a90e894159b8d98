"""What a host says of its live tree for a snapshot, and what it sends of it: exact, or none."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from deployguard.onhost.places import NotManageable, State
from deployguard.onhost.queries import offhost
from deployguard.onhost.system import System
from deployguard.onhost.trees import blobs
from deployguard.onhost.trees.manifest import Manifest
from deployguard.onhost.trees.scan import scan
from tests.onhost.sample_trees import make

TREE = {"VERSION": "v1", "app/main.py": "print()", "app/empty": "", "large": "x" * 3_000_000}


def live(tmp_path: Path, *files: str, **changes: Any) -> Tuple[Dict[str, Any], bytes]:
    """The answer and the bytes behind it."""
    asked: Dict[str, Any] = {
        "path": str(tmp_path / "srv"),
        "layout": "in_place",
        "keep": [],
        "ignore": [],
        "files": list(files),
        "observe": [],
    }
    asked.update(changes)
    answer, pieces = offhost.live(State(str(tmp_path / "state")), System(), asked)
    return answer, b"".join(pieces)


def sent(tmp_path: Path, tree: str, wanted: List[Tuple[str, int, str]]) -> Dict[str, bytes]:
    """What arrives of contents that are asked for."""
    store = tmp_path / "arrived"
    store.mkdir()
    _, pieces = offhost.contents({"tree": tree, "wanted": [list(each) for each in wanted]})
    try:
        blobs.receive(pieces, str(store), {digest: size for digest, size, _ in wanted})
    except blobs.BlobsInvalid:
        pass
    found = {}
    for digest, blob in blobs.stored(str(store)).items():
        with open(blob.path, "rb") as file:
            file.seek(blob.offset)
            found[digest] = file.read(blob.size)
    return found


def test_the_manifest_is_the_tree(tmp_path: Path) -> None:
    """Less what belongs to the host, and less what cannot be built again, which is named."""
    root = tmp_path / "srv"
    make(str(root), {**TREE, "uploads/mine": "m", "cache.pyc": "c"})
    os.mkfifo(str(root / "pipe"))
    os.symlink("app/main.py", str(root / "link"))
    answer, data = live(tmp_path, keep=["uploads/"], ignore=["*.pyc"])
    assert answer["exists"] and answer["version"] is None and answer["tree"] == str(root)
    assert answer["left_out"] == ["pipe"]
    manifest = Manifest.from_bytes(data)
    everything = scan(str(root))
    left = {"uploads", "uploads/mine", "cache.pyc", "pipe"}
    assert manifest.entries == tuple(e for e in everything if e.path not in left)


def test_contents_arrive(tmp_path: Path) -> None:
    """Of the tree, and of files elsewhere by their absolute path."""
    make(str(tmp_path / "srv"), TREE)
    unit = tmp_path / "shop.service"
    unit.write_text("[Unit]\n")
    unit.chmod(0o640)
    answer, data = live(tmp_path, str(unit), str(tmp_path / "absent"))
    there, absent = answer["files"]
    assert (there["path"], there["mode"], there["size"]) == (str(unit), 0o640, 7)
    assert absent["exists"] is False
    wanted = [(e.digest, e.size, e.path) for e in Manifest.from_bytes(data) if e.kind == "f"]
    wanted.append((there["digest"], there["size"], there["at"]))
    found = sent(tmp_path, answer["tree"], wanted)
    assert sorted(found.values()) == sorted([*(t.encode() for t in TREE.values()), b"[Unit]\n"])


@pytest.mark.parametrize("name", ["VERSION", "large"])
def test_what_changed_is_not_sent(tmp_path: Path, name: str) -> None:
    """Neither a small file nor a large one under its old hash; the others are."""
    root = tmp_path / "srv"
    make(str(root), TREE)
    answer, data = live(tmp_path)
    wanted = [(e.digest, e.size, e.path) for e in Manifest.from_bytes(data) if e.kind == "f"]
    text = TREE[name]
    (root / name).write_text(text[:-1] + "!")
    (root / "app" / "empty").unlink()
    found = sent(tmp_path, answer["tree"], wanted)
    gone = {hashlib.sha256(each.encode()).hexdigest() for each in (text, "")}
    assert set(found) == {digest for digest, _, _ in wanted} - gone
    for digest, content in found.items():
        assert hashlib.sha256(content).hexdigest() == digest


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A file that became a link since is not what was asked for."""
    root = tmp_path / "srv"
    make(str(root), {"a": "content"})
    other = tmp_path / "other"
    other.write_text("content")
    (root / "a").unlink()
    os.symlink(str(other), str(root / "a"))
    digest = hashlib.sha256(b"content").hexdigest()
    assert sent(tmp_path, str(root), [(digest, 7, "a")]) == {}


def test_nothing_is_live(tmp_path: Path) -> None:
    """No tree, in either layout, and a link that leads nowhere."""
    for layout in ("in_place", "releases"):
        assert live(tmp_path, layout=layout) == ({"exists": False}, b"")
    (tmp_path / "srv").mkdir()
    os.symlink("releases/v1", str(tmp_path / "srv" / "current"))
    assert live(tmp_path, layout="releases") == ({"exists": False}, b"")


def test_a_managed_file_that_is_none(tmp_path: Path) -> None:
    """A directory or a link in its place is said, as a deploy says it."""
    make(str(tmp_path / "srv"), TREE)
    with pytest.raises(NotManageable, match="not a plain file"):
        live(tmp_path, str(tmp_path / "srv"))


def test_owners_have_names(tmp_path: Path) -> None:
    """Numbers become names and names numbers; who is not known here has none."""
    make(str(tmp_path / "srv"), TREE)
    uid, gid = os.geteuid(), os.stat(str(tmp_path / "srv")).st_gid
    answer, _ = live(tmp_path)
    user, group = pwd.getpwuid(uid).pw_name, grp.getgrgid(gid).gr_name
    assert (answer["users"], answer["groups"]) == ({str(uid): user}, {str(gid): group})
    asked = {"users": [user, "nobody-of-that-name"], "groups": [group]}
    assert offhost.identities(asked) == {
        "users": {user: uid, "nobody-of-that-name": None},
        "groups": {group: gid},
    }

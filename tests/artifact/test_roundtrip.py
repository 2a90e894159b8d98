"""The whole way of the bytes: artifact, manifest, stream, store, tree, and the same tree again."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.artifact.confine import escaping_links
from deployguard.artifact.release import open_artifact
from deployguard.onhost.trees import staging
from deployguard.onhost.trees.manifest import Manifest
from deployguard.onhost.trees.scan import compare, scan
from tests.artifact.archives import COMPRESS, member, tar
from tests.onhost.sample_trees import TREES, Directory, write_tree


def _pack(root: str, path: str, form: str) -> None:
    """A tar of the tree with the times to the nanosecond, as GNU tar writes them in pax format."""
    plain = path + ".tar"
    with tarfile.open(plain, "w", encoding="utf-8", errors="surrogateescape") as archive:
        for entry in scan(root):
            full = os.path.join(root, entry.path)
            info = archive.gettarinfo(full, entry.path)
            whole, fraction = divmod(entry.mtime_ns, 10**9)
            info.mtime = whole
            info.pax_headers = {"mtime": f"{whole}.{fraction:09}"}
            if info.isreg():
                with open(full, "rb") as file:
                    archive.addfile(info, file)
            else:
                archive.addfile(info)
    Path(path).write_bytes(COMPRESS[form](Path(plain).read_bytes()))


def _deploy(path: str, folder: str, live: str) -> str:
    """Controller and host, as they divide the work."""
    with open_artifact(path) as release:
        wanted = Manifest.from_bytes(release.manifest.to_bytes())
        here = Manifest.from_bytes(scan(live).to_bytes())
        store, target = os.path.join(folder, "store"), os.path.join(folder, "target")
        os.mkdir(store)
        lacking = staging.missing(wanted, [here])
        staging.receive(release.blob_stream(lacking), store, lacking)
        assert staging.build(wanted, target, [(live, here)], store_dir=store) == {}
        assert not staging.verify(target, wanted)
        return target


@given(TREES, TREES, st.sampled_from(["directory", *sorted(COMPRESS)]))
def test_any_tree_arrives_as_it_was(new: Directory, live: Directory, form: str) -> None:
    """Modes, links, odd names, empty directories, sizes and times: identical at the other end."""
    with tempfile.TemporaryDirectory() as folder:
        root, there = os.path.join(folder, "new"), os.path.join(folder, "live")
        write_tree(os.fsencode(root), new)
        write_tree(os.fsencode(there), live)
        original = scan(root)
        if escaping_links(original):
            return
        path = root
        if form != "directory":
            path = os.path.join(folder, "artifact")
            _pack(root, path, form)
        target = _deploy(path, folder, there)
        assert not compare(original, scan(target))
        # What sits under the target is exactly what GNU tools would see as well.
        assert sorted(_names(root)) == sorted(_names(target))


def _names(root: str) -> list[str]:
    return [
        os.path.relpath(os.path.join(base, name), root)
        for base, directories, names in os.walk(root)
        for name in directories + names
    ]


@pytest.mark.parametrize("form", ["tar.gz", "tar.zst"])
def test_a_large_artifact_takes_little_memory(tmp_path: Path, form: str) -> None:
    """Opening, streaming, receiving and building hold pieces, never a whole file."""
    content = os.urandom(1_000_000) * 32
    path = tmp_path / "artifact"
    path.write_bytes(COMPRESS[form](tar([member("big", content)])))
    (tmp_path / "live").mkdir()
    del content
    tracemalloc.start()
    try:
        _deploy(str(path), str(tmp_path), str(tmp_path / "live"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12_000_000
    shutil.rmtree(tmp_path / "target")

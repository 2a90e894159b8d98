"""The quick reader of tar headers and ``tarfile``: one opinion about every archive."""

from __future__ import annotations

import contextlib
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.artifact import headers, members
from deployguard.artifact.release import ArtifactInvalid, open_artifact
from tests.artifact.archives import Member, directory, hard, link, member, tar

EXACT = {"mtime": "1500000000.123456789"}
LONG = "d/" + "n" * 120


def _ordinary() -> list[Member]:
    made = [
        directory("./", 0o750),
        member("./a", b"1" * 700, mode=0o4755, uid=7, gid=8),
        member("./exact", b"x", mtime=1_500_000_000, pax_headers=dict(EXACT)),
        directory("./d"),
        member(f"./{LONG}", b"long", pax_headers={"SCHILY.xattr.user.note": "v"}),
        member("./d/caf\N{LATIN SMALL LETTER E WITH ACUTE}", b"2"),
        link("./up", "d/" + "t" * 150),
        hard("./again", "./a"),
        member("./none"),
    ]
    return made


@contextlib.contextmanager
def _by_tarfile() -> Iterator[None]:
    def refuse(*_: Any) -> Iterator[headers.Member]:
        raise headers.Unusual

    with mock.patch.object(members, "members", refuse):
        yield


def _opinion(path: Path, **options: Any) -> Any:
    try:
        with open_artifact(path, owner_from_artifact=True, **options) as release:
            return release.manifest.entries, [release.read(d) for d in release.manifest.blobs()]
    except ArtifactInvalid as error:
        return error.problems


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("strip", [0, 1])
def test_both_find_the_same(tmp_path: Path, form: int, strip: int) -> None:
    """In every format, with long names, exact times, owners, attributes and links."""
    made = _ordinary()
    if form == tarfile.USTAR_FORMAT:
        made = [(info, data) for info, data in made if len(info.name + info.linkname) < 95]
    path = tmp_path / "r.tar"
    path.write_bytes(tar(made, form))
    quick = _opinion(path, strip_components=strip)
    with _by_tarfile():
        assert _opinion(path, strip_components=strip) == quick
    assert len(quick[0]) > 1


def test_an_ordinary_archive_is_not_read_twice(tmp_path: Path) -> None:
    """What is quick must not quietly become slow."""
    path = tmp_path / "r.tar"
    path.write_bytes(tar(_ordinary()))
    with mock.patch.object(tarfile, "open", side_effect=AssertionError):
        assert len(_opinion(path)[0]) == 9


@given(st.data())
def test_they_agree_on_damage(data: st.DataObject) -> None:
    """Any byte changed, or the end cut off: the same manifest, or the same complaint."""
    whole = bytearray(tar(_ordinary()))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.sampled_from([*b"\0 0179/xLSg=\n", 0x80, 0xFF]))
    del whole[data.draw(st.integers(512, len(whole))) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "r.tar")
        path.write_bytes(whole)
        quick = _opinion(path)
        with _by_tarfile():
            assert _opinion(path) == quick

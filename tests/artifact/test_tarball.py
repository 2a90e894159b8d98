"""Tars: everything they can carry arrives, and nothing they can try gets through."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.artifact.release import ArtifactInvalid, Limits, open_artifact
from deployguard.errors import ExitCode, UsageError
from tests.artifact.archives import COMPRESS, Member, directory, hard, link, member, tar, write

GOOD = [member("a", b"1"), member("d/b", b"2")]


@pytest.fixture(params=sorted(COMPRESS))
def form(request: pytest.FixtureRequest) -> str:
    """Every compression, told by its first bytes."""
    return str(request.param)


def _problems(path: Path, **options: object) -> list[str]:
    with pytest.raises(ArtifactInvalid) as caught:
        open_artifact(path, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code is ExitCode.USAGE
    assert isinstance(caught.value, UsageError)
    assert str(path) in str(caught.value)
    return caught.value.problems


def _paths(path: Path, **options: object) -> dict[str, str]:
    with open_artifact(path, **options) as release:  # type: ignore[arg-type]
        return {entry.path: entry.kind for entry in release.manifest}


def test_contents_come_back_by_their_hash(tmp_path: Path, form: str) -> None:
    """Modes, times, links, empty directories and any content."""
    big = random.Random(1).randbytes(3_000_000)
    members = [
        directory("./", 0o750),
        directory("./empty", 0o700),
        member("./big", big, mode=0o4755, mtime=1_500_000_000),
        member("./sub/exact", b"x", mtime="1500000000.123456789"),
        link("./sub/up", "../big"),
        member("./none"),
    ]
    # An exact time goes in as pax text, as GNU tar and bsdtar write it.
    members[3][0].mtime = 1_500_000_000
    members[3][0].pax_headers = {"mtime": "1500000000.123456789"}
    with open_artifact(write(tmp_path, members, form)) as release:
        found = {entry.path: entry for entry in release.manifest}
        assert list(found) == [".", "big", "empty", "none", "sub", "sub/exact", "sub/up"]
        assert found["."].mode == 0o750
        assert found["empty"].mode == 0o700
        assert (found["big"].mode, found["big"].mtime_ns) == (0o4755, 1_500_000_000 * 10**9)
        assert found["sub/exact"].mtime_ns == 1_500_000_000_123_456_789
        assert found["sub"].mode == 0o755
        assert found["sub/up"].digest == "../big"
        assert found["big"].digest == hashlib.sha256(big).hexdigest()
        assert release.read(found["big"].digest) == big
        assert release.read(found["none"].digest) == b""


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    "raw", [b"a b", b"new\nline", b"\xff\xfe", "é".encode(), b"n" * 255, b"d/" * 60 + b"deep"]
)
def test_any_name_arrives(tmp_path: Path, raw: bytes, tar_format: int) -> None:
    """Spaces, newlines, bytes that are no UTF-8, and names longer than the old header has."""
    name = os.fsdecode(raw)
    path = tmp_path / "x.tar"
    path.write_bytes(tar([member(name, b"1")], tar_format))
    assert name in _paths(path)


def test_owners_and_attributes_are_taken_only_when_asked_for(tmp_path: Path) -> None:
    """Without the wish the manifest names no owner; attributes that a tree may carry stay."""
    attributes = {
        "SCHILY.xattr.user.note": "x\udcff",
        "SCHILY.xattr.security.selinux": "no",
        "SCHILY.xattr.trusted.overlay.opaque": "no",
    }
    path = write(tmp_path, [member("a", b"1", uid=7, gid=8, pax_headers=attributes)])
    with open_artifact(path) as release:
        entry = release.manifest.get("a")
        assert entry is not None
        assert (entry.uid, entry.gid, entry.xattrs) == (-1, -1, (("user.note", "eP8="),))
    with open_artifact(path, owner_from_artifact=True) as release:
        entry = release.manifest.get("a")
        assert entry is not None
        assert (entry.uid, entry.gid) == (7, 8)


def test_a_repeated_member_replaces_the_earlier_one(tmp_path: Path) -> None:
    """As if both had been extracted: a file over a file, over a link, a directory over a file."""
    members = [
        member("a", b"old"),
        link("b", "a"),
        member("c", b"file"),
        member("./a", b"new"),
        member("b", b"no link"),
        directory("c"),
        member("c/d", b"1"),
    ]
    path = write(tmp_path, members)
    assert _paths(path) == {".": "d", "a": "f", "b": "f", "c": "d", "c/d": "f"}
    with open_artifact(path) as release:
        entry = release.manifest.get("a")
        assert entry is not None
        assert release.read(entry.digest) == b"new"


def test_hard_links_become_files_of_their_own(tmp_path: Path) -> None:
    """With the content the other name had at that point; a link's twin is a link."""
    members = [
        member("top/a", b"1"),
        hard("top/b", "top/a"),
        link("top/l", "a"),
        hard("top/m", "./top/l"),
        member("top/a", b"2"),
        hard("top/b2", "top/b"),
    ]
    with open_artifact(write(tmp_path, members), strip_components=1) as release:
        found = {e.path: e for e in release.manifest}
        kinds = {path: entry.kind for path, entry in found.items()}
        assert kinds == {".": "d", "a": "f", "b": "f", "b2": "f", "l": "l", "m": "l"}
        assert [release.read(found[path].digest) for path in ("a", "b", "b2")] == [b"2", b"1", b"1"]


def test_leading_directories_can_be_dropped(tmp_path: Path) -> None:
    """As tar does; the dropped directory itself lends the top its mode."""
    members = [directory("app-1.2", 0o700), member("app-1.2/bin/run", b"1"), member("README")]
    path = write(tmp_path, members)
    assert _paths(path, strip_components=1) == {".": "d", "bin": "d", "bin/run": "f"}
    assert _paths(path, strip_components=2) == {".": "d", "run": "f"}
    with open_artifact(path, strip_components=1) as release:
        assert release.manifest.entries[0].mode == 0o700


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ([member("/etc/passwd", b"x")], "/etc/passwd"),
        ([member("../x", b"x")], "../x"),
        ([member("a/../../x", b"x")], "a/../../x"),
        ([member("a/..", b"x")], "a/.."),
        ([member("fifo", type=tarfile.FIFOTYPE)], "fifo"),
        ([member("null", type=tarfile.CHRTYPE)], "null"),
        ([member("disk", type=tarfile.BLKTYPE)], "disk"),
        ([member("strange", type=b"Z")], "strange"),
        ([link("l", "/etc/passwd")], "/etc/passwd"),
        ([link("l", "..")], "l"),
        ([link("d/l", "../../x")], "d/l"),
        ([link("d/l", "./.././../x")], "d/l"),
        # Through another link: "in" is two levels down, so ".." twice from there stays inside;
        # the text of "out" alone looks as if it did too.
        ([directory("d/e"), link("in", "d/e"), link("out", "in/../../..")], "out"),
        ([directory("d"), link("d/top", ".."), link("out", "d/top/..")], "out"),
        ([link("d", "elsewhere"), member("d/x", b"x")], "d/x"),
        ([member("d", b"file"), member("d/x", b"x")], "d/x"),
        ([directory("d"), member("d/x", b"x"), link("d", "e")], "d/x"),
        ([hard("h", "/etc/passwd")], "/etc/passwd"),
        ([hard("h", "../x")], "../x"),
        ([hard("h", "later"), member("later", b"x")], "h"),
        ([hard("h", "dir"), directory("dir")], "h"),
        ([member(".", b"x")], "."),
        ([member("n" * 256, b"x")], "too long"),
        ([member("x/" * 2100 + "x", b"x")], "too long"),
        ([member("x", b"x", pax_headers={"path": "a\0b"})], "NUL"),
        ([member("x", b"x", pax_headers={"mtime": "9" * 16 + ".5"})], "time"),
        ([member("x", b"x", uid=2**32, pax_headers={"uid": str(2**32)})], ""),
    ],
)
def test_what_would_leave_the_tree_is_refused_by_name(
    tmp_path: Path, bad: list[Member], named: str
) -> None:
    """Among good members too; the message names the member, and nothing is written anywhere."""
    path = write(tmp_path, [*GOOD, *bad])
    options = {"owner_from_artifact": True}
    problems = _problems(path, **options)
    assert any(named in problem for problem in problems), problems
    assert os.listdir(tmp_path) == ["release"]


@pytest.mark.parametrize(
    "members",
    [
        [link("d/e/l", "../../a")],
        [link("d/l", "../d/../d/./b")],
        [link("l", "nowhere/../a")],
        [directory("d/e"), link("in", "d/e"), link("ok", "in/../..")],
        [link("loop", "loop")],
        [link("x", "y"), link("y", "x")],
        [link("x", "y/.."), link("y", "x/..")],
        [link("to-top", ".")],
    ],
)
def test_links_that_stay_inside_are_fine(tmp_path: Path, members: list[Member]) -> None:
    """Upwards within the tree, to nowhere, in circles: none of it leads outside."""
    assert "a" in _paths(write(tmp_path, [*GOOD, *members]))


def test_all_reasons_are_in_one_message(tmp_path: Path) -> None:
    """Twenty of them, and how many more; names cannot play tricks with a terminal."""
    members = [member(f"/x{n}\x1b[31m\n", b"") for n in range(30)]
    path = write(tmp_path, members)
    with pytest.raises(ArtifactInvalid) as caught:
        open_artifact(path)
    text = str(caught.value)
    assert len(caught.value.problems) == 30
    assert "and 10 more" in text
    assert "\x1b" not in text
    assert text.count("\n") == 21


def test_the_hash_of_the_file_comes_before_anything_else(tmp_path: Path, form: str) -> None:
    """A wrong hash is the first and only complaint, whatever else is wrong inside."""
    path = write(tmp_path, [member("/etc/passwd", b"x")], form)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert "sha256" in _problems(path, sha256="0" * 64)[0]
    assert "passwd" in _problems(path, sha256=digest.upper())[0]
    good = write(tmp_path, GOOD, form)
    with open_artifact(good, sha256=hashlib.sha256(good.read_bytes()).hexdigest()):
        pass


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_archive_is_refused(tmp_path: Path, form: str, where: float) -> None:
    """Wherever it was cut, in any compression."""
    content = random.Random(2).randbytes(40_000)
    path = write(tmp_path, [member(f"f{n}", content) for n in range(5)], form)
    data = path.read_bytes()
    # The last blocks of a plain tar are padding; what counts is that no member is lost.
    end = len(data) - 10_240 if form == "tar" else len(data)
    path.write_bytes(data[: int(end * where)])
    assert len(_problems(path)) == 1


def test_an_archive_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    """No header is damaged and no content short: only the mark of the end is missing."""
    data = tar([member("a", b"1"), member("b", b"2")], tarfile.GNU_FORMAT)
    path = tmp_path / "x.tar"
    path.write_bytes(data[:1024])
    assert "end-of-archive" in _problems(path)[0]


def test_a_damaged_header_in_the_middle_is_no_quiet_end(tmp_path: Path) -> None:
    """``tarfile`` takes it for the end of the archive and would deploy half of it."""
    data = bytearray(tar([member("a", b"1"), member("b", b"2")], tarfile.GNU_FORMAT))
    data[1024] ^= 1
    path = tmp_path / "x.tar"
    path.write_bytes(bytes(data))
    assert "damaged" in _problems(path)[0]


def test_damage_in_compressed_contents_is_found(tmp_path: Path) -> None:
    """The checksum of gzip and xz covers every byte."""
    content = random.Random(3).randbytes(100_000)
    for form in ("tar.gz", "tar.xz"):
        path = write(tmp_path, [member("a", content)], form)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x40
        path.write_bytes(bytes(data))
        assert "damaged" in _problems(path)[0]


@pytest.mark.parametrize(
    "data",
    [b"", b"x" * 600, gzip.compress(b""), gzip.compress(b"x" * 9000)],
    ids=["empty", "text", "gzip of nothing", "gzip of text"],
)
def test_what_is_no_tar_is_refused(tmp_path: Path, data: bytes) -> None:
    """Empty files, texts, and archives of something else."""
    path = tmp_path / "x"
    path.write_bytes(data)
    assert "damaged" in _problems(path)[0]


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """An absent path is a mistake in the plan, not a traceback."""
    assert "No such file" in _problems(tmp_path / "absent")[0]


def test_a_decompression_bomb_is_stopped(tmp_path: Path, form: str) -> None:
    """By the bound on the whole, long before memory or disk are full."""
    path = tmp_path / "bomb"
    path.write_bytes(COMPRESS[form](tar([member("zeros", bytes(30_000_000))])))
    problems = _problems(path, limits=Limits(total_bytes=1_000_000))
    assert "1000000" in problems[0]


def test_a_sparse_bomb_is_stopped(tmp_path: Path) -> None:
    """Terabytes in a few hundred bytes: the size that is declared counts."""
    if shutil.which("tar") is None:
        pytest.skip("needs GNU tar")
    with open(tmp_path / "hole", "wb") as file:
        file.truncate(50_000_000)
    path = tmp_path / "x.tar"
    subprocess.run(["tar", "-S", "-C", tmp_path, "-cf", path, "hole"], check=True)
    assert path.stat().st_size < 100_000
    assert "1000000" in _problems(path, limits=Limits(total_bytes=1_000_000))[0]


def test_too_many_entries_are_stopped(tmp_path: Path) -> None:
    """Members count, and so do the directories they imply."""
    limits = Limits(entries=10)
    many = write(tmp_path, [member(f"f{n}") for n in range(20)])
    assert "more than 10 entries" in _problems(many, limits=limits)[0]
    deep = write(tmp_path, [member("d/" * 20 + "f")])
    assert "more than 10 entries" in _problems(deep, limits=limits)[0]


def test_a_header_of_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    """A long name that claims to be hundreds of megabytes is refused by its size."""
    info = tarfile.TarInfo("././@LongLink")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = 200_000_000
    path = tmp_path / "x.tgz"
    with gzip.open(path, "wb", 1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(200):
            file.write(bytes(1_000_000))
    assert "header" in _problems(path)[0]


@pytest.mark.parametrize("style", ["gnu", "oldgnu", "pax", "posix", "ustar", "v7"])
@pytest.mark.parametrize("sparse", [False, True])
def test_what_gnu_tar_writes_is_read(tmp_path: Path, style: str, sparse: bool) -> None:
    """Every format it knows, hard links and sparse files included."""
    if shutil.which("tar") is None:
        pytest.skip("needs GNU tar")
    tree = tmp_path / "tree"
    (tree / "empty").mkdir(parents=True)
    (tree / "a").write_bytes(b"1")
    os.link(tree / "a", tree / "twin")
    os.symlink("a", tree / "link")
    holes = bytearray(1_000_000)
    holes[500_000:500_010] = b"0123456789"
    with open(tree / "holes", "wb") as file:
        file.seek(500_000)
        file.write(b"0123456789")
        file.truncate(1_000_000)
    (tree / "z").write_bytes(b"last")
    path = tmp_path / "x.tar"
    flags = ["-S"] if sparse and style not in ("ustar", "v7") else []
    subprocess.run(["tar", "-H", style, *flags, "-C", tree, "-cf", path, "."], check=True)
    with open_artifact(path) as release:
        found = {entry.path: entry for entry in release.manifest}
        kinds = "".join(entry.kind for entry in found.values())
        assert list(found) == [".", "a", "empty", "holes", "link", "twin", "z"]
        assert kinds == "dfdflff"
        assert release.read(found["holes"].digest) == bytes(holes)
        assert release.read(found["twin"].digest) == b"1"
        assert release.read(found["z"].digest) == b"last"


def test_several_compressed_members_are_one_archive(tmp_path: Path) -> None:
    """As parallel compressors write them."""
    data = tar(GOOD)
    for form, compress in COMPRESS.items():
        if form != "tar":
            path = tmp_path / "release"
            path.write_bytes(compress(data[:700]) + compress(data[700:]))
            assert set(_paths(path)) == {".", "a", "d", "d/b"}


@given(st.data())
def test_fuzz_never_ends_in_anything_but_a_refusal(data: st.DataObject) -> None:
    """Bytes of a good archive overwritten at random: it opens, or it is refused."""
    text = bytearray(tar([*GOOD, link("l", "a"), hard("h", "a"), directory("e")]))
    edits = st.tuples(st.integers(0, 6000), st.binary(min_size=1, max_size=12))
    for at, new in data.draw(st.lists(edits, min_size=1, max_size=4)):
        text[at : at + len(new)] = new
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")
        path.write_bytes(bytes(text))
        try:
            with open_artifact(path, owner_from_artifact=True) as release:
                for digest in release.manifest.blobs():
                    assert hashlib.sha256(release.read(digest)).hexdigest() == digest
        except ArtifactInvalid:
            pass
        assert os.listdir(folder) == ["x"]


def test_reading_in_pieces_hashes_the_same(tmp_path: Path) -> None:
    """A content of many pieces, checked against the standard library's own extraction."""
    content = random.Random(4).randbytes(1_234_567)
    data = tar([member("x", content)])
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        file = archive.extractfile("x")
        assert file is not None
        expected = file.read()
    with open_artifact(path) as release:
        assert release.read(hashlib.sha256(content).hexdigest()) == expected

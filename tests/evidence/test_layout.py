"""The folder on the controller, and that nothing a host sends gets out of it."""

from __future__ import annotations

import gzip
import io
import json
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployguard.evidence import layout
from deployguard.evidence.layout import Folder
from deployguard.evidence.redact import Redactor
from deployguard.evidence.seal import verify
from deployguard.onhost.evidence.collect import pack


def bundle(*members: tuple[str, bytes]) -> bytes:
    """A bundle as a hostile host would make it: any name, any order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def pieces(data: bytes, size: int = 1000) -> Iterator[bytes]:
    """As they come from the wire."""
    return (data[at : at + size] for at in range(0, len(data), size))


def create(tmp_path: Path, *hosts: str, secrets: tuple[str, ...] = ()) -> Folder:
    """The folder of the documented example."""
    return Folder.create(tmp_path, "v1.2.4", 1702291800, hosts or ("web1",), Redactor(secrets))


def files(path: Path) -> list[str]:
    """Relative names of all files."""
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())


def test_one_host_lies_flat_as_in_the_post_mortem_template(tmp_path: Path) -> None:
    """``v1.2.4-1702291800/{backend/,frontend/,backend-service.log,metadata.json}``."""
    folder = create(tmp_path)
    data = bundle(("backend/CHANGES.json", b"{}"), ("frontend/files/x", b"x"),
                  ("backend-service.log", b"boom"))  # fmt: skip
    assert folder.add_bundle("web1", pieces(data)) == []
    folder.add_json("web1", "checks.json", {"healthy": False})
    digest = folder.finish({"version": "v1.2.4"})
    assert folder.path == tmp_path / "v1.2.4-1702291800"
    assert files(folder.path) == [
        "SHA256SUMS",
        "backend-service.log",
        "backend/CHANGES.json",
        "checks.json",
        "frontend/files/x",
        "metadata.json",
    ]
    assert verify(folder.path, digest) == []
    for path in [folder.path, *folder.path.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_several_hosts_have_a_folder_each(tmp_path: Path) -> None:
    """With the metadata on top; a host's name cannot make its folder collide or escape."""
    folder = create(tmp_path, "web1", "../web2", "metadata.json")
    folder.add_bundle("web1", pieces(bundle(("backend-service.log", b"1"))))
    folder.add_bundle("../web2", pieces(bundle(("backend-service.log", b"2"))))
    folder.finish({})
    assert (folder.path / "web1/backend-service.log").read_bytes() == b"1"
    assert folder.host("../web2").parent == folder.path
    metadata = json.loads((folder.path / "metadata.json").read_text())
    assert metadata["folders"]["web1"] == "web1"
    assert metadata["folders"]["metadata.json"] == "metadata.json~2"


def test_a_second_failure_in_the_same_second_gets_a_number(tmp_path: Path) -> None:
    """Nothing is ever overwritten."""
    assert create(tmp_path).path.name == "v1.2.4-1702291800"
    assert create(tmp_path).path.name == "v1.2.4-1702291800-2"


def test_everything_is_redacted_on_the_way_to_the_disk(tmp_path: Path) -> None:
    """Logs, binaries, texts, data, names of files; and the report says how often."""
    secret = "hunter2hunter2"
    folder = create(tmp_path, secrets=(secret,))
    folder.add_bundle(
        "web1",
        pieces(
            bundle(
                ("log", f"x {secret}\npassword=open-sesame\n".encode() * 5000),
                ("core", b"\0\1" + secret.encode()),
                (f"files/{secret}.txt", b"t"),
            )
        ),
    )
    folder.add_text("web1", "note.txt", f"it was {secret}")
    folder.add_json("web1", "checks.json", {"message": secret, "token": "abc"})
    folder.finish({"transaction": secret})
    for path in folder.path.rglob("*"):
        assert secret not in path.name
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
            assert b"sesame" not in path.read_bytes()
    report = json.loads((folder.path / "metadata.json").read_text())["redaction"]
    assert report["replaced"]["password"] == 5000
    assert report["replaced"]["secret"] >= 5004


@pytest.mark.parametrize(
    "name", ["../escaped", "/etc/escaped", "a/../../escaped", "a//b", "./x", "a/" * 50 + "x", ""]
)
def test_hostile_names_are_left_out(tmp_path: Path, name: str) -> None:
    """And named as problems, while the rest of the bundle is kept."""
    folder = create(tmp_path / "out")
    problems = folder.add_bundle("web1", pieces(bundle((name, b"x"), ("good", b"g"))))
    kept = files(tmp_path)
    assert [one for one in kept if not one.endswith("/good")] in (
        [],
        ["out/v1.2.4-1702291800/etc/escaped"],
    )
    assert (folder.path / "good").read_bytes() == b"g"
    assert problems or name == "/etc/escaped"


def test_odd_names_become_harmless_and_stay_apart(tmp_path: Path) -> None:
    """Control characters, a leading dash, names that differ in case only, our own names."""
    folder = create(tmp_path)
    names = ["a\x1b[31m", "-rf", "Log", "log", "metadata.json", "SHA256SUMS", "\udcff", ".env"]
    data = bundle(*((name, name.encode("utf-8", "replace")) for name in names))
    assert folder.add_bundle("web1", pieces(data)) == []
    folder.finish({})
    assert files(folder.path) == sorted(
        ["a__31m", "_rf", "Log", "log~2", "metadata.json~2", "SHA256SUMS~2", "_", ".env",
         "metadata.json", "SHA256SUMS"]
    )  # fmt: skip


def test_links_and_devices_are_not_made(tmp_path: Path) -> None:
    """A link could lead the next member anywhere."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE),
                           ("fifo", tarfile.FIFOTYPE), ("dev", tarfile.CHRTYPE)):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = "/etc"
            archive.addfile(info)
        info = tarfile.TarInfo("link/passwd")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    folder = create(tmp_path)
    problems = folder.add_bundle("web1", pieces(buffer.getvalue()))
    assert len(problems) == 4
    assert files(folder.path) == ["link/passwd"]
    assert not (folder.path / "link").is_symlink()


def test_a_file_in_the_place_of_a_folder_is_a_problem(tmp_path: Path) -> None:
    """And a name that comes twice is kept once."""
    folder = create(tmp_path)
    data = bundle(("a", b"1"), ("a/b", b"2"), ("a", b"3"), ("c", b"4"))
    problems = folder.add_bundle("web1", pieces(data))
    assert len(problems) == 2
    assert (folder.path / "a").read_bytes() == b"1" and (folder.path / "c").read_bytes() == b"4"


def test_a_bundle_that_breaks_off_leaves_what_came(tmp_path: Path) -> None:
    """The connection was lost in the middle."""
    content = bytes(range(256)) * 2000
    whole = bundle(("first", b"1"), ("second", content))
    folder = create(tmp_path)
    problems = folder.add_bundle("web1", pieces(whole[: len(whole) // 2]))
    assert len(problems) == 1 and "broke off" in problems[0]
    assert (folder.path / "first").read_bytes() == b"1"
    assert create(tmp_path).add_bundle("web1", iter([b"no gzip"]))
    assert create(tmp_path).add_bundle("web1", iter([]))


def test_a_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bytes once unpacked, whatever the members say of themselves, and in files."""
    monkeypatch.setattr(layout, "MAX_BYTES", 2_000_000)
    bomb = gzip.compress(bundle_plain("zeros", b"\0" * 50_000_000))
    folder = create(tmp_path)
    assert "larger than allowed" in folder.add_bundle("web1", pieces(bomb))[0]
    assert sum(path.stat().st_size for path in folder.path.rglob("*")) < 4_000_000
    monkeypatch.setattr(layout, "MAX_FILES", 10)
    many = bundle(*((str(number), b"") for number in range(50)))
    folder = create(tmp_path)
    assert "more than 10 files" in folder.add_bundle("web1", pieces(many))[0]
    assert len(files(folder.path)) == 10


def bundle_plain(name: str, content: bytes) -> bytes:
    """An uncompressed bundle of one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_what_the_host_packs_is_what_the_controller_unpacks(tmp_path: Path) -> None:
    """Both ends of the same format."""
    (tmp_path / "host/backend").mkdir(parents=True)
    (tmp_path / "host/backend/log").write_text("line\n" * 50_000)
    (tmp_path / "host/empty").touch()
    folder = create(tmp_path / "out")
    assert folder.add_bundle("web1", pack(str(tmp_path / "host"))) == []
    assert files(folder.path) == ["backend/log", "empty"]
    assert (folder.path / "backend/log").read_text() == "line\n" * 50_000

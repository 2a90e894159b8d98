"""known_hosts files, by their text."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deployguard.transport.known_hosts import (
    Judge,
    NotTrusted,
    add,
    fingerprint,
    known_keys,
    name_of,
)
from tests.transport.sshd import keypair

KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIEWUdzHgFQRGmVuBXYzuhFJpG5pQDsmcSVvVVNxkLGDv"
OTHER = "AAAAC3NzaC1lZDI1NTE5AAAAIJ/3/g3dQ0dZgdgQJGuNT7jzAZ6ztpYjuFZpQW1mDGd9"


@pytest.mark.parametrize(
    ("names", "name", "known"),
    [
        ("web1", "web1", True),
        ("WEB1,10.0.0.1", "web1", True),
        ("web1", "web10", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com,!bad.example.com", "bad.example.com", False),
        ("web?", "web1", True),
        ("[web1]:2222", "[web1]:2222", True),
        ("[web1]:2222", "web1", False),
        ("web1", "[web1]:2222", False),
        ("[*]:2222", "[web1]:2222", True),
        ("|1|nonsense", "web1", False),
    ],
)
def test_names_match_as_in_openssh(tmp_path: Path, names: str, name: str, known: bool) -> None:
    """Lists, wildcards, negation, ports; a damaged line is nobody's."""
    file = tmp_path / "known_hosts"
    file.write_text(f"# {names} ssh-ed25519 {KEY}\n\n{names} ssh-ed25519 {KEY} comment\n")
    found = known_keys([file], name)
    assert [(entry.line, entry.key) for entry in found] == ([(3, KEY)] if known else [])


def test_hashed_names(tmp_path: Path) -> None:
    """Names hashed by ssh-keygen itself are found."""
    file = tmp_path / "known_hosts"
    file.write_text(f"web1 ssh-ed25519 {KEY}\n[web2]:2222 ssh-ed25519 {OTHER}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    assert "web1" not in file.read_text()
    assert [entry.key for entry in known_keys([file], "web1")] == [KEY]
    assert [entry.key for entry in known_keys([file], name_of("WEB2", 2222))] == [OTHER]
    assert known_keys([file], "web3") == []


def test_fingerprints_are_those_of_openssh(tmp_path: Path) -> None:
    """A person compares them by eye."""
    public = f"{keypair(tmp_path / 'key')}.pub"
    shown = subprocess.check_output(["ssh-keygen", "-lf", public], text=True).split()[1]
    assert fingerprint(Path(public).read_text().split()[1]) == shown


def test_an_added_key_is_known(tmp_path: Path) -> None:
    """Added to a file whose last line was torn, it stands on a line of its own."""
    file = tmp_path / "ssh" / "known_hosts"
    add(file, "web1", "ssh-ed25519", KEY)
    file.write_text(file.read_text().rstrip())
    add(file, "web2", "ssh-ed25519", OTHER)
    assert [entry.key for entry in known_keys([file], "web1")] == [KEY]
    assert [entry.key for entry in known_keys([file], "web2")] == [OTHER]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_revoked_key_is_never_trusted(tmp_path: Path) -> None:
    """Not even where another line would trust it, nor on first sight."""
    file = tmp_path / "known_hosts"
    file.write_text(f"web1 ssh-ed25519 {KEY}\n@revoked * ssh-ed25519 {KEY}\n")
    with pytest.raises(NotTrusted, match="revoked"):
        Judge("web1", [str(file)], "accept_new").judge("ssh-ed25519", KEY)


def test_accept_new_is_not_accept_changed(tmp_path: Path) -> None:
    """A host that has a known key does not get a second one by itself."""
    file = tmp_path / "known_hosts"
    Judge("web1", [str(file)], "accept_new").judge("ssh-ed25519", KEY)
    Judge("web1", [str(file)], "strict").judge("ssh-ed25519", KEY)
    with pytest.raises(NotTrusted, match=f"{file}:1"):
        Judge("web1", [str(file)], "accept_new").judge("ssh-ed25519", OTHER)


def test_a_certificate_authority_is_not_a_host_key(tmp_path: Path) -> None:
    """Host certificates are not supported, and such a line does not make the key known."""
    file = tmp_path / "known_hosts"
    file.write_text(f"@cert-authority * ssh-ed25519 {KEY}\n")
    with pytest.raises(NotTrusted, match="is not known"):
        Judge("web1", [str(file)], "strict").judge("ssh-ed25519", KEY)


def test_the_kinds_to_ask_for(tmp_path: Path) -> None:
    """An RSA key is negotiated under the names of its signatures."""
    file = tmp_path / "known_hosts"
    file.write_text(f"web1 ssh-rsa {KEY}\n")
    assert Judge("web1", [str(file)], "strict").kinds == {
        "ssh-rsa",
        "rsa-sha2-256",
        "rsa-sha2-512",
    }

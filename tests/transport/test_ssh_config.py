"""``Include`` in ssh_config."""

from __future__ import annotations

from pathlib import Path

import paramiko

from deployguard.transport.ssh_config import config_files, read_config


def test_includes_are_followed(tmp_path: Path) -> None:
    """Files are included by pattern, in place, within the section, and do not end it."""
    (tmp_path / "one.conf").write_text("Port 2201\nHost other\n  User nobody\n")
    (tmp_path / "two.conf").write_text("Port 2202\n")
    main = tmp_path / "config"
    main.write_text(f"Host web1\n  Include {tmp_path}/*.conf {tmp_path}/none\n  User deploy\n")
    config = paramiko.SSHConfig.from_text(read_config(main))
    assert config.lookup("web1")["port"] == "2201"
    assert config.lookup("web1")["user"] == "deploy"
    assert "port" not in config.lookup("web2")


def test_a_file_that_includes_itself(tmp_path: Path) -> None:
    """The depth is limited, as in OpenSSH."""
    main = tmp_path / "config"
    main.write_text(f"Include {main}\nUser deploy\n")
    assert "User deploy" in read_config(main)


def test_a_given_file_is_the_only_one() -> None:
    """As with ``ssh -F``."""
    assert config_files("/x/config") == [Path("/x/config")]
    assert len(config_files(None)) == 2

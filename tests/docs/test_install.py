"""The way to install that the readme shows; slow, because it makes an environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, shown


@pytest.mark.slow
def test_install(tmp_path: Path) -> None:
    """``pip install .`` in a new environment gives the command and the forensics data."""
    (one,) = [one for one in shown(ROOT / "README.md") if one.command.startswith("pip")]
    source = tmp_path / "source"
    skip = shutil.ignore_patterns(".venv*", ".git", ".*_cache", ".hypothesis", "demo-out")
    shutil.copytree(ROOT, source, ignore=skip)
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / "bin"
    environment = {**os.environ, "PATH": f"{programs}:/usr/bin:/bin"}
    environment.pop("PYTHONPATH", None)
    subprocess.run(one.command.split(), cwd=source, env=environment, check=True, timeout=300)
    (site,) = (tmp_path / "venv" / "lib").glob("python3.*/site-packages")
    assert (site / "deployguard" / "_forensics" / "systemd.yaml").exists()
    for part in (
        "report/page/templates/style.css",
        "web/templates/frame.html",
        "web/static/live.js",
    ):
        assert (site / "deployguard" / part).exists()
    said = subprocess.run(
        ["deployguard", "doctor", "--here"],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "all it needs is installed" in said.stderr

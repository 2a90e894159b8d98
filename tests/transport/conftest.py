"""What the transport tests share: a small host program, and an sshd of their own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployguard.onhost import frames
from deployguard.transport.payload import Program, pack
from tests.transport.sshd import SSHD, Sshd, running_sshd

HERE = Path(__file__).parent


def fake_program(directory: Path, version: str = "1") -> Program:
    """The fake host program; another ``version`` is another program to a host."""
    directory.mkdir()
    (directory / "__init__.py").write_text(f"# version {version}\n")
    shutil.copy(HERE / "fake_serve.py", directory / "serve.py")
    shutil.copy(frames.__file__, directory / "frames.py")
    return pack(directory)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The fake host program."""
    return fake_program(tmp_path_factory.mktemp("program") / "source")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An sshd that lets us in."""
    if not Path(SSHD).exists():
        pytest.skip("openssh-server is not installed")
    with running_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running

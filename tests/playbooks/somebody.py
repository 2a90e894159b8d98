"""Runs programs as a user without rights, also when the tests themselves run as root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOBODY = 65534
_DROP = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


@dataclass(frozen=True)
class Somebody:
    """A user with a home, and with ``deployguard`` on the path."""

    home: Path
    prefix: tuple[str, ...]
    environment: dict[str, str]

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """The program in a process group of its own, output and errors in one pipe."""
        return subprocess.Popen(
            [*self.prefix, *argv],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@contextmanager
def somebody() -> Iterator[Somebody]:
    """Somebody; root only where nobody else may read the Python of these tests."""
    with tempfile.TemporaryDirectory(prefix="deployguard-") as directory:
        home = Path(directory)
        prefix, python, path = _interpreter()
        program = home / "bin" / "deployguard"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {python} -m deployguard "$@"\n')
        program.chmod(0o755)
        environment = {
            "HOME": directory,
            "LANG": "C.UTF-8",
            "PATH": f"{program.parent}:{Path(python).parent}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": directory,
        }
        if prefix:
            os.chown(home, NOBODY, NOBODY)
        yield Somebody(home, prefix, environment)


def _interpreter() -> tuple[tuple[str, ...], str, str]:
    """What makes a program somebody's, a Python that somebody may run, and where its packages are.

    The interpreter of a virtual environment below /root is nobody's; the system's own of the same
    version takes the same packages.
    """
    path = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    if os.geteuid() != 0:
        return (), sys.executable, path
    system = f"/usr/bin/python3.{sys.version_info[1]}"
    for python in (sys.executable, system):
        if shutil.which(python) and shutil.which(_DROP[0]):
            imports = "import deployguard.api, deployguard.transport.registry"
            # Through a shell: the program that gives its rights up still has them at its own exec.
            done = subprocess.run(
                [*_DROP, "sh", "-c", 'exec "$0" -c "$1"', python, imports],
                env={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
                cwd="/",
                check=False,
                capture_output=True,
            )
            if done.returncode == 0:
                return tuple(_DROP), python, path
    return (), sys.executable, path

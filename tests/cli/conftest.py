"""A small service to deploy on this machine, and a command line to deploy it with."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deployguard.cli import main as entry

SERVER = """\
import http.server, json, sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"status": "healthy", "version": open("VERSION").read()}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

PLAN = """\
name: demo
version: v1
environment: test
hosts:
  here: {{transport: local, state_directory: {root}/host-state}}
components:
  web:
    artifact: "releases/{{{{ version }}}}"
    path: {root}/srv
    service: {{process: {{argv: [python3, server.py, "{port}"], stop_timeout: 2s}}}}
    checks:
      - process: {{}}
      - http:
          url: "http://127.0.0.1:{port}/"
          json: {{version: "{{{{ version }}}}"}}
          deadline: 5s
"""


@dataclass
class Ran:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def deployguard(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Run:
    """Runs a command line in this process, away from the user's own journal and job."""
    monkeypatch.setenv("DEPLOYGUARD_STATE", str(tmp_path / "controller-state"))
    for name in ("GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str | Path) -> Ran:
        capfd.readouterr()
        code = entry.run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return run


@dataclass
class Site:
    """The folder of a plan for this machine."""

    root: Path
    port: int

    @property
    def plan(self) -> Path:
        """The plan file."""
        return self.root / "plan.yaml"

    def release(self, version: str, server: str = SERVER) -> str:
        """Make a release; returns its version."""
        directory = self.root / "releases" / version
        directory.mkdir(parents=True)
        (directory / "server.py").write_text(server)
        (directory / "VERSION").write_text(version)
        return version


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A plan with release v1; what it started is stopped again."""
    with a_site(tmp_path / "site") as made:
        yield made


@contextmanager
def a_site(root: Path) -> Iterator[Site]:
    """The same in a folder of one's own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root.mkdir()
    made = Site(root, port)
    made.plan.write_text(PLAN.format(root=root, port=port))
    made.release("v1")
    yield made
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = os.readlink(process / "cwd").startswith(str(root))
        except OSError:
            continue
        if inside and process.name != str(os.getpid()):
            os.kill(int(process.name), signal.SIGKILL)

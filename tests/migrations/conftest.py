"""Two hosts on this machine whose services share a database, and refuse a schema they do not know.

The database is a real one (SQLite); ``manage.py`` of a release knows the schemas up to its own.
What happens is written down by the programs themselves, in the order in which it happens.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Ran, Run
from tests.cli.conftest import deployguard as deployguard

#: Serves with schema KNOWS and, like old code that meets a new column, with no other.
SERVER = """\
import http.server, json, os, sqlite3, sys

version, knows = open("VERSION").read().split()
name, port, database, log = sys.argv[1:5]
schema = sqlite3.connect(database).execute("PRAGMA user_version").fetchone()[0]
with open(log, "a") as diary:
    diary.write(f"{name} starts {version} with schema {schema}\\n")
if schema not in map(int, knows.split(",")):
    sys.exit(f"schema {schema} is not known to {version}")
if os.path.exists(f"{database}-sick-{version}"):
    sys.exit("the license has expired")
if os.path.exists("BROKEN") and name in open("BROKEN").read().split():
    sys.exit("no configuration")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"version": version, "schema": schema}).encode())

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
"""

#: ``manage.py DATABASE LOG migrate N``: N above what this release knows is an error.
MANAGE = """\
import sqlite3, sys

version, knows = open("VERSION").read().split()
database, log, verb, wanted = sys.argv[1:5]
connection = sqlite3.connect(database)
schema = connection.execute("PRAGMA user_version").fetchone()[0]
if verb == "is":
    sys.exit(0 if schema == int(wanted) else 1)
with open(log, "a") as diary:
    diary.write(f"{version} migrates {schema} to {wanted}\\n")
if max(schema, int(wanted)) > max(map(int, knows.split(","))):
    sys.exit(f"{version} does not know schema {max(schema, int(wanted))}")
try:
    broken = open("BROKEN_" + ("UP" if int(wanted) > schema else "DOWN")).read()
except FileNotFoundError:
    broken = ""
if broken == "before":
    sys.exit("deadlock detected")
connection.execute(f"PRAGMA user_version = {int(wanted)}")
connection.commit()
if broken == "after":
    sys.exit("disk full")
"""

HOSTS = ("web1", "web2")


@dataclass
class Pair:
    """Two services, one database."""

    root: Path
    ports: dict[str, int]
    run: Run
    plan: dict[str, Any] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        """The file of the database."""
        return self.root / "shop.sqlite3"

    @property
    def log(self) -> Path:
        """What programs wrote down."""
        return self.root / "log"

    @property
    def file(self) -> Path:
        """The plan file."""
        return self.root / "plan.yaml"

    def release(self, version: str, knows: str, **files: str) -> None:
        """A release whose code works with these schemas; ``files`` are more files of it."""
        folder = self.root / "releases" / version
        folder.mkdir(parents=True)
        (folder / "VERSION").write_text(f"{version} {knows}")
        (folder / "server.py").write_text(SERVER)
        (folder / "manage.py").write_text(MANAGE)
        for name, text in files.items():
            (folder / name).write_text(text)

    def manage(self, verb: str, number: int) -> list[str]:
        """A command of the release, run in its tree."""
        return ["python3", "manage.py", str(self.database), str(self.log), verb, str(number)]

    def migration(self, kind: str, **options: Any) -> None:
        """The one task of the plan."""
        task = {"name": "migrate", "component": "web1", "run": self.manage("migrate", 2)}
        if kind == "reversible":
            task["undo"] = self.manage("migrate", 1)
        self.plan["tasks"] = [{**task, "migration": kind, **options}]

    def write(self, version: str = "v1", **changes: Any) -> None:
        """Write the plan."""
        components = {
            name: {
                "artifact": "releases/{{ version }}",
                "path": str(self.root / name),
                "hosts": [name],
                "service": {"process": {"argv": self._argv(name), "stop_timeout": "2s"}},
                "checks": [
                    {
                        "http": {
                            "url": f"http://127.0.0.1:{port}/",
                            "json": {"version": "{{ version }}"},
                            "deadline": "3s",
                        }
                    }
                ],
            }
            for name, port in self.ports.items()
        }
        hosts = {
            name: {"transport": "local", "state_directory": str(self.root / f"{name}-state")}
            for name in self.ports
        }
        base = {"name": "pair", "version": version, "hosts": hosts, "components": components}
        self.file.write_text(json.dumps({**base, **self.plan, **changes}))

    def _argv(self, name: str) -> list[str]:
        return [
            "python3",
            "server.py",
            name,
            str(self.ports[name]),
            str(self.database),
            str(self.log),
        ]

    def apply(self, version: str, **changes: Any) -> Ran:
        """Deploy a version."""
        self.write(version, **changes)
        return self.run("apply", self.file, "--json")

    def served(self) -> dict[str, str | None]:
        """The version that each service serves; ``None`` for one that does not."""
        found: dict[str, str | None] = {}
        for name, port in self.ports.items():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    found[name] = json.loads(answer.read())["version"]
            except OSError:
                found[name] = None
        return found

    @property
    def schema(self) -> int:
        """The schema of the database now."""
        connection = sqlite3.connect(self.database)
        (number,) = connection.execute("PRAGMA user_version").fetchone()
        connection.close()
        return int(number)

    def diary(self) -> list[str]:
        """What happened since the last look."""
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return lines

    def states(self) -> dict[str, str]:
        """How each host stands, by its own word: the unfinished transaction, or ``settled``."""
        rows = self.run("status", self.file, "--json").lines
        return {
            row["host"]: next(
                ("held" if one["held"] else one["state"] for one in row["unfinished"]),
                "settled",
            )
            for row in rows
            if row["type"] == "host"
        }


@pytest.fixture
def pair(deployguard: Run, tmp_path: Path) -> Iterator[Pair]:
    """v1 is live on both with schema 1; v2 works with schema 2 only."""
    ports = {}
    for name in HOSTS:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports[name] = probe.getsockname()[1]
    root = tmp_path / "pair"
    root.mkdir()
    made = Pair(root, ports, deployguard)
    connection = sqlite3.connect(made.database)
    connection.execute("PRAGMA user_version = 1")
    connection.execute("CREATE TABLE orders (id INTEGER)")
    connection.commit()
    connection.close()
    made.release("v1", "1")
    first = made.apply("v1")
    assert first.code == 0, first.err
    made.diary()
    yield made
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = os.readlink(process / "cwd").startswith(str(root))
        except OSError:
            continue
        if inside and process.name != str(os.getpid()):
            os.kill(int(process.name), signal.SIGKILL)

"""A small service for the driver tests, its releases, and a program that starts and stops it."""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path

_PORTS = itertools.count(30000 + (os.getpid() % 400) * 40)

SERVER = '''\
"""Says its version to whoever connects. Two versions misbehave."""
import pathlib
import signal
import socket
import sys

version = pathlib.Path(__file__).with_name("VERSION").read_text()
if version == "crash":
    sys.exit("crashed at the start")
if version == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("0.0.0.0", int(sys.argv[1])))
server.listen()
while True:
    connection, _ = server.accept()
    connection.sendall(version.encode())
    connection.close()
'''

# As such scripts are: it answers with an error where there is nothing to do.
CONTROL = '''\
"""ctl.py start|stop|status PID_FILE LIVE PORT"""
import os
import pathlib
import signal
import subprocess
import sys
import time

verb, pid_file, live, port = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4]


def alive():
    try:
        pid = int(pid_file.read_text())
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    return pid if state not in "ZX" else None


pid = alive()
if verb == "status":
    sys.exit(0 if pid else 3)
if verb == "start":
    if pid:
        sys.exit("it runs already")
    child = subprocess.Popen(
        [sys.executable, f"{live}/server.py", port], start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    pid_file.write_text(str(child.pid))
if verb == "stop":
    if not pid:
        sys.exit("it does not run")
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + 1
    while alive() and time.monotonic() < until:
        time.sleep(0.02)
    if alive():
        os.kill(pid, signal.SIGKILL)
'''


NODE_SERVER = """\
// Says its version to whoever connects. Two versions misbehave.
const fs = require("fs");
const net = require("net");

const version = fs.readFileSync(`${__dirname}/VERSION`, "utf8");
if (version === "crash") {
  console.error("crashed at the start");
  process.exit(1);
}
if (version === "stubborn") {
  process.on("SIGINT", () => {});
  process.on("SIGTERM", () => {});
}
net.createServer((socket) => socket.end(version)).listen(Number(process.argv[2]), "0.0.0.0");
"""

ECOSYSTEM = """\
module.exports = {{
  apps: [{{
    name: "{name}", script: "server.js", args: "{port}", instances: {instances}, {more}
    env: {{ RELEASE: "{version}" }},
  }}],
}};
"""


def node_release(
    directory: Path, version: str, name: str, number: int, *, instances: int = 0
) -> Path:
    """The tree of a version for Node, with the ecosystem file that has PM2 start it."""
    tree = directory / "build" / version
    if not tree.exists():
        tree.mkdir(parents=True)
        (tree / "VERSION").write_text(version)
        (tree / "server.js").write_text(NODE_SERVER)
        text = ECOSYSTEM.format(
            name=name,
            port=number,
            version=version,
            instances=instances or 1,
            more='exec_mode: "cluster",' if instances else 'exec_mode: "fork",',
        )
        (tree / "ecosystem.config.js").write_text(text)
    return tree


def port() -> int:
    """A port that no other test of this session uses."""
    return next(_PORTS)


def release(directory: Path, version: str) -> Path:
    """The tree of a version; made once."""
    tree = directory / "build" / version
    if not tree.exists():
        tree.mkdir(parents=True)
        (tree / "VERSION").write_text(version)
        (tree / "server.py").write_text(SERVER)
    return tree


def served(address: str, number: int) -> str | None:
    """The version that answers at the port, or ``None`` where nobody does."""
    try:
        with socket.create_connection((address, number), timeout=5) as connection:
            said = b""
            while piece := connection.recv(100):
                said += piece
            return said.decode() or None
    except ConnectionError:
        return None

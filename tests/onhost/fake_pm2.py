"""A PM2 daemon that is only a socket, and the ``pm2`` command that talks to it."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

from deployguard.onhost.pm2 import rpc as pm2rpc
from deployguard.onhost.system import Completed, System


class Daemon:
    """Listens in a PM2_HOME and answers with its processes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.processes: List[Dict[str, Any]] = []
        self.next_id = 0
        #: Instead of an answer.
        self.says: Optional[bytes] = None
        self._server: Optional[socket.socket] = None

    @property
    def running(self) -> bool:
        return self._server is not None

    def start(self) -> None:
        """Listen, as a daemon does that has just come up."""
        path = self.home / "rpc.sock"
        if path.exists():
            path.unlink()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        threading.Thread(target=self._serve, args=(self._server,), daemon=True).start()

    def stop(self) -> None:
        """Die, and leave the socket behind."""
        if self._server is not None:
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
            self._server = None
        self.processes = []

    def _serve(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                received = bytearray()
                arguments = None
                while arguments is None:
                    received += connection.recv(4096)
                    arguments = pm2rpc.decode(received)
                for piece in self._answer(arguments):
                    connection.sendall(piece)

    def _answer(self, arguments: List[bytes]) -> Iterator[bytes]:
        if self.says is not None:
            yield self.says
            return
        request = json.loads(arguments[0][2:])
        if request["method"] == "getMonitorData":
            answer: Dict[str, Any] = {"args": [self.processes]}
        else:
            answer = {"error": "method %s does not exist" % request["method"]}
        data = pm2rpc.encode([b"j:" + json.dumps(answer).encode(), arguments[1]])
        # In pieces, as a stream may come.
        for start in range(0, len(data), 700):
            yield data[start : start + 700]

    def add(self, name: str, status: str = "online", **env: Any) -> Dict[str, Any]:
        """One more process."""
        number, self.next_id = self.next_id, self.next_id + 1
        entry = {
            "name": name,
            "pm_id": number,
            "pid": 1000 + number,
            "pm2_env": {
                "name": name,
                "status": status,
                "restart_time": 0,
                "pm_uptime": 1702291800000,
                "created_at": 1702291800000 + number,
                "unique_id": "u%d" % number,
                "pm_id": number,
                "instances": 1,
                "exec_mode": "fork_mode",
                "pm_exec_path": "/srv/%s/server.js" % name,
                "pm_cwd": "/srv/%s" % name,
                "env": {"SECRET": "s", "unique_id": "u%d" % number},
                **env,
            },
        }
        self.processes.append(entry)
        return entry

    def state(self) -> Dict[str, str]:
        """Each name with PM2's word for it."""
        return {entry["name"]: entry["pm2_env"]["status"] for entry in self.processes}


class Pm2System(System):
    """A machine whose ``pm2`` does what the real one would do to the daemon's list."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.asked: List[List[str]] = []
        self.environment: Dict[str, str] = {}
        #: Verbs that end badly.
        self.broken: List[str] = []

    def run(self, argv: Sequence[str], **options: Any) -> Completed:
        verb, names = argv[1], list(argv[2:])
        self.asked.append(list(argv[1:]))
        self.environment = dict(options.get("env") or {})
        if verb in self.broken:
            return Completed(tuple(argv), 1, b"", b"[PM2][ERROR] no\n", False, 0.0)
        if not self.daemon.running:
            self.daemon.start()
        for entry in list(self.daemon.processes):
            if entry["name"] in names:
                self._do(verb, entry)
        if verb == "resurrect":
            self._resurrect()
        elif verb == "kill":
            self.daemon.stop()
        elif verb == "save":
            (self.daemon.home / "dump.pm2").write_text("saved anew")
        return Completed(tuple(argv), 0, b"", b"", False, 0.0)

    def _do(self, verb: str, entry: Dict[str, Any]) -> None:
        env = entry["pm2_env"]
        if verb == "delete":
            self.daemon.processes.remove(entry)
        elif verb == "stop":
            env["status"] = "stopped"
        elif verb == "restart":
            env.update(status="online", created_at=env["created_at"] + 1)
        elif verb == "reset":
            env["restart_time"] = 0

    def _resurrect(self) -> None:
        path = self.environment["PM2_DUMP_FILE_PATH"]
        assert not os.path.exists(self.environment["PM2_DUMP_BACKUP_FILE_PATH"])
        there = self.daemon.state()
        with open(path, encoding="ascii") as file:
            for saved in json.load(file):
                assert "pm_id" not in saved and "instances" not in saved
                if saved["name"] not in there:
                    self.daemon.add(**dict(saved, restart_time=0))


def garbage(arguments: int = 1) -> bytes:
    """A message that no PM2 would send."""
    return bytes([1 << 4 | arguments]) + struct.pack(">I", 3) + b"???"

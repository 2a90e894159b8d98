"""Real releases for the tests: two adjacent Django wheels with a small HTTP server beside them.

The wheels come from the package index through pip, once, into a cache outside the checkout. What a
release does wrong is a file in it, ``FAULT``, that the server reads at its start: the fault travels
with the release, like a real one.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

__all__ = ["CACHE", "DJANGO", "SERVER", "django_release", "fetch", "pack", "small_release"]

CACHE = Path(os.environ.get("DEPLOYGUARD_TEST_CACHE", "/var/tmp/deployguard-tests"))
#: Version of the release to the Django in it.
DJANGO = {"v1": "5.2.6", "v2": "5.2.7"}

SERVER = '''\
"""Serves /health with the version of this release. FAULT says what is wrong with it."""
import http.server
import json
import os
import pathlib
import sys
import time

here = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(here))
sys.dont_write_bytecode = True
version = (here / "VERSION").read_text().strip()
fault, _, argument = (here / "FAULT").read_text().strip().partition(" ")
try:
    import django
    framework = django.get_version()
except ImportError:
    framework = None
print(f"starting {version} on django {framework}", flush=True)
if fault == "exit":
    sys.exit("cannot start: telemetry module is missing, password=hunter2secret")
if fault == "crash":
    time.sleep(float(argument or 0.3))
    sys.exit("crashed")
if fault == "complains":
    print("ERROR", argument, flush=True)
if fault == "silent":
    while True:
        time.sleep(60)
if fault == "slow":
    time.sleep(float(argument))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        sick = fault == "unhealthy" or (here / "SICK").exists()
        served = "v0-wrong" if fault == "wrong" else version
        body = json.dumps(
            {"status": "unhealthy" if sick else "healthy", "version": served, "django": framework}
        ).encode()
        self.send_response(503 if sick else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        print("request", self.path, flush=True)


class Server(http.server.ThreadingHTTPServer):
    allow_reuse_address = True


Server(("0.0.0.0", int(os.environ.get("PORT", sys.argv[1] if len(sys.argv) > 1 else "8000"))),
       Handler).serve_forever()
'''


def django_release(target: Path, version: str, *, fault: str = "none", name: str = "") -> Path:
    """A directory with the Django of ``version`` (``v1`` or ``v2``), the server and its fault.

    ``name`` is what the release calls itself, ``version`` when left out.
    """
    target.mkdir(parents=True)
    with zipfile.ZipFile(_wheel(DJANGO[version])) as wheel:
        wheel.extractall(target)
    return _finish(target, name or version, fault)


def small_release(target: Path, version: str, *, fault: str = "none", files: int = 3) -> Path:
    """A release of a few files, for what does not depend on the number of files."""
    target.mkdir(parents=True)
    (target / "app").mkdir()
    for number in range(files):
        (target / "app" / f"module_{number}.py").write_text(f"# {version} {number}\n" * 20)
    (target / "app" / "same.txt").write_text("the same in every version\n")
    return _finish(target, version, fault)


def _finish(target: Path, version: str, fault: str) -> Path:
    (target / "server.py").write_text(SERVER)
    (target / "VERSION").write_text(version + "\n")
    (target / "FAULT").write_text(fault + "\n")
    return target


def fetch() -> None:
    """Make sure that both wheels are in the cache."""
    for version in DJANGO.values():
        _wheel(version)


def pack(directory: Path, archive: Path) -> Path:
    """The directory as a tar.gz, as a build job would make it."""
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(directory, arcname=".")
    return archive


def _wheel(version: str) -> Path:
    """The wheel from the cache, fetched by pip the first time."""
    wheel = CACHE / f"django-{version}-py3-none-any.whl"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not wheel.exists():
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pip",
                    "download",
                    "--quiet",
                    "--no-deps",
                    "--dest",
                    str(CACHE),
                    f"django=={version}",
                ],
                check=True,
                stdin=subprocess.DEVNULL,
            )
    return wheel

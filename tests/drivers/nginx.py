"""A static site behind an nginx that is tested and reloaded, as a case for the suite."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from deployguard.drivers.registry import DRIVERS
from deployguard.testing import CRASH, DriverCase
from deployguard.transport import registry
from tests.drivers import services
from tests.drivers.cases import component, on_host, systemctl
from tests.fleet import Fleet
from tests.fleet import Host as Machine

UNIT = """\
[Service]
ExecStart=/usr/sbin/nginx -c {live}/nginx.conf
ExecReload=/usr/sbin/nginx -c {live}/nginx.conf -s reload
"""

CONFIGURATION = """\
daemon off;
pid /run/{name}.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  server {{ listen {port}; root {live}; }}
}}
"""


def nginx_case(fleet: Fleet, machine: Machine, directory: Path) -> DriverCase:
    """An nginx of its own, whose configuration comes with the release; it is never stopped."""
    host = on_host(fleet, machine, become=True)
    number = services.port()
    name = f"conform{number}"
    path = f"/srv/{name}"
    live = f"{path}/current"
    (directory / "nginx.service").write_text(UNIT.format(live=live))
    service = {
        "systemd": {
            "unit": f"{name}.service",
            "unit_file": "nginx.service",
            "action": "reload",
            "test": ["nginx", "-t", "-c", f"{live}/nginx.conf"],
        }
    }

    def release(version: str) -> Path:
        tree = directory / "build" / version
        if not tree.exists():
            tree.mkdir(parents=True)
            text = CONFIGURATION.format(name=name, port=number, live=live)
            (tree / "nginx.conf").write_text(text if version != CRASH else f"rooot;\n{text}")
            # The old program serves the new tree at once, and there it finds no page.
            if version != CRASH:
                (tree / "index.html").write_text(version)
        return tree

    def served() -> str | None:
        try:
            with urllib.request.urlopen(f"http://{machine.address}:{number}/", timeout=5) as page:
                text: str = page.read().decode()
                return text
        except (urllib.error.URLError, ConnectionError):
            return None

    def stop() -> None:
        systemctl(machine, "stop", f"{name}.service")

    return DriverCase(
        driver=DRIVERS["systemd"],
        component=lambda version: component(path, service, "releases"),
        release=release,
        connect=lambda: registry.connect(machine.name, host),
        served=served,
        stop=stop,
        directory=directory,
    )

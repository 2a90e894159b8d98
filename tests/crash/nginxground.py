"""The same releases as a site of files: an nginx that is tested and reloaded, and never stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.crash.ground import NAME, PORT, Ground, live_of, make_releases
from tests.drivers.nginx import CONFIGURATION
from tests.releases import pack

UNIT = """\
[Service]
# {version}
ExecStart=/usr/sbin/nginx -c {live}/nginx.conf
ExecReload=/usr/sbin/nginx -c {live}/nginx.conf -s reload

[Install]
WantedBy=multi-user.target
"""


def make_nginx_releases(directory: Path) -> Path:
    """The usual ones, each with its page and its configuration; the bad one says that it is ill."""
    make_releases(directory, "releases")
    live = live_of("releases")
    for version in ("v1", "v2", "bad"):
        folder = directory / version
        status = "ill" if version == "bad" else "healthy"
        text = CONFIGURATION.format(name=NAME, port=PORT, live=live)
        (folder / "nginx.conf").write_text(text)
        (folder / "health").write_text(json.dumps({"status": status, "version": version}))
        for path in (folder / "nginx.conf", folder / "health", folder):
            os.utime(path, (10**9, 10**9))
        pack(folder, directory / f"{version}.tar.gz")
        (directory / f"{version}.service").write_text(UNIT.format(version=version, live=live))
    return directory


class NginxGround(Ground):
    """What is live is what is served: the old program sees the new tree at once."""

    kind = "nginx"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        test = ["nginx", "-t", "-c", f"{self.live}/nginx.conf"]
        self.service = {"action": "reload", "test": test}

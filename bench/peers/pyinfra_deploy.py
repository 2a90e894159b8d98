"""The release as a pyinfra deploy: put, unpack, switch, restart, wait for the new version.

pyinfra executes this file; root, version, artifact, unit and url come with ``--data``.
"""

from __future__ import annotations

from pyinfra import host  # type: ignore[import-not-found]
from pyinfra.operations import files, server, systemd  # type: ignore[import-not-found]

ROOT, VERSION, UNIT = host.data.root, host.data.version, host.data.unit
RELEASE = f"{ROOT}/releases/{VERSION}"
PARCEL = f"/tmp/release-{VERSION}.tar.gz"

files.put(name="Upload the release", src=host.data.artifact, dest=PARCEL)
server.shell(
    name="Unpack the release",
    commands=[f"mkdir -p {RELEASE} && tar -xzf {PARCEL} -C {RELEASE} && rm {PARCEL}"],
    _sudo=True,
)
server.shell(
    name="Switch to the release",
    commands=[f"ln -sfn {RELEASE} {ROOT}/current.new && mv -T {ROOT}/current.new {ROOT}/current"],
    _sudo=True,
)
systemd.service(name="Restart the service", service=UNIT, restarted=True, _sudo=True)
server.shell(
    name="Wait for the new version",
    commands=[
        "for try in $(seq 50); do "
        f"curl -fsS {host.data.url} 2>/dev/null | grep -q '\"{VERSION}\"' && exit 0; "
        "sleep 0.2; done; exit 1"
    ],
)

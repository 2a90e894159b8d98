"""What this machine must offer before it can hold a fleet, and how it reaches its packages.

Root, a few Debian packages and a package mirror. The mirror, its proxy and its certificate come
from apt's own configuration, so that a machine behind a proxy or with a mirror of its own works
without a setting here.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

APT = Path("/etc/apt")

# The program that shows a package is there, and the package that brings it.
PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "ssh-keygen": "openssh-client",
    "nsenter": "util-linux",
    "mkfs.ext4": "e2fsprogs",
    "npm": "npm",
}

# The network that this process was started in; by now it may be in a fleet's.
_NETWORK = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

# Every host's systemd and its services hold inotify instances of the one root user they share.
INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_WANTED = 8192


class FleetUnavailable(Exception):
    """This machine cannot hold a fleet; the message is one line that says why."""


@dataclass(frozen=True)
class Mirror:
    """Where debootstrap finds the release this machine itself runs."""

    url: str
    suite: str
    components: tuple[str, ...]
    keyring: str | None


def prepare() -> None:
    """Bring the machine to the point where a fleet can boot, or say why it cannot."""
    if os.geteuid() != 0:
        raise FleetUnavailable("test hosts need root (systemd-nspawn, overlay mounts, netns)")
    missing = sorted({package for program, package in PROGRAMS.items() if not _have(program)})
    if missing:
        _install(missing)
    _allow_many_hosts()


def mirror() -> Mirror:
    """The first configured source that carries this machine's own release."""
    suite = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    for source in _sources():
        if suite and suite in source.suite.split() and "main" in source.components:
            return Mirror(_resolve(source.url), suite, source.components, source.keyring)
    raise FleetUnavailable(f"apt has no source for {suite or 'this release'} with component main")


def download_environment() -> dict[str, str]:
    """The environment in which debootstrap's downloader goes the way apt goes."""
    environment = dict(os.environ)
    for scheme in ("http", "https"):
        proxy = _apt_option(f"Acquire::{scheme}::Proxy")
        if proxy and proxy != "DIRECT":
            environment[f"{scheme}_proxy"] = proxy
    return environment


def outside() -> list[str]:
    """What goes before a command that needs the machine's own network, also from a fleet's."""
    if os.stat("/proc/thread-self/ns/net").st_ino == os.fstat(_NETWORK).st_ino:
        return []
    return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{_NETWORK}", "--"]


def certificate_authority() -> str | None:
    """The certificate file apt trusts for its mirror, when one is configured."""
    return _apt_option("Acquire::https::CaInfo") or None


def command(
    argv: list[str], environment: dict[str, str] | None = None, lines: tuple[str, ...] = ()
) -> str:
    """Run a program of this machine, with `lines` to read; what it prints, or an OSError."""
    done = subprocess.run(
        argv,
        check=False,  # CalledProcessError does not show what the program complained about
        env=environment,
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        complaint = done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}"
        raise OSError(f"{' '.join(argv)}: {complaint}")
    return done.stdout


def _have(program: str) -> bool:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def _install(packages: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wait = "DPkg::Lock::Timeout=120"
    try:
        command(["apt-get", "-q", "update"], environment)
        command(
            ["apt-get", "-q", "-y", "-o", wait, "install", "--no-install-recommends", *packages],
            environment,
        )
    except OSError as error:
        last = str(error).splitlines()[-1]
        raise FleetUnavailable(f"cannot install {' '.join(packages)}: {last}") from error


def _allow_many_hosts() -> None:
    # A machine that forbids it still holds a small fleet, so a refusal is no error.
    with suppress(OSError):
        if int(INOTIFY_INSTANCES.read_text()) < INOTIFY_WANTED:
            INOTIFY_INSTANCES.write_text(str(INOTIFY_WANTED))


def _apt_option(name: str) -> str:
    answer = command(["apt-config", "dump", "--format", "%v%n", name]).strip()
    return answer.splitlines()[0] if answer else ""


def _sources() -> Iterator[Mirror]:
    """Every binary source of apt, in both of the formats apt reads."""
    listed = [APT / "sources.list", *sorted((APT / "sources.list.d").glob("*.list"))]
    for path in listed:
        if path.exists():
            yield from _one_line_sources(path.read_text())
    for path in sorted((APT / "sources.list.d").glob("*.sources")):
        yield from _paragraph_sources(path.read_text())


def _one_line_sources(text: str) -> Iterator[Mirror]:
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)", line)
        if match:
            options, url, suite, components = match.groups()
            signed = re.search(r"signed-by=(/\S+)", options or "", re.IGNORECASE)
            keyring = signed.group(1) if signed else None
            yield Mirror(url, suite, tuple(components.split()), keyring)


def _paragraph_sources(text: str) -> Iterator[Mirror]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
        field = {
            name.lower(): value.strip()
            for name, value in re.findall(r"^([\w-]+):[ \t]*(.*)$", paragraph, re.MULTILINE)
        }
        if "deb" not in field.get("types", "").split() or field.get("enabled", "yes") == "no":
            continue
        signed = field.get("signed-by", "")
        for url in field.get("uris", "").split():
            yield Mirror(
                url,
                field.get("suites", ""),
                tuple(field.get("components", "").split()),
                signed if signed.startswith("/") else None,
            )


def _resolve(url: str) -> str:
    """The first address behind apt's `mirror+file:` list, which debootstrap cannot read."""
    if not url.startswith("mirror+file:"):
        return url
    for line in Path(url.removeprefix("mirror+file:")).read_text().splitlines():
        if line.startswith("http"):
            return line.split()[0]
    raise FleetUnavailable(f"{url} names no http mirror")

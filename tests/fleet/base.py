"""The root file system that every host shares, read-only, below a layer of its own.

It is built once per recipe and kept outside the repository. The directory is named after a hash
of everything that goes into it, and appears by one rename, so that a build that died halfway is
never booted and an edit of the recipe never meets an old tree.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.fleet import machine

# One place a machine: whoever sweeps must see every lock there is.
STATE = Path("/var/tmp/deployguard-fleet")

USER = "deploy"
HOST_LIMIT = 200  # 192.0.2.1 to .200; the controller is .254
CONTROLLER = "192.0.2.254"

PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "sudo"),
    *("python3", "iproute2", "curl", "procps", "git", "rsync", "ca-certificates"),
    # What some of the deploys are to: a Node under PM2, files behind an nginx, a database.
    *("nodejs", "nginx-light", "postgresql", "python3-psycopg2"),
)
# From npm, into /usr/local of the tree.
NPM = ("pm2@7.0.4",)

# A test that wants it starts it.
DISABLED = ("nginx.service", "postgresql.service")

# Nothing here is wrong on a real host. It costs boot time, or wakes up in the middle of a test.
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "apt-daily.service",
    "apt-daily-upgrade.service",
    "console-getty.service",
    "dev-hugepages.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "sys-fs-fuse-connections.mount",
    "systemd-firstboot.service",
    "systemd-pstore.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
)

SSHD = """\
# Forty logins may arrive at once, from an address no resolver knows.
UseDNS no
MaxStartups 200
PrintMotd no
PrintLastLog no
HostKey /etc/ssh/ssh_host_ed25519_key
"""


def _files() -> dict[str, str]:
    hosts = [f"{address_of(number)} {name_of(number)}" for number in range(1, HOST_LIMIT + 1)]
    return {
        "etc/hosts": "\n".join(["127.0.0.1 localhost", f"{CONTROLLER} controller", *hosts, ""]),
        "etc/hostname": "host\n",
        "etc/machine-id": "",  # empty: every host makes its own at its first boot
        "etc/ssh/sshd_config.d/fleet.conf": SSHD,
        f"etc/sudoers.d/{USER}": f"{USER} ALL=(ALL) NOPASSWD: ALL\n",
        "etc/systemd/journald.conf.d/fleet.conf": "[Journal]\nStorage=persistent\n",
    }


def name_of(number: int) -> str:
    """The name of a fleet's nth host, counted from one."""
    return f"web{number}"


def address_of(number: int) -> str:
    """The address of a fleet's nth host; every fleet has the same, in a namespace of its own."""
    return f"192.0.2.{number}"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is in the tree; `extra` packages come on top of a plain one."""

    suite: str
    packages: tuple[str, ...]
    npm: tuple[str, ...] = NPM
    extra: tuple[str, ...] = ()
    masked: tuple[str, ...] = MASKED
    disabled: tuple[str, ...] = DISABLED
    files: dict[str, str] = field(default_factory=_files)
    edition: int = 1  # raised when the steps of `_furnish` change

    @property
    def digest(self) -> str:
        """The name of the tree this recipe makes."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def base(extra: tuple[str, ...] = ()) -> Path:
    """The tree of the recipe plus `extra` Debian packages, built if it is not there yet."""
    source = machine.mirror()
    more = tuple(sorted(set(extra) - set(PACKAGES)))
    plain = base() if more else None
    recipe = Recipe(source.suite, PACKAGES, extra=more)
    shelf = STATE / "base"
    shelf.mkdir(parents=True, exist_ok=True)
    finished = shelf / recipe.digest
    with (shelf / f"{recipe.digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            print(f"fleet: building the base image {finished}, a minute once", file=sys.stderr)
            building = shelf / f"{recipe.digest}.building"
            shutil.rmtree(building, ignore_errors=True)
            if plain is None:
                _debootstrap(building, recipe, source)
                _add_npm_packages(building, recipe)
                _furnish(building, recipe)
            else:
                _extend(plain, building, recipe, source)
            building.rename(finished)
    return finished


def _debootstrap(root: Path, recipe: Recipe, source: machine.Mirror) -> None:
    argv = ["debootstrap", "--variant=minbase", f"--include={','.join(recipe.packages)}"]
    argv.append(f"--components={','.join(source.components)}")
    if source.keyring:
        argv.append(f"--keyring={source.keyring}")
    authority = machine.certificate_authority()
    if authority:
        argv.append(f"--ca-certificate={authority}")
    log = root.with_suffix(".log")
    with log.open("w") as output:
        done = subprocess.run(
            [*argv, recipe.suite, str(root), source.url],
            check=False,  # the log's last line says more than the exception would
            env=machine.download_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if done.returncode != 0:
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise machine.FleetUnavailable(f"debootstrap failed: {' '.join(last)} (log: {log})")


def _add_npm_packages(root: Path, recipe: Recipe) -> None:
    options = ["--global", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"]
    try:
        machine.command(["npm", "install", *options, f"--prefix={root}/usr/local", *recipe.npm])
    except OSError as error:
        raise machine.FleetUnavailable(f"npm cannot install {recipe.npm}: {error}") from error


def _extend(plain: Path, root: Path, recipe: Recipe, source: machine.Mirror) -> None:
    """Install the extra packages into a copy: debootstrap cannot choose between alternatives."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(plain), str(root)], check=True)
    signed = f"[signed-by={source.keyring}] " if source.keyring else ""
    line = f"deb {signed}{source.url} {source.suite} {' '.join(source.components)}\n"
    (root / "etc/apt/sources.list").write_text(line)
    borrowed = ["/etc/apt/apt.conf.d", "/etc/ssl/certs", "/usr/share/keyrings"]
    borrowed += [str(authority)] if (authority := machine.certificate_authority()) else []
    install = ["apt-get", "-q", "-y", "install", "--no-install-recommends", *recipe.extra]
    try:
        for argv in (["apt-get", "-q", "update"], install):
            machine.command(
                [
                    *(
                        *machine.outside(),
                        "systemd-nspawn",
                        "--quiet",
                        "--as-pid2",
                        "--console=pipe",
                    ),
                    *("--register=no", "--keep-unit", "--resolv-conf=copy-host"),
                    *(f"--bind-ro={path}" for path in borrowed if Path(path).exists()),
                    *("--setenv=DEBIAN_FRONTEND=noninteractive", f"--directory={root}"),
                    *("--", *argv),
                ],
                {**machine.download_environment(), "SYSTEMD_NSPAWN_LOCK": "0"},
            )
    except OSError as error:
        last = str(error).strip().splitlines()[-1]
        raise machine.FleetUnavailable(f"cannot add {' '.join(recipe.extra)}: {last}") from error
    _forget_downloads(root)


def _furnish(root: Path, recipe: Recipe) -> None:
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for name, text in recipe.files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / f"etc/sudoers.d/{USER}").chmod(0o440)
    for unit in recipe.masked:
        mask = root / "etc/systemd/system" / unit
        mask.unlink(missing_ok=True)
        mask.symlink_to("/dev/null")
    for unit in recipe.disabled:
        (root / "etc/systemd/system/multi-user.target.wants" / unit).unlink(missing_ok=True)
    (root / "var/log/journal").mkdir(exist_ok=True)  # logs outlive a power cut
    _quicken_login(root / "etc/pam.d/sshd")
    subprocess.run(
        ["chroot", str(root), "/usr/sbin/useradd", "-m", "-s", "/bin/bash", USER], check=True
    )
    _forget_downloads(root)


def _forget_downloads(root: Path) -> None:
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    for cache in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / cache, ignore_errors=True)


def _quicken_login(pam: Path) -> None:
    # Message of the day and mail run programs at every login, also one that only runs a command.
    # pam_systemd stays: without it there are no user units and no session scopes.
    lines = pam.read_text().splitlines()
    kept = [line for line in lines if "pam_motd" not in line and "pam_mail" not in line]
    pam.write_text("\n".join(kept) + "\n")

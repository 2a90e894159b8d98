"""Who takes part: how each is installed, started, reset, and asked for its rescue."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.job import HOME, NAME, PORT, ROOT, UNIT, URL, Job
from bench.measure import Run, run
from tests.fleet import machine

PEERS = Path(__file__).resolve().parent / "peers"
CHECKOUT = PEERS.parent.parent

#: The newest ansible-core that this mitogen supports; both Ansible rows use it.
ANSIBLE = ("ansible-core==2.19.14",)
MITOGEN = ("mitogen==0.3.54",)
PYINFRA = ("pyinfra==3.10.0",)


class Contender(ABC):
    """One way to do the job."""

    name: str
    title: str
    #: Whether it has a way back that can be measured.
    can_rescue = False

    def __init__(self, job: Job) -> None:
        self.job = job
        self.folder = job.folder / self.name
        self.folder.mkdir(exist_ok=True)

    @abstractmethod
    def version(self) -> str:
        """What exactly takes part."""

    @abstractmethod
    def command(self, version: str, *, rescue: bool = False) -> list[str]:
        """The command line that deploys a version; called before the clock starts."""

    def environment(self) -> dict[str, str]:
        """The environment of the command."""
        return {}

    def deploy(self, version: str, *, rescue: bool = False) -> Run:
        """Deploy a version to the job's hosts, measured."""
        argv = self.command(version, rescue=rescue)
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "LANG": "C.UTF-8",
            **self.environment(),
        }
        return run(argv, cwd=self.folder, env=env, fleet=self.job.fleet.name)

    def make_ready(self, live: str, target: str) -> None:
        """Have ``live`` deployed by this very tool, on hosts that have never seen ``target``."""
        try:
            self.job.verify(live)
        except Exception:  # noqa: BLE001 - whatever is wrong with the hosts, this mends it
            self.job.wipe()
            done = self.deploy(live)
            if done.code != 0:
                raise RuntimeError(f"{self.name} cannot deploy {live}:\n{tail(done)}") from None
            self.job.verify(live)
        self.job.forget_all_but(live)

    def restored_after(self, done: Run) -> float | None:
        """Seconds from the verdict "not healthy" to the end of the rescue."""
        return None


class Ansible(Contender):
    """ansible-core with pipelining, as many forks as hosts."""

    name = "ansible"
    title = "Ansible, pipelining"
    strategy = "linear"
    can_rescue = True

    def version(self) -> str:
        """ansible-core's, from the package."""
        return f"ansible-core {ANSIBLE[0].partition('==')[2]}"

    def command(self, version: str, *, rescue: bool = False) -> list[str]:
        """Writes the configuration and the inventory a team would have beside its playbook."""
        venv = venv_of("ansible", (*ANSIBLE, *MITOGEN))
        plugins = next(venv.glob("lib/python3*/site-packages/ansible_mitogen")) / "plugins"
        (self.folder / "ansible.cfg").write_text(
            "[defaults]\n"
            "inventory = inventory.ini\n"
            f"forks = {len(self.job.hosts)}\n"
            f"strategy = {self.strategy}\n"
            f"strategy_plugins = {plugins / 'strategy'}\n"
            "interpreter_python = /usr/bin/python3\n"
            "retry_files_enabled = false\n"
            "[connection]\n"
            "pipelining = true\n"
            "[ssh_connection]\n"
            f"ssh_args = -F {self.job.fleet.ssh_config} -o ControlMaster=auto"
            " -o ControlPersist=60s\n"
        )
        hosts = [
            f"{host.name} ansible_host={host.address} ansible_user={host.user} "
            f"ansible_ssh_private_key_file={host.client_key}"
            for host in self.job.hosts
        ]
        (self.folder / "inventory.ini").write_text("\n".join(["[all]", *hosts, ""]))
        data = {
            "root": ROOT,
            "version": version,
            "artifact": str(self.job.releases[version].archive),
            "unit": UNIT,
            "url": URL,
        }
        playbook = PEERS / ("deploy_rescue.yml" if rescue else "deploy.yml")
        return [str(venv / "bin/ansible-playbook"), str(playbook), "-e", json.dumps(data)]

    def environment(self) -> dict[str, str]:
        """The configuration beside the playbook, without colours."""
        return {"ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}

    def restored_after(self, done: Run) -> float | None:
        """From the first task of the rescue to the recap."""
        begun = [at for at, line in done.lines if line.startswith("TASK [Rescue - link back")]
        ended = [at for at, line in done.lines if line.startswith("PLAY RECAP")]
        return ended[-1] - begun[0] if begun and ended else None


class Mitogen(Ansible):
    """The same playbook through mitogen."""

    name = "mitogen"
    title = "Ansible + mitogen"
    strategy = "mitogen_linear"

    def version(self) -> str:
        """Both packages'."""
        return f"{super().version()}, mitogen {MITOGEN[0].partition('==')[2]}"


class Pyinfra(Contender):
    """pyinfra, all hosts at once as it does by default."""

    name = "pyinfra"
    title = "pyinfra"

    def version(self) -> str:
        """The package's."""
        return PYINFRA[0].replace("==", " ")

    def command(self, version: str, *, rescue: bool = False) -> list[str]:
        """Writes the inventory."""
        venv = venv_of("pyinfra", PYINFRA)
        hosts = [
            (
                host.address,
                {
                    "ssh_user": host.user,
                    "ssh_key": str(host.client_key),
                    "ssh_known_hosts_file": str(host.known_hosts),
                },
            )
            for host in self.job.hosts
        ]
        (self.folder / "inventory.py").write_text(f"hosts = {hosts!r}\n")
        shutil.copy(PEERS / "pyinfra_deploy.py", self.folder / "deploy.py")
        data = {
            "root": ROOT,
            "version": version,
            "artifact": self.job.releases[version].archive,
            "unit": UNIT,
            "url": URL,
        }
        options = [word for key, value in data.items() for word in ("--data", f"{key}={value}")]
        return [str(venv / "bin/pyinfra"), "-y", "inventory.py", "deploy.py", *options]


class Rsync(Contender):
    """A shell script over rsync and ssh; it has no lock, no snapshot and no way back."""

    name = "rsync"
    title = "rsync -a --link-dest + ssh"
    #: As everybody writes it. A build gives every file a new time, so hardly any is linked.
    flags = "-a"

    def version(self) -> str:
        """What the programs say."""
        rsync = subprocess.run(["rsync", "--version"], capture_output=True, text=True, check=True)
        ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True)
        return f"rsync {rsync.stdout.split()[2]}, {ssh.stderr.split()[0].strip(',')}"

    def command(self, version: str, *, rescue: bool = False) -> list[str]:
        """The script with the hosts as its arguments."""
        if shutil.which("rsync") is None:
            machine.command(["apt-get", "-q", "-y", "install", "rsync"])
        names = [host.name for host in self.job.hosts]
        archive = self.job.releases[version].archive
        return ["bash", str(PEERS / "rsync_deploy.sh"), str(archive), version, *names]

    def environment(self) -> dict[str, str]:
        """What the script reads."""
        return {
            "ROOT": ROOT,
            "UNIT": UNIT,
            "URL": URL,
            "SSH_CONFIG": str(self.job.fleet.ssh_config),
            "AT_ONCE": str(len(self.job.hosts)),
            "FLAGS": self.flags,
        }


class RsyncChecksum(Rsync):
    """The same script by somebody who knows: content decides, so what is unchanged is linked."""

    name = "rsync-checksum"
    title = "rsync --checksum --link-dest + ssh"
    flags = "-rlp --checksum"


class Deployguard(Contender):
    """This project, from the checkout."""

    name = "deployguard"
    title = "**deployguard**"
    can_rescue = True

    def version(self) -> str:
        """The package's, and the commit where there is one."""
        argv = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty"]
        commit = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
        text = subprocess.run(
            [sys.executable, "-m", "deployguard", "--version"],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        return f"{text} ({commit})" if commit else text

    def command(self, version: str, *, rescue: bool = False) -> list[str]:
        """Writes the plan."""
        http = {"url": URL, "json": {"status": "healthy", "version": "{{ version }}"}}
        plan = {
            "name": NAME,
            "version": version,
            "concurrency": max(len(self.job.hosts), 1),
            "hosts": {
                host.name: {
                    "address": host.address,
                    "user": host.user,
                    "identity_file": str(host.client_key),
                    "known_hosts": str(host.known_hosts),
                    "become": True,
                }
                for host in self.job.hosts
            },
            "components": {
                NAME: {
                    "artifact": str(self.job.releases[version].archive),
                    "path": ROOT,
                    "layout": "releases",
                    "service": {"systemd": UNIT},
                    "checks": [
                        {"process": {"deadline": "10s"}},
                        {"port": {"number": PORT, "deadline": "10s"}},
                        {"http": {**http, "deadline": "10s"}},
                    ],
                }
            },
            "rescue": {"evidence": {"directory": "forensics"}},
        }
        (self.folder / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
        return [sys.executable, "-m", "deployguard", "apply", "plan.yaml", "--json"]

    def environment(self) -> dict[str, str]:
        """A state directory of the bench's own; the package from the checkout."""
        return {
            "DEPLOYGUARD_STATE": str(self.folder / "state"),
            "PYTHONPATH": str(CHECKOUT),
        }

    def make_ready(self, live: str, target: str) -> None:
        """It keeps what it once received: so the hosts begin anew, and it deploys ``live``."""
        self.job.wipe()
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        shutil.rmtree(self.folder / "forensics", ignore_errors=True)
        done = self.deploy(live)
        if done.code != 0:
            raise RuntimeError(f"deployguard cannot deploy {live}:\n{tail(done)}")
        self.job.verify(live)

    def restored_after(self, done: Run) -> float | None:
        """From the last failed check to the last "restored and verified" of its timeline."""
        timeline = outcome(done).get("timeline", [])
        failed = [e["at"] for e in timeline if (e["phase"], e["status"]) == ("check", "failed")]
        ended = [e["at"] for e in timeline if (e["phase"], e["status"]) == ("restore", "done")]
        if len(failed) != len(self.job.hosts) or len(ended) != len(self.job.hosts):
            return None
        return float(max(ended) - max(failed))


#: In the order of the table.
ALL: tuple[type[Contender], ...] = (
    Deployguard,
    Rsync,
    RsyncChecksum,
    Pyinfra,
    Mitogen,
    Ansible,
)


def outcome(done: Run) -> dict[str, Any]:
    """The last line of ``deployguard … --json``."""
    found: dict[str, Any] = json.loads(done.lines[-1][1]) if done.lines else {}
    return found


def venv_of(name: str, packages: Sequence[str]) -> Path:
    """An environment with these packages, made when it is not there yet."""
    venv = HOME / f"venv-{name}"
    done = venv / ".packages"
    wanted = "\n".join(packages)
    if not done.exists() or done.read_text() != wanted:
        HOME.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        pip = [str(venv / "bin/python"), "-m", "pip", "install", "-qq"]
        subprocess.run([*pip, "--disable-pip-version-check", *packages], check=True)
        done.write_text(wanted)
    return venv


def install() -> None:
    """Install every peer: to be done where there is a network, before the hosts' is entered."""
    venv_of("ansible", (*ANSIBLE, *MITOGEN))
    venv_of("pyinfra", PYINFRA)
    if shutil.which("rsync") is None:
        machine.command(["apt-get", "-q", "-y", "install", "rsync"])


def tail(done: Run, lines: int = 25) -> str:
    """The start and the end of what a command said, after its exit code."""
    said = [*done.text.splitlines(), *done.errors.splitlines()]
    if len(said) > lines:
        said = [*said[: lines // 2], "…", *said[-lines // 2 :]]
    return "\n".join([f"exit {done.code}", *said])

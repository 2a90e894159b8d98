"""What ``doctor`` asks: whether this machine and the hosts have what a deploy needs.

Every check answers for itself and none stops another: the point is to see all at once.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deployguard.errors import ActionFailed, HostFailure, UsageError

if TYPE_CHECKING:
    from deployguard.plan.model import Host, Plan
    from deployguard.transport.session import Session

__all__ = ["Answer", "host", "local"]

#: Less than this free on this machine, or in a host's state directory, is worth a word.
LOW_SPACE = 512 * 1024**2
#: Lease and timeline compare clocks of their own, but people compare the logs.
CLOCK_SKEW = 30.0


@dataclass(frozen=True)
class Answer:
    """One answer. ``mend`` says what to do about a warning or a failure."""

    where: str
    subject: str
    status: Literal["ok", "warning", "failed"]
    message: str
    mend: str = ""


def local(plan: Plan | None) -> Iterator[Answer]:
    """About this machine, and about what the plan needs from it."""
    yield Answer("here", "python", "ok", sys.version.partition(" ")[0])
    yield _packages()
    if plan is None or any(host.transport == "ssh" for host in plan.hosts.values()):
        yield _agent()
        yield from _keys(plan)
    yield from _space()
    if plan is not None:
        yield from _environment(plan)
        yield from _known_hosts(plan)
        yield from _snapshots(plan)


def _packages() -> Answer:
    """The versions that were installed against those that are asked for."""
    try:
        wanted = importlib.metadata.requires("deployguard") or []
    except importlib.metadata.PackageNotFoundError:
        return Answer(
            "here", "packages", "warning", "deployguard runs from a checkout, not installed",
            "pip install -e .",
        )  # fmt: skip
    missing = []
    for requirement in wanted:
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        mend = "pip install deployguard"
        return Answer("here", "packages", "failed", f"missing: {', '.join(missing)}", mend)
    version = importlib.metadata.version("deployguard")
    return Answer("here", "packages", "ok", f"deployguard {version}, all it needs is installed")


def _agent() -> Answer:
    if not os.environ.get("SSH_AUTH_SOCK"):
        return Answer("here", "ssh agent", "ok", "none; keys are read from files")
    try:
        listed = subprocess.run(
            ["ssh-add", "-l"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Answer("here", "ssh agent", "warning", f"does not answer: {error}", "ssh-add -l")
    if listed.returncode == 2:
        mend = 'start one: eval "$(ssh-agent)"; or unset SSH_AUTH_SOCK'
        return Answer("here", "ssh agent", "warning", "SSH_AUTH_SOCK is set, none answers", mend)
    count = len(listed.stdout.splitlines()) if listed.returncode == 0 else 0
    return Answer("here", "ssh agent", "ok", f"holds {count} key{'s' if count != 1 else ''}")


def _keys(plan: Plan | None) -> Iterator[Answer]:
    """Key files that exist must be readable by their owner only, or SSH refuses them."""
    named = (
        {host.identity_file for host in plan.hosts.values() if host.identity_file} if plan else ()
    )
    for name in sorted(named):
        if not Path(name).expanduser().exists():
            yield Answer("here", "ssh key", "failed", f"{name} is not there", "mend identity_file")
    usual = [path for path in Path("~/.ssh").expanduser().glob("id_*") if path.suffix != ".pub"]
    for path in (*usual, *(Path(name).expanduser() for name in sorted(named))):
        if not path.exists():
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            message = f"{path} can be read by others ({mode:04o})"
            yield Answer("here", "ssh key", "failed", message, f"chmod 600 {path}")
        else:
            yield Answer("here", "ssh key", "ok", str(path))


def _space() -> Iterator[Answer]:
    from deployguard.store.journal import default_path

    folder = default_path().parent
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        yield Answer(
            "here", "journal", "failed", f"{folder} is not writable", "set DEPLOYGUARD_STATE"
        )
        return
    free = shutil.disk_usage(existing).free
    status: Literal["ok", "warning"] = "ok" if free >= LOW_SPACE else "warning"
    yield Answer("here", "journal", status, f"{folder}, {free // 1024**2} MiB free")


def _environment(plan: Plan) -> Iterator[Answer]:
    github = plan.rescue.incident.github
    if github is not None:
        if os.environ.get(github.token_env):
            yield Answer("here", "incident token", "ok", f"{github.token_env} is set")
        else:
            message = f"{github.token_env} is not set: a failed deploy would file no incident"
            mend = f"export {github.token_env}=…, with `issues: write` on {github.repo}"
            yield Answer("here", "incident token", "warning", message, mend)
    yield from _channels(plan)
    for name in plan.rescue.redact:
        if not os.environ.get(name):
            message = f"{name} is to be redacted but is not set here"
            yield Answer("here", "redaction", "warning", message, f"export {name}, or unlist it")


def _channels(plan: Plan) -> Iterator[Answer]:
    """Whether this machine has what the channels sign in with; `notify test` tries them."""
    from deployguard.delivery import Undelivered
    from deployguard.notify.settings import settings_of

    for channel in settings_of(plan).channels:
        subject = f"channel {channel.name}"
        try:
            channel.secrets()
        except Undelivered as missing:
            message = f"{missing.reason}: {channel.kind} would be told nothing from here"
            mend = "set it; then `deployguard notify test` tries the channel"
            yield Answer("here", subject, "warning", message, mend)
        else:
            yield Answer("here", subject, "ok", f"{channel.kind}, what it signs in with is here")


def _known_hosts(plan: Plan) -> Iterator[Answer]:
    """Only what can be told without ssh_config: hosts by name are asked when we connect."""
    from deployguard.transport.known_hosts import known_keys, name_of

    for name, host in plan.hosts.items():
        if host.transport != "ssh" or host.host_key_checking == "off":
            continue
        address, port = host.address or name, host.port or 22
        file = Path(host.known_hosts or "~/.ssh/known_hosts").expanduser()
        files = [file] if host.known_hosts else [file, Path("/etc/ssh/ssh_known_hosts")]
        if not known_keys(files, name_of(address, port)):
            strict = host.host_key_checking == "strict"
            message = f"no key of {address} in {file}"
            flag = f"-p {port} " if port != 22 else ""
            mend = f"ssh-keyscan {flag}{address} >> {file}, after comparing the fingerprint"
            yield Answer(
                name,
                "host key",
                "warning",
                message,
                mend if strict else "the first connect adds it",
            )


def _snapshots(plan: Plan) -> Iterator[Answer]:
    """Whether the store lets us in, and the newest snapshot opens with the key."""
    if plan.snapshots is None:
        return
    from deployguard.snapshots.opening import open_vault

    try:
        vault = open_vault(plan)
        count = len(vault.ids())
        newest = f", the newest {vault.snapshot().id}" if count else ""
    except UsageError as error:
        status: Literal["failed", "warning"] = "failed" if plan.snapshots.required else "warning"
        yield Answer("here", "snapshots", status, error.message, error.hint)
        return
    yield Answer("here", "snapshots", "ok", f"{vault.address} has {count}{newest}")


def host(name: str, host: Host, plan: Plan) -> Iterator[Answer]:
    """About one host: connect, and judge what its program says of itself."""
    from deployguard.transport.registry import connect

    if host.address is None:
        host = host.model_copy(update={"address": name})
    began = time.monotonic()
    try:
        session = connect(name, host)
    except HostFailure as error:
        yield Answer(name, "connect", "failed", error.reason, error.hint)
        return
    try:
        took = time.monotonic() - began
        yield Answer(name, "connect", "ok", f"{took:.2f} s")
        hello = session.hello
        yield Answer(name, "python", "ok", str(hello.get("python")))
        yield from _rights(name, host, hello)
        yield from _services(name, plan, hello)
        yield from _stacks(name, plan, session)
        yield from _checkouts(name, plan, session)
        yield _room(name, hello)
        skew = abs(float(hello.get("now", time.time())) - time.time())
        if skew > CLOCK_SKEW + took:
            message = f"differs from ours by {skew:.0f} s"
            yield Answer(name, "clock", "warning", message, "run an NTP client there")
    except HostFailure as error:
        yield Answer(name, "host program", "failed", error.reason, error.hint)
    finally:
        session.close()


def _rights(name: str, host: Host, hello: dict[str, Any]) -> Iterator[Answer]:
    root = hello.get("uid") == 0
    if host.become and not root:
        yield Answer(name, "sudo", "failed", "become: did not make us root", "allow sudo -n there")
    else:
        how = " through sudo" if host.become else ""
        yield Answer(name, "user", "ok", f"{'root' if root else 'uid ' + str(hello['uid'])}{how}")


def _services(name: str, plan: Plan, hello: dict[str, Any]) -> Iterator[Answer]:
    from deployguard.plan.order import components_on

    units = [
        component
        for component in components_on(plan, name)
        if (service := plan.components[component].service) is not None and service.kind == "systemd"
    ]
    if hello.get("systemd"):
        yield Answer(name, "systemd", "ok", "runs")
    elif units:
        message = f"does not run, but {', '.join(units)} is a systemd unit"
        yield Answer(name, "systemd", "failed", message, "use another kind of service")
    else:
        message = "does not run: after a reboot in mid-deploy, `recover` is needed"
        mend = f"nothing, or `deployguard recover {plan.arguments}` in a job at the host's start"
        yield Answer(name, "systemd", "warning", message, mend)


def _stacks(name: str, plan: Plan, session: Session) -> Iterator[Answer]:
    """Whether the tool and the engine of each compose stack answer."""
    from deployguard.drivers.registry import driver_of
    from deployguard.health.checks import compile_checks
    from deployguard.plan.order import components_on
    from deployguard.rollout.targets import site_early

    for component in components_on(plan, name):
        part = plan.components[component]
        if part.service is None or part.service.kind != "compose":
            continue
        site = site_early(component, part, session.hello)
        manager = driver_of(part).process_probe(part, site)
        asked = part.model_copy(update={"checks": ()})
        checks = compile_checks(component, asked, plan.version, manager)
        looked = session.call("look", {"transaction": "doctor", "components": [], "checks": checks})
        found = looked["baseline"]["checks"][0]
        # What is down now is no hindrance to a deploy; a tool or an engine that is missing is.
        if found["state"] == "unknown":
            mend = "install the tool there, start the daemon, or name another `tool`"
            yield Answer(name, f"compose ({component})", "failed", found["message"], mend)
        else:
            yield Answer(name, f"compose ({component})", "ok", found["message"])


def _checkouts(name: str, plan: Plan, session: Session) -> Iterator[Answer]:
    """Whether a checkout there can be deployed to, and what its revision is by now."""
    import contextlib

    from deployguard.artifact.base import ArtifactInvalid
    from deployguard.plan.order import components_on
    from deployguard.rollout.releases import open_revision
    from deployguard.rollout.targets import target_of

    for component in components_on(plan, name):
        part = plan.components[component]
        if part.layout != "git":
            continue
        subject = f"git ({component})"
        with contextlib.ExitStack() as stack:
            try:
                source = open_revision(plan, component, stack)
                target = target_of(plan, component, part, source, session.hello)
                found = session.call("revision", {"transaction": "doctor", "component": target})
            except ArtifactInvalid as error:
                yield Answer(name, subject, "failed", "; ".join(error.problems), error.hint)
            except ActionFailed as error:
                yield Answer(name, subject, "failed", error.reason, error.hint)
            else:
                words = f"{target['source']['revision']} is the commit {found['commit'][:12]}"
                yield Answer(name, subject, "ok", words)


def _room(name: str, hello: dict[str, Any]) -> Answer:
    free = int(hello.get("free_bytes", 0))
    text = f"{hello.get('state')}, {free // 1024**2} MiB free"
    if free >= LOW_SPACE:
        return Answer(name, "state directory", "ok", text)
    return Answer(name, "state directory", "warning", text, "free some space there")

"""What a valid plan is: frozen pydantic models, one for each block of the plan file.

The models are also the JSON Schema (``deployguard schema``) and, through their field
descriptions, the reference in ``docs/plan.md``. They hold data only. Rules that need the file
system or more than one block at a time live in :mod:`deployguard.plan.validation`.

Blocks that name their kind by a single key (``checks``, ``guards``, ``service``) are models with
one optional field a kind, so that an error keeps its exact place in the file.
"""

from __future__ import annotations

import shlex
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from deployguard.plan.block import Block
from deployguard.plan.check import (
    Check,
    CheckOptions,
    CommandCheck,
    ContainerCheck,
    HttpCheck,
    ImportsCheck,
    LogsCheck,
    MysqlCheck,
    PortCheck,
    PostgresCheck,
    ProcessCheck,
    PrometheusCheck,
    RedisCheck,
    TcpCheck,
    TlsCheck,
)
from deployguard.plan.checkout import Git
from deployguard.plan.guard import (
    ApprovalGuard,
    BackupGuard,
    BaselineGuard,
    Capacity,
    CapacityGuard,
    ChangeSizeGuard,
    CiGuard,
    DiskGuard,
    Facts,
    Guard,
    ParityGuard,
    PostgresCapacity,
    ReleaseValue,
    StructureGuard,
    Window,
    WindowGuard,
)
from deployguard.plan.notify import (
    AppriseChannel,
    Channel,
    EmailChannel,
    Notify,
    PagerDutyChannel,
    SlackChannel,
    SmsChannel,
    StatuspageChannel,
    WebhookChannel,
)
from deployguard.plan.quantity import (
    CHANGED_AT,
    AbsolutePath,
    ComponentName,
    Duration,
    HostName,
    Whole,
    parse_duration,
    parse_size,
)
from deployguard.plan.rescue import (
    Evidence,
    GitHubIncident,
    Incident,
    Postmortem,
    Rescue,
    Severity,
    Target,
    Targets,
)
from deployguard.plan.respond import Containment, Respond, ResponsePrometheus, Writes
from deployguard.plan.service import (
    CommandService,
    ComposeService,
    KubernetesService,
    ManagedFile,
    Pm2Service,
    ProcessService,
    Service,
    SystemdService,
)
from deployguard.plan.snapshots import Snapshots, snapshots_shorthand
from deployguard.plan.task import Dump, Task
from deployguard.plan.watch import Watch

__all__ = [
    "AppriseChannel",
    "ApprovalGuard",
    "Artifact",
    "BackupGuard",
    "BaselineGuard",
    "Capacity",
    "CapacityGuard",
    "ChangeSizeGuard",
    "Channel",
    "Check",
    "CheckOptions",
    "CiGuard",
    "CommandCheck",
    "CommandService",
    "Component",
    "ComposeService",
    "ContainerCheck",
    "Containment",
    "DiskGuard",
    "Dump",
    "EmailChannel",
    "Evidence",
    "Facts",
    "Git",
    "GitHubIncident",
    "Guard",
    "Host",
    "HttpCheck",
    "ImportsCheck",
    "Incident",
    "KubernetesService",
    "LogsCheck",
    "ManagedFile",
    "MysqlCheck",
    "Notify",
    "PagerDutyChannel",
    "ParityGuard",
    "Plan",
    "Pm2Service",
    "PortCheck",
    "PostgresCapacity",
    "Postmortem",
    "PostgresCheck",
    "ProcessCheck",
    "ProcessService",
    "PrometheusCheck",
    "RedisCheck",
    "ReleaseValue",
    "Rescue",
    "Respond",
    "ResponsePrometheus",
    "Service",
    "Severity",
    "SlackChannel",
    "SmsChannel",
    "Snapshots",
    "StatuspageChannel",
    "StructureGuard",
    "SystemdService",
    "Target",
    "Targets",
    "Task",
    "TcpCheck",
    "TlsCheck",
    "Watch",
    "WebhookChannel",
    "Window",
    "WindowGuard",
    "Writes",
    "parse_duration",
    "parse_size",
]


class Host(Block):
    """A machine and the way to reach it."""

    address: str | None = Field(None, description="Name or address; the host's key when left out.")
    port: Whole | None = Field(None, ge=1, le=65535, description="SSH port; ssh_config or 22.")
    user: str | None = Field(None, description="SSH user; ssh_config or the local user.")
    transport: Literal["ssh", "local"] = Field("ssh", description="`local` is this machine.")
    identity_file: str | None = Field(None, description="Private key, beside ssh_config and agent.")
    ssh_config: str | None = Field(None, description="ssh_config file instead of ~/.ssh/config.")
    known_hosts: str | None = Field(None, description="known_hosts file instead of the user's.")
    host_key_checking: Literal["strict", "accept_new", "off"] = Field(
        "strict", description="What to do with a host key that is not known."
    )
    jump: str | None = Field(None, description="user@host:port of a jump host.")
    become: bool = Field(False, description="Run the host program as root through sudo -n.")
    python: str = Field("python3", description="Python 3.8 or later on the host.")
    state_directory: AbsolutePath | None = Field(
        None, description="Where the host keeps journals; /var/lib/deployguard for root."
    )
    connect_deadline: Duration = Field(15.0, description="How long to try to connect.")
    drill: bool = Field(False, description="A drill may break things here.")
    groups: tuple[str, ...] = Field((), description="Groups, from an inventory or by hand.")
    vars: dict[str, Any] = Field(default_factory=dict, description="Free values of the host.")


class Artifact(Block):
    """A release: a directory, or a tar in plain, gz, xz or zst."""

    path: str = Field(description="Directory or tar, relative to the plan file.")
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the tar file."
    )
    strip_components: Whole = Field(0, ge=0, description="Leading directories to drop, as in tar.")


def _artifact_shorthand(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


class Component(Block):
    """One deployable part: a tree, its service and its checks."""

    artifact: (
        Annotated[
            Artifact, BeforeValidator(_artifact_shorthand, json_schema_input_type=str | Artifact)
        ]
        | None
    ) = Field(None, description="The release; its path alone is enough. Needed but for git.")
    path: AbsolutePath = Field(description="Managed path on the host.")
    layout: Literal["releases", "in_place", "git"] = Field(
        "releases",
        description="`releases`: versions and a `current` link; `in_place`: one tree; `git`: a "
        "checkout.",
    )
    git: Git | None = Field(None, description="git: the revision, and where it comes from.")
    needs: tuple[str, ...] = Field((), description="Components that start first.")
    hosts: tuple[str, ...] = Field((), description="Hosts or groups it runs on; all when empty.")
    owner: str | None = Field(
        None, description="Owner of the files; the live tree's owner; `artifact` keeps the tar's."
    )
    group: str | None = Field(None, description="Group of the files; as owner.")
    keep: tuple[str, ...] = Field(
        (), description="in_place, git: paths or globs in the tree that belong to the host."
    )
    shared: tuple[str, ...] = Field(
        (), description="releases: paths linked from each release into `shared/`."
    )
    drift: Literal["refuse", "save"] = Field(
        "refuse", description="What to do when files were changed by hand."
    )
    ignore: tuple[str, ...] = Field(
        ("**/__pycache__", "**/*.pyc"), description="Globs that are never drift."
    )
    retain: Whole = Field(3, ge=2, description="How many committed trees stay on the host.")
    service: Service | None = Field(None, description="What runs it; none for plain files.")
    files: dict[str, ManagedFile] = Field(
        default_factory=dict, description="Files outside the tree, by absolute path."
    )
    checks: tuple[Check, ...] = Field((), description="How it is judged; at least one.")


def _host_shorthand(value: object) -> object:
    """``web1:`` with nothing after it is a host that is reached by its own name."""
    return {} if value is None else value


def _serial_shorthand(value: object) -> object:
    """``serial: 1``, as Ansible allows it."""
    return [value] if isinstance(value, int | str) else value


class Plan(Block):
    """A whole plan file."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="What is deployed, in one word."
    )
    version: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$",
        description="The version to deploy; `--release` replaces it.",
    )
    environment: str = Field("production", description="Shown in incidents and reports.")
    changed_at: str | None = Field(
        None,
        pattern=CHANGED_AT,
        description="When the change was made, in ISO 8601, for the lead time in `metrics`.",
    )
    vars: dict[str, Any] = Field(
        default_factory=dict, description="Free values for templates: `{{ vars.NAME }}`."
    )
    hosts: dict[
        HostName,
        Annotated[Host, BeforeValidator(_host_shorthand, json_schema_input_type=Host | None)],
    ] = Field(description="Hosts by name, or the path of an inventory file.")
    serial: Annotated[
        tuple[Whole | str, ...],
        BeforeValidator(
            _serial_shorthand, json_schema_input_type=int | str | tuple[int | str, ...]
        ),
    ] = Field(("100%",), description="Batches, counts or percentages, as in Ansible.")
    max_fail_percentage: float = Field(
        0.0, ge=0, le=100, description="Percentage of a batch's hosts that may fail."
    )
    on_failure: Literal["restore_all", "restore_batch", "hold"] = Field(
        "restore_all",
        description="What goes back when a batch fails: every host, those not healthy, or none.",
    )
    concurrency: Whole = Field(20, ge=1, description="Hosts at work at the same time.")
    lease: Duration = Field(60.0, ge=5, description="Until a host alone restores itself.")
    guards: tuple[Guard, ...] = Field((), description="Asked before anything is touched.")
    components: dict[ComponentName, Component] = Field(description="What is deployed, by name.")
    tasks: tuple[Task, ...] = Field((), description="Extra steps, each with its inverse.")
    rescue: Rescue = Field(
        default_factory=lambda: Rescue.model_validate({}),
        description="What happens beside the restore when a deploy fails.",
    )
    respond: Respond = Field(
        default_factory=lambda: Respond.model_validate({}),
        description="What `incident respond` asks, does and can take back.",
    )
    snapshots: Annotated[
        Snapshots | None,
        BeforeValidator(snapshots_shorthand, json_schema_input_type=str | Snapshots | None),
    ] = Field(None, description="Where what is live is kept off the hosts; its place is enough.")
    watch: Watch = Field(
        default_factory=lambda: Watch.model_validate({}),
        description="How `watch` looks at the checks after the deploy.",
    )
    notify: Notify = Field(
        default_factory=lambda: Notify.model_validate({}),
        description="Who is told of incidents and deploys.",
    )
    always: tuple[Task, ...] = Field((), description="Run at the end, whatever the outcome.")
    source: str = Field("", exclude=True, description="Filled by the loader: path of the file.")
    places: dict[str, tuple[int, int]] = Field(
        default_factory=dict, exclude=True, description="Filled by the loader: where keys stand."
    )
    given: tuple[str, ...] = Field(
        (), exclude=True, description="Filled by the loader: options it does not load without."
    )

    @property
    def arguments(self) -> str:
        """How a command line names this plan; ``PLAN`` when it was not read from a file.

        The value of a variable may be a secret, so three dots stand for it.
        """
        return shlex.join([self.source, *self.given]) if self.source else "PLAN"

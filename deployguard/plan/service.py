"""What runs a component, and the files outside its tree that go with it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from deployguard.plan.block import Block, OneOf
from deployguard.plan.kubernetes import KubernetesService
from deployguard.plan.quantity import AbsolutePath, Argv, Duration, Mode

__all__ = [
    "CommandService",
    "ComposeService",
    "KubernetesService",
    "ManagedFile",
    "Pm2Service",
    "ProcessService",
    "Service",
    "SystemdService",
]


class ManagedFile(Block):
    """One file outside the tree that is deployed and restored with the component."""

    source: str | None = Field(None, description="Local file, relative to the plan file.")
    content: str | None = Field(None, description="Content written inline.")
    mode: Mode = Field(0o644, description='Mode, quoted octal such as "0640".')
    owner: str | None = Field(None, description="Owner; the user the host program runs as.")
    group: str | None = Field(None, description="Group; the owner's.")

    @model_validator(mode="after")
    def _one_source(self) -> ManagedFile:
        if (self.source is None) == (self.content is None):
            raise ValueError("needs exactly one of source and content")
        return self


class SystemdService(Block):
    """A systemd unit. The unit file and drop-ins may be part of the component."""

    unit: str = Field(pattern=r"^[^/\s]+\.(service|socket|timer|target|path)$", description="Unit.")
    scope: Literal["system", "user"] = Field("system", description="System or user manager.")
    unit_file: str | None = Field(None, description="Local unit file to install, relative path.")
    drop_ins: dict[str, str] = Field(
        default_factory=dict, description="Drop-in name (x.conf) to local file."
    )
    enable: bool | None = Field(None, description="Enable or disable; None leaves it as it is.")
    action: Literal["restart", "reload"] = Field(
        "restart", description="Stop, then start; or `systemctl reload`, and it never stops."
    )
    test: Argv | None = Field(
        None, description="Must succeed before the start or reload, such as [nginx, -t]."
    )
    stop_timeout: Duration = Field(90.0, description="How long a stop may take.")
    start_timeout: Duration = Field(90.0, description="How long a start may take.")


#: A name for PM2's own bookkeeping: no path, no pattern, and not the number of a process.
_WORD = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Pm2Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9@_][A-Za-z0-9@._:-]*$")]


class ProcessService(Block):
    """A program we supervise ourselves with a pid file and a log, mostly for localhost."""

    argv: Argv = Field(description="Program and arguments; run in the live tree.")
    env: dict[str, str] = Field(default_factory=dict, description="Added environment.")
    directory: AbsolutePath | None = Field(None, description="Working directory; the live tree.")
    stop_signal: Literal["TERM", "INT", "QUIT", "HUP"] = Field(
        "TERM", description="Signal that asks it to stop."
    )
    stop_timeout: Duration = Field(10.0, description="Then SIGKILL.")


class CommandService(Block):
    """A service of any kind, driven by your own commands."""

    start: Argv = Field(description="Command that starts it.")
    stop: Argv = Field(description="Command that stops it.")
    status: Argv = Field(description="Exit status 0 means running.")
    env: dict[str, str] = Field(default_factory=dict, description="Added environment.")
    timeout: Duration = Field(90.0, description="How long each command may take.")


class Pm2Service(Block):
    """Processes that PM2 runs, by their names in ``pm2 list``."""

    name: Pm2Name | tuple[Pm2Name, ...] = Field(
        description="Process name, or a list of them, as `pm2 list` shows it."
    )
    ecosystem: str | None = Field(
        None, description="Ecosystem file in the tree that starts them; else PM2 must know them."
    )
    ecosystem_env: str | None = Field(
        None, pattern=_WORD, description="Its `env_NAME` block, as in `pm2 start --env NAME`."
    )
    action: Literal["restart", "reload"] = Field(
        "restart", description="Stop, then start; or a reload, one process after another."
    )
    save: bool | None = Field(
        None, description="`pm2 save` at the end; left out: with an ecosystem, where a dump is."
    )
    env: dict[str, str] = Field(
        default_factory=dict, description="Added environment of a start from the ecosystem."
    )
    user: str | None = Field(
        None, description="Whose PM2; the owner of `home`, else the user we run as."
    )
    home: AbsolutePath | None = Field(None, description="PM2_HOME; ~/.pm2 of the user.")
    program: AbsolutePath | None = Field(
        None, description="Path of pm2; else PATH, or beside the node of the daemon."
    )
    timeout: Duration = Field(90.0, description="How long each pm2 command may take.")

    @property
    def names(self) -> tuple[str, ...]:
        """All process names."""
        return (self.name,) if isinstance(self.name, str) else self.name


def _file_shorthand(value: object) -> object:
    return [value] if isinstance(value, str) else value


class ComposeService(Block):
    """A compose stack: several containers from one file."""

    file: Annotated[
        tuple[str, ...],
        BeforeValidator(_file_shorthand, json_schema_input_type=str | tuple[str, ...]),
    ] = Field((), description="Compose files in the tree; what the tool finds when left out.")
    project: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        description="Project; the last part of the component's path.",
    )
    tool: Literal["auto", "docker compose", "docker-compose", "podman-compose"] = Field(
        "auto", description="What drives it; `auto` is the first of these on the host."
    )
    env_file: str | None = Field(None, description="File for `--env-file`, as in `file`.")
    profiles: tuple[str, ...] = Field((), description="Profiles to start.")
    env: dict[str, str] = Field(
        default_factory=dict, description="Added environment of the tool, for the compose file."
    )
    build: bool = Field(True, description="Build images from the new tree, where the file says so.")
    pull: bool = Field(False, description="Pull all images, before anything is stopped.")
    one_shot: tuple[str, ...] = Field(
        (), description="Services that run to their end: exit status 0 is well."
    )
    stop_timeout: Duration | None = Field(
        None, description="Then a container is killed; its `stop_grace_period`, or 10s."
    )
    timeout: Duration = Field(300.0, description="How long each command may take.")


def _compose_shorthand(value: object) -> object:
    return {"file": value} if isinstance(value, str) else value


def _systemd_shorthand(value: object) -> object:
    return {"unit": value} if isinstance(value, str) else value


def _pm2_shorthand(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class Service(OneOf):
    """What runs the component; exactly one kind."""

    KINDS: ClassVar[tuple[str, ...]] = (
        "systemd",
        "process",
        "command",
        "pm2",
        "compose",
        "kubernetes",
    )
    systemd: (
        Annotated[
            SystemdService,
            BeforeValidator(_systemd_shorthand, json_schema_input_type=str | SystemdService),
        ]
        | None
    ) = Field(None, description="A systemd unit; its name alone is enough.")
    process: ProcessService | None = Field(None, description="A program we supervise ourselves.")
    command: CommandService | None = Field(None, description="Your own commands.")
    pm2: (
        Annotated[
            Pm2Service, BeforeValidator(_pm2_shorthand, json_schema_input_type=str | Pm2Service)
        ]
        | None
    ) = Field(None, description="PM2; the name of a process is enough.")
    compose: (
        Annotated[
            ComposeService,
            BeforeValidator(_compose_shorthand, json_schema_input_type=str | ComposeService),
        ]
        | None
    ) = Field(None, description="A compose stack; its file alone is enough.")
    kubernetes: KubernetesService | None = Field(None, description="Workloads in a cluster.")

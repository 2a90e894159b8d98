"""Questions that are asked before anything is touched: the kinds of guards."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from deployguard.plan.block import Block, OneOf
from deployguard.plan.facts import Facts
from deployguard.plan.quantity import AbsolutePath, Argv, ComponentName, Duration, Size, Whole

__all__ = [
    "ApprovalGuard",
    "BackupGuard",
    "BaselineGuard",
    "Capacity",
    "CapacityGuard",
    "ChangeSizeGuard",
    "CiGuard",
    "DiskGuard",
    "Facts",
    "Guard",
    "ParityGuard",
    "PostgresCapacity",
    "ReleaseValue",
    "StructureGuard",
    "Window",
    "WindowGuard",
]


class CiGuard(Block):
    """Refuse a commit that is not green on GitHub: check runs and commit statuses."""

    repo: str = Field(pattern=r"^[^/\s]+/[^/\s]+$", description="owner/name")
    commit: str | None = Field(
        None,
        pattern=r"^[^\s~^:?*\[\\-][^\s~^:?*\[\\]*$",
        description="Commit, tag or branch; the tag with the version's name when left out.",
    )
    required: tuple[str, ...] = Field(
        (), description="Checks that must be there and green; every check that is there if empty."
    )
    ignore: tuple[str, ...] = Field(
        (), description="Names or globs of checks that do not count, such as the deploy's own job."
    )
    base_url: str = Field(
        "https://api.github.com",
        pattern=r"^https?://",
        description="The API; of GitHub Enterprise https://HOST/api/v3.",
    )
    token_env: str = Field("GITHUB_TOKEN", description="Environment variable with the token.")
    deadline: Duration = Field(30.0, description="How long GitHub may take to answer.")


class ChangeSizeGuard(Block):
    """Refuse a release that changes more than this of what is live."""

    files: Whole | None = Field(
        None, ge=0, description="Files added, changed and removed, on the host with the most."
    )
    size: Size | None = Field(
        None, alias="bytes", description="Size of those files, on the host with the most."
    )
    commits: Whole | None = Field(
        None, ge=0, description="Commits between the live version and the new one."
    )
    checkout: str = Field(
        ".", description="Git checkout that has both, relative to the plan; asked for `commits`."
    )


class Window(Block):
    """A span of time: on certain days of every week, or from one date to another."""

    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = Field(
        (), description="Days of the week; every day when left out."
    )
    start: str = Field(
        "00:00",
        alias="from",
        description='Quoted: a time, "15:00", or a date, "2026-12-20", with a time or without.',
    )
    end: str = Field(
        "24:00",
        alias="to",
        description="As `from`, not included; a date without a time is included.",
    )
    why: str = Field("", description="Shown when it refuses.")


class WindowGuard(Block):
    """Refuse within a freeze, and outside of the hours in which deploys are welcome."""

    zone: str = Field("UTC", description="Time zone of all its times, as in Europe/Berlin.")
    freeze: tuple[Window, ...] = Field((), description="No deploy begins in any of these.")
    allow: tuple[Window, ...] = Field((), description="Deploys begin only in one of these.")


class ParityGuard(Block):
    """Refuse what was tested under other conditions than it would run under."""

    facts: str | Facts = Field(description="Facts of this environment, or a file with them.")
    tested_in: str | Facts = Field(description="Facts of where the release was tested.")
    allow: tuple[str, ...] = Field(
        (), description="Names or globs that may differ, such as `limits.workers`."
    )


class ReleaseValue(Block):
    """A number that stands in a file of the release."""

    file: str = Field(
        pattern=r"^[^/]", description="Path in the release: JSON, YAML, TOML, INI or KEY=VALUE."
    )
    key: str = Field(description="Dotted key in it, such as `pool.max`.")


class Capacity(Block):
    """What one instance of a component needs."""

    instances: Whole = Field(1, ge=1, description="How many run on one host.")
    connections: Whole | ReleaseValue | None = Field(
        None, description="Size of its pool of database connections, or where the release says it."
    )
    memory: Size | None = Field(None, description="Memory it takes.")
    open_files: Whole | None = Field(None, ge=0, description="Files and sockets it has open.")
    disk: Size | None = Field(None, description="What it writes beside its tree, per host.")


class PostgresCapacity(Block):
    """How many connections a PostgreSQL server gives."""

    max_connections: Whole | None = Field(
        None, ge=1, description="As in its configuration; asked by the `postgres` checks if not."
    )
    reserved: Whole | None = Field(
        None, ge=0, description="Reserved for superusers; 3, as PostgreSQL has it."
    )
    others: Whole = Field(0, ge=0, description="Connections that other programs hold.")


class CapacityGuard(Block):
    """Refuse a release that needs more than there is."""

    postgresql: PostgresCapacity | None = Field(
        None, description="The server that all `connections` go to."
    )
    components: dict[ComponentName, Capacity] = Field(
        min_length=1, description="What components need, by name."
    )
    keep_memory: Size | None = Field(None, description="Memory of a host that is for others.")


def _opens(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class BackupGuard(Block):
    """Refuse while there is no backup to go back to."""

    path: str = Field(description="Glob of the backups; the newest counts.")
    hosts: tuple[str, ...] = Field((), description="Hosts or groups that have it; all when empty.")
    here: bool = Field(False, description="It is on this machine, relative to the plan.")
    younger_than: Duration = Field(description="How old it may be.")
    least: Size | None = Field(None, description="The least it must have.")
    opens: Annotated[
        bool | Argv, BeforeValidator(_opens, json_schema_input_type=bool | list[str])
    ] = Field(
        True,
        description="Read it to its end, by its kind; or a command with `{path}` in it that does.",
    )
    deadline: Duration = Field(60.0, description="How long opening it may take.")


class StructureGuard(Block):
    """Refuse a release that lacks files, or takes away what must stay."""

    component: str | None = Field(None, description="Of this component; of each when left out.")
    needs: tuple[str, ...] = Field((), description="Paths that the release must have.")
    protect: tuple[str, ...] = Field((), description="Globs of live paths that never go.")
    removed: Whole | None = Field(None, ge=0, description="How many live paths may go at once.")


class ApprovalGuard(Block):
    """Refuse until a person says yes on a terminal, or a token does where there is none."""

    token_env: str = Field(
        "DEPLOYGUARD_APPROVAL", description="Environment variable with the token."
    )
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the token; without it only a terminal will do.",
    )
    deadline: Duration = Field(600.0, description="How long the person has.")


class BaselineGuard(Block):
    """Refuse to deploy onto a system that is not healthy already."""

    fix: bool = Field(False, description="This deploy is the fix; as `--fix` says for one run.")
    allow: tuple[str, ...] = Field(
        (), description="Components, or checks as component/name, that may be unhealthy before."
    )


class DiskGuard(Block):
    """Refuse when the file system of ``path`` has less than this free."""

    path: AbsolutePath = Field(description="Any path on the file system in question.")
    free: Size | None = Field(None, description="Bytes that must stay free after the deploy.")
    inodes: Whole | None = Field(None, ge=0, description="Inodes that must stay free.")


class Guard(OneOf):
    """A question asked before anything is touched; a refusal changes nothing."""

    KINDS: ClassVar[tuple[str, ...]] = (
        "ci",
        "change_size",
        "window",
        "parity",
        "capacity",
        "backup",
        "structure",
        "approval",
        "baseline",
        "disk",
    )
    ci: CiGuard | None = Field(None, description="The commit is green on GitHub.")
    change_size: ChangeSizeGuard | None = Field(None, description="How much changes at once.")
    window: WindowGuard | None = Field(None, description="No freeze, and a welcome hour.")
    parity: ParityGuard | None = Field(None, description="Tested under the same conditions.")
    capacity: CapacityGuard | None = Field(None, description="It needs no more than there is.")
    backup: BackupGuard | None = Field(None, description="There is a backup that opens.")
    structure: StructureGuard | None = Field(
        None, description="What the release must have, and what must stay."
    )
    approval: ApprovalGuard | None = Field(
        None, description="Somebody says yes; `approval: {}` is enough on a terminal."
    )
    baseline: BaselineGuard | None = Field(
        None, description="What is live is healthy; `baseline: {}` is enough."
    )
    disk: DiskGuard | None = Field(None, description="Space on a file system.")

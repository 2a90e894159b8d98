"""Questions that are asked before anything is touched: the kinds of guards."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from deployguard.plan.block import Block, OneOf
from deployguard.plan.quantity import AbsolutePath, Duration, Size, Whole

__all__ = ["BaselineGuard", "ChangeSizeGuard", "CiGuard", "DiskGuard", "Guard"]


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

    KINDS: ClassVar[tuple[str, ...]] = ("ci", "change_size", "baseline", "disk")
    ci: CiGuard | None = Field(None, description="The commit is green on GitHub.")
    change_size: ChangeSizeGuard | None = Field(None, description="How much changes at once.")
    baseline: BaselineGuard | None = Field(
        None, description="What is live is healthy; `baseline: {}` is enough."
    )
    disk: DiskGuard | None = Field(None, description="Space on a file system.")

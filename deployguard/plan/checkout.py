"""The revision that a git checkout is brought to, and the rules about it.

The host runs git with what stands here, so a name that could be an option, a range or a program is
refused before any host hears of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import Field

from deployguard.onhost.trees.patterns import Patterns
from deployguard.plan.block import Block
from deployguard.plan.document import Finding, Path
from deployguard.plan.quantity import Duration

if TYPE_CHECKING:
    from deployguard.plan.model import Component

__all__ = ["Git", "checkout_findings"]

# git-check-ref-format(1), and nothing that a shell or git itself would read as more than a name.
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._/+@#=-]*[A-Za-z0-9_+@#=-])?")
_SCHEMES = ("https", "http", "ssh", "git", "file")
#: ``deploy@git.example.com:shop.git``
_SCP = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9.\[\]:_-]+:[^:].*")


class Git(Block):
    """What a checkout is brought to, and where its commits come from."""

    revision: str | None = Field(
        None, description="Branch, tag or commit; the plan's `version` when left out."
    )
    branch: str | None = Field(
        None, description="Local branch that it is then on; a detached HEAD when left out."
    )
    repository: str | None = Field(
        None, description="Local repository, relative to the plan file, that is sent from."
    )
    remote: str = Field("origin", description="Remote that the host fetches from.")
    url: str | None = Field(None, description="Where the remote is, for a host with no checkout.")
    rewritten: Literal["refuse", "accept"] = Field(
        "refuse", description="A branch without what is live in it, or a tag that was moved."
    )
    timeout: Duration = Field(300.0, description="How long a fetch may take.")


def checkout_findings(component: Component, where: Path, base: str | None) -> Iterator[Finding]:
    """What is wrong with a component's ``git`` block, or with what cannot stand beside it."""
    if component.layout != "git":
        if component.git is not None:
            yield Finding(
                (*where, "git"),
                f"git is for layout: git, and this component has {component.layout}",
                "remove it, or write layout: git",
                on_key=True,
            )
        if component.artifact is None:
            yield Finding(
                where, '"artifact" is missing', "The release; its path alone is enough", True
            )
        return
    if component.artifact is not None:
        yield Finding(
            (*where, "artifact"),
            "a checkout gets its files from its commits and has no artifact",
            "remove it, or use another layout",
            on_key=True,
        )
    if component.owner == "artifact":
        yield Finding((*where, "owner"), "there is no artifact to take owners from", "name a user")
    for index, entry in enumerate(component.keep):
        if _reaches_git(entry):
            yield Finding(
                (*where, "keep", index),
                f'"{entry}" reaches into .git, which goes with its checkout',
                "name what is beside it",
            )
    if component.git is not None:
        yield from _source(component.git, (*where, "git"), base)


def _reaches_git(entry: str) -> bool:
    try:
        return entry.startswith(".git/") or Patterns([entry.rstrip("/")]).match(".git")
    except ValueError:
        return False  # reported where globs are


def _source(git: Git, where: Path, base: str | None) -> Iterator[Finding]:
    for field in ("revision", "branch", "remote"):
        name = getattr(git, field)
        if name is not None and not _is_name(name):
            yield Finding(
                (*where, field),
                f'"{name}" cannot be the name of a {field}',
                "write one name, as git branch and git tag list them",
            )
    if git.branch is not None and git.branch.startswith("refs/"):
        yield Finding((*where, "branch"), "is a full name", "write it without refs/heads/")
    if git.url is not None:
        yield from _url(git.url, (*where, "url"))
    if git.repository is None:
        return
    for field in ("remote", "url"):
        if field in git.model_fields_set and getattr(git, field) is not None:
            yield Finding(
                (*where, field),
                f"{field} is for a host that fetches, and repository is sent from here",
                "remove one of the two",
                on_key=True,
            )
    if base is not None and not os.path.isdir(os.path.join(base, git.repository)):
        yield Finding(
            (*where, "repository"),
            f'the repository "{git.repository}" is not there',
            "paths are relative to the plan file; . is the folder it is in",
        )


def _is_name(name: str) -> bool:
    return (
        _NAME.fullmatch(name) is not None
        and not any(bad in name for bad in ("..", "//", "@{", ".lock/", "/."))
        and not name.endswith((".lock", "."))
    )


def _url(url: str, where: Path) -> Iterator[Finding]:
    hint = "write https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH"
    try:
        parts = urlsplit(url)
        # Of a web address the user may be a token; of ssh it is the account.
        secret = parts.password or (parts.scheme.startswith("http") and parts.username)
    except ValueError:
        yield Finding(where, f'"{url}" is not a URL', hint)
        return
    if secret:
        # Not repeated: it is the secret.
        yield Finding(
            where,
            "has a password or a token in it, which would stand in .git/config and in ps",
            "use a deploy key, or a credential helper on the host",
        )
        return
    plain = parts.scheme in _SCHEMES and bool(parts.netloc or parts.path)
    if re.search(r"\s", url) or not (plain or url.startswith("/") or _SCP.fullmatch(url)):
        yield Finding(where, f'"{url}" is not a URL that git fetches from', hint)

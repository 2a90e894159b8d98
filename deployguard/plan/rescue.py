"""The block `rescue`: what happens beside the restore when a deploy fails."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from deployguard.plan.block import Block
from deployguard.plan.quantity import Duration, Size, Span

__all__ = [
    "Evidence",
    "GitHubIncident",
    "Incident",
    "Postmortem",
    "Rescue",
    "Severity",
    "Target",
    "Targets",
]


class Evidence(Block):
    """Where the forensics land, and how much of them."""

    directory: str = Field("forensics-out", description="On the controller, relative to the plan.")
    max_bytes: Size = Field(64 * 1024**2, description="For one host.")
    max_seconds: Duration = Field(60.0, description="For one host.")
    critical_seconds: Duration = Field(
        3.0, description="Of it before the restore begins: what the restore would destroy."
    )


class GitHubIncident(Block):
    """An issue on GitHub or GitHub Enterprise."""

    repo: str = Field(pattern=r"^[^/\s]+/[^/\s]+$", description="owner/name")
    labels: tuple[str, ...] = Field(("incident", "rollback"), description="Labels of the issue.")
    base_url: str = Field(
        "https://api.github.com",
        pattern=r"^https?://",
        description="The API; of GitHub Enterprise https://HOST/api/v3.",
    )
    token_env: str = Field("GITHUB_TOKEN", description="Environment variable with the token.")


class Severity(Block):
    """How bad a failed deploy of this plan can be."""

    at_most: Literal["critical", "high", "medium", "low"] = Field(
        "critical", description="The worst it can be, for a staging environment for example."
    )
    canary: tuple[str, ...] = Field(
        (), description="Hosts or groups without users that matter: medium, if only they were hit."
    )


class Target(Block):
    """How soon somebody has to act; what is left out is as it is by default."""

    acknowledge: Span | None = Field(
        None, description="Until somebody says that they are at it; or `next_business_day`."
    )
    resolve: Span | None = Field(
        None, description="Until the cause is gone; or `next_business_day`."
    )
    escalate: Span | None = Field(
        None, description="From one escalation of what is overdue to the next."
    )


def _default() -> Target:
    return Target.model_validate({})


class Targets(Block):
    """The target of each severity."""

    critical: Target = Field(default_factory=_default, description="15 min, 1 h, 15 min.")
    high: Target = Field(default_factory=_default, description="30 min, 4 h, 1 h.")
    medium: Target = Field(default_factory=_default, description="2 h, 24 h, 4 h.")
    low: Target = Field(
        default_factory=_default,
        description="The next business day, a week, a day.",
    )
    zone: str = Field("UTC", description="Where business days begin and end, as in Europe/Berlin.")


class Incident(Block):
    """Where an incident is opened, how bad it is, and how soon somebody has to act."""

    github: GitHubIncident | None = Field(None, description="An issue on GitHub.")
    severity: Severity = Field(
        default_factory=lambda: Severity.model_validate({}), description="How bad it can be."
    )
    targets: Targets = Field(
        default_factory=lambda: Targets.model_validate({}),
        description="How soon somebody has to act.",
    )


class Postmortem(Block):
    """The post-mortem of what has hit users; a deploy that was rolled back leaves a draft."""

    directory: str = Field(
        "contexts/retrospectives/deployment-rollbacks",
        description="Where the drafts go, relative to the plan.",
    )
    due: Duration = Field(48 * 3600.0, description="From the detection until it has to be done.")
    draft: bool = Field(True, description="Whether one is wanted at all.")


class Rescue(Block):
    """What happens beside the restore when a deploy fails."""

    evidence: Evidence = Field(
        default_factory=lambda: Evidence.model_validate({}), description="What is kept of it."
    )
    incident: Incident = Field(
        default_factory=lambda: Incident.model_validate({}), description="Who is told."
    )
    postmortem: Postmortem = Field(
        default_factory=lambda: Postmortem.model_validate({}),
        description="The draft of a post-mortem.",
    )
    redact: tuple[str, ...] = Field(
        (), description="Environment variables whose values are secrets to redact."
    )

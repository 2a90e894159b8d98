"""The block `respond`: what `incident respond` asks, does and can take back."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from deployguard.plan.block import Block
from deployguard.plan.quantity import Argv, Duration

__all__ = ["Containment", "Respond", "ResponsePrometheus", "Writes"]


class Containment(Block):
    """A step that limits the damage, with its inverse."""

    name: str = Field(description="Name in the incident and in reports; each once.")
    severity: Literal["critical", "high", "medium", "low"] = Field(
        "critical", description="At this severity, and at a worse one. Of `contain` only."
    )
    run: Argv = Field(description="Program and arguments.")
    undo: Argv | None = Field(None, description="The inverse; needed unless `undo_less: reason`.")
    undo_less: str | None = Field(None, description="Why no inverse is needed.")
    hosts: tuple[str, ...] = Field((), description="Hosts or groups it runs on; all when empty.")
    once: bool = Field(False, description="Only on the first of these hosts that answers.")
    env: dict[str, str] = Field(default_factory=dict, description="Added environment.")
    timeout: Duration = Field(60.0, description="How long it may take.")


class ResponsePrometheus(Block):
    """The Prometheus that is asked in an incident."""

    url: str = Field(pattern=r"^https?://", description="Its address, as its host reaches it.")
    host: str | None = Field(None, description="The host that asks it; the first of the plan.")
    up: str = Field("up", description="Query of what is up: every series has to be 1.")
    error_rate: str | None = Field(
        None, description="Query of one number, shown as it is and as it was before."
    )
    max: float | None = Field(None, description="More than this of `error_rate` is a finding.")
    token_env: str | None = Field(None, description="Environment variable with a bearer token.")
    verify_tls: bool = Field(True, description="Whether the certificate has to be valid.")


class Writes(Block):
    """How much was written since a moment, which a rollback of the data would lose."""

    run: Argv = Field(
        description="Prints one number; `DEPLOYGUARD_SINCE` and `DEPLOYGUARD_SINCE_EPOCH` are set."
    )
    unit: str = Field("rows", description="What is counted, in a word.")
    hosts: tuple[str, ...] = Field((), description="Asked on the first of these that answers.")
    timeout: Duration = Field(10.0, description="How long it may take.")


class Respond(Block):
    """What `incident respond` asks, does and can take back."""

    deadline: Duration = Field(15.0, gt=0, description="For what the hosts are asked.")
    prometheus: ResponsePrometheus | None = Field(None, description="Asked in the assessment.")
    writes: Writes | None = Field(None, description="What a way back would put at risk.")
    contain: tuple[Containment, ...] = Field(
        (), description="Steps that limit the damage until it is over."
    )
    mitigate: tuple[Containment, ...] = Field(
        (), description="Steps that make it bearable where neither way back nor fix will do."
    )

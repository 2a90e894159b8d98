"""What every check has in common."""

from __future__ import annotations

from pydantic import Field

from deployguard.plan.block import Block
from deployguard.plan.quantity import Duration

__all__ = ["CheckOptions"]


class CheckOptions(Block):
    """What every check has in common. Durations are seconds."""

    name: str | None = Field(None, description="Name in reports; the kind when left out.")
    critical: bool = Field(True, description="A failure fails the deploy; else it is a finding.")
    timeout: Duration = Field(5.0, description="For one sample.")
    interval: Duration = Field(0.5, description="Between samples.")
    deadline: Duration = Field(30.0, description="To become healthy, from the start.")
    min_healthy_time: Duration = Field(
        0.0, description="Soak: healthy without a break, and without a restart, for this long."
    )

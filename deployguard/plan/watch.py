"""The block `watch`: how a plan's checks are looked at after the deploy, and who is told when."""

from __future__ import annotations

from pydantic import Field

from deployguard.plan.block import Block
from deployguard.plan.quantity import Duration, Whole

__all__ = ["Watch"]


class Watch(Block):
    """How the checks are looked at after the deploy, and when somebody is told."""

    window: Duration = Field(600.0, gt=0, description="For how long; `--for` replaces it.")
    interval: Duration = Field(15.0, ge=1, description="From one look to the next.")
    failures: Whole = Field(
        2, ge=1, description="Looks in a row until a check fires, and until it is over."
    )
    group_wait: Duration = Field(10.0, description="From the first that fires until it is told.")
    group_interval: Duration = Field(60.0, description="From one message to the next of a group.")
    repeat_interval: Duration = Field(
        4 * 3600.0, gt=0, description="Until it is told again, while it goes on."
    )

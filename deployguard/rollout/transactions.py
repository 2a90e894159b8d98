"""Ids of transactions."""

from __future__ import annotations

import secrets
import time

from deployguard.plan.model import Plan

__all__ = ["new_transaction"]


def new_transaction(plan: Plan, now: float) -> str:
    """``20261121T034622-shop-7f3a1c``: sorts by time, names the plan, never comes twice."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
    return f"{stamp}-{plan.name[:32]}-{secrets.token_hex(3)}"

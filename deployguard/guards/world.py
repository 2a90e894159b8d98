"""The world as it is: what guards ask for beyond the hosts."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from deployguard.delivery import Rejected, Undelivered
from deployguard.github.checks import Commit, commit_reports
from deployguard.guards.base import Ask, Question, Unknown, World
from deployguard.guards.git import count_commits
from deployguard.onhost.queries.questions import answer_all
from deployguard.onhost.system import System
from deployguard.plan.model import CiGuard
from deployguard.secret import Secret

__all__ = ["real_world"]


def real_world(ask: Ask | None = None) -> World:
    """GitHub, git, the clock, the environment of this process, and whoever is there."""
    return World(
        environ=os.environ,
        now=time.time,
        commit=_commit,
        count_commits=count_commits,
        look=_look,
        ask=ask,
    )


def _look(question: Question) -> Mapping[str, Any]:
    found: Mapping[str, Any] = answer_all([{**question, "id": "here"}], System())["here"]
    return found


def _commit(spec: CiGuard, ref: str) -> Commit:
    secret = Secret.from_environment(spec.token_env)
    if secret is None:
        raise Unknown(f"${spec.token_env} is not set", f"export {spec.token_env}")
    try:
        return commit_reports(
            spec.base_url,
            spec.repo,
            ref,
            secret.reveal,
            clock=time.monotonic,
            sleep=time.sleep,
            deadline=spec.deadline,
        )
    except Undelivered as failure:
        raise Unknown(failure.reason, "deploy again when GitHub answers") from None
    except Rejected as refusal:
        raise Unknown(refusal.reason, refusal.hint) from None

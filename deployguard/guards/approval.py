"""A person says yes on a terminal, or a token does where there is none.

Asked last, when nothing else refuses: nobody should have to approve what cannot be deployed. What
is approved is what was looked at, because the hosts are locked meanwhile.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

from deployguard.guards.base import Answers, Consent, Known, Verdict, some
from deployguard.plan.model import ApprovalGuard

__all__ = ["consent", "judge"]


def judge(spec: ApprovalGuard, known: Known, answers: Answers) -> Iterator[Verdict]:
    """One verdict for all hosts. A preview asks nobody, and says whether somebody can be asked."""
    token = known.world.environ.get(spec.token_env)
    if token and spec.sha256:
        digest = hashlib.sha256(token.strip().encode()).hexdigest()
        if hmac.compare_digest(digest, spec.sha256):
            yield Verdict("approval", True, f"approved by the token in ${spec.token_env}")
        else:
            words = f"${spec.token_env} is not the token that the plan asks for"
            yield Verdict(
                "approval", False, f"{words} (mend the secret, or its sha256 in the plan)"
            )
    elif known.world.ask is None:
        words = "nobody can be asked: there is no terminal"
        if spec.sha256:
            words += f", and ${spec.token_env} is not set"
        yield Verdict("approval", False, f"{words} (run it on a terminal, or give the token)")
    elif known.foresee:
        yield Verdict("approval", True, "will be asked for on the terminal")
    elif known.world.ask(consent(spec, known)):
        yield Verdict("approval", True, f"approved by {known.owner} on the terminal")
    else:
        yield Verdict("approval", False, f"{known.owner} did not approve")


def consent(spec: ApprovalGuard, known: Known) -> Consent:
    """What is asked for: the environment has to be typed, so that no finger says it by itself."""
    plan = known.plan
    lines = [f"{plan.name} {known.version} is about to be deployed to {plan.environment}"]
    moves: dict[str, list[str]] = {}
    for host in known.hosts:
        for name in host.components:
            old = host.live(name).get("version") or "nothing"
            moves.setdefault(f"{name}: {old} → {known.version}", []).append(host.name)
    lines += [f"  {move} on {some(hosts, 6)}" for move, hosts in moves.items()]
    lines += [f"  overridden: {guard}: {reason}" for guard, reason in known.overrides.items()]
    return Consent(tuple(lines), plan.environment, spec.deadline)

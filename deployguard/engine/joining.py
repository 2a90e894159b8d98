"""How the second entry of a host's job joins what the first has left on the host.

The first may have been in the middle of anything when its worker died, and may even be alive, cut
off from everybody but the host. Whatever it was, the host is taken over under a higher epoch, and
its own journal says where it stands:

* never begun: the job goes on as if nothing had been;
* begun and not voted: the deploy has failed here. The host has dropped what was staged, or waits
  for the controller to have it restored, or held, as with any host that failed;
* voted: the vote stands, if nobody but our own jobs has ever taken the host over. Somebody else may
  have read it since and decided without us, and then it is no vote for us any more.

That nobody else has, is known by the epoch: ours is noted in the journal before anyone may count on
it, and the next one is exactly one higher. Whoever takes over takes an epoch above all that there
are, so either theirs is refused, or ours is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployguard.errors import ActionFailed
from deployguard.rollout import transaction
from deployguard.rollout.member import Context, Member

__all__ = ["Joining", "join", "take_over"]

_UNTOUCHED = ("begun", "staged", "aborted")


@dataclass(frozen=True)
class Joining:
    """``lost`` says why no step forward is possible here, empty where one is; ``ended`` that the
    host has ended by itself, and has nothing left to restore."""

    lost: str = ""
    ended: bool = False


def join(context: Context, member: Member, held: int) -> Joining:
    """Find out where the host stands, and hold it. There is a connection already.

    ``held`` is the epoch under which an earlier entry is known to have held it. Raises
    :class:`~deployguard.errors.HostFailure`.
    """
    status = member.wire().call("status")
    report = _of(status["unfinished"], context.transaction)
    if report is None:
        return _ended(member, _of(status["ended"], context.transaction))
    member.begun = True
    if report["state"] == "damaged":
        member.state = "damaged"
        return Joining(f"its journal is damaged: {report.get('error', '')}")
    if report["state"] == "prepared" and not report["going_back"] and not report["held"]:
        if held != report["epoch"]:
            return _taken_over(member)
        try:
            take_over(context, member, held + 1)
        except ActionFailed as error:
            if error.kind != "stale_epoch":
                raise
            return _taken_over(member)
        return _again(context, member)
    take_over(context, member, int(report["epoch"] or 0) + 1)
    member.touched = member.state not in _UNTOUCHED
    if report["held"]:
        member.state, member.restored = "held", {"held": report["held"]}
    return Joining(f"its worker was lost, and it was left {member.state}")


def take_over(context: Context, member: Member, epoch: int) -> dict[str, Any]:
    """Hold the host under this epoch; ``member`` has its state then. Raises
    :class:`~deployguard.errors.ActionFailed`, of kind ``stale_epoch`` where somebody is above it.
    """
    answer = member.call(
        "adopt", {"transaction": context.transaction, "epoch": epoch, "owner": context.owner}
    )
    # The controller takes several hosts over, each under an epoch of its own.
    context.epoch = max(context.epoch, epoch)
    return answer


def _again(context: Context, member: Member) -> Joining:
    """It has voted, and is ours again."""
    member.touched = True
    if member.state not in ("prepared", "committed"):
        return Joining(f"its worker was lost, and it was left {member.state}")
    versions = {name: context.sources[name].version for name in member.order}
    hello, environ = member.wire().hello, context.world.environ
    member.checks = transaction.checks_of(member.components, versions, hello, environ)
    return Joining()


def _taken_over(member: Member) -> Joining:
    member.state = "taken_over"
    member.touched = True
    return Joining("its worker was lost, and somebody else has taken it over since", ended=True)


def _ended(member: Member, report: Mapping[str, Any] | None) -> Joining:
    if report is None:
        return Joining()
    member.begun = True
    member.state = str(report["state"])
    member.touched = member.state != "aborted"
    member.restored = {"state": member.state, "verified": True, "healthy": True}
    return Joining(f"its worker was lost, and it is {member.state} already", ended=True)


def _of(reports: list[dict[str, Any]], transaction_id: str) -> dict[str, Any] | None:
    return next((r for r in reports if r["transaction"] == transaction_id), None)

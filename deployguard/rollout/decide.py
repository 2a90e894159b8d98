"""The decisions of a rollout, and nothing else: pure functions of what is known.

A decision is made once, by the coordinator, from the votes; it is durable in the coordinator's
journal before any host hears of it. No record means abort.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from deployguard.errors import ExitCode
from deployguard.rollout.outcome import HostOutcome

__all__ = ["Decision", "Verdict", "after_batch", "decision_for", "exit_code"]

Verdict = Literal["go_on", "abort"]
Decision = Literal["commit", "abort", "in_doubt"]


def after_batch(
    batch: Collection[str], failed: Collection[str], max_fail_percentage: float
) -> Verdict:
    """Whether the rollout goes on after a batch, as Ansible counts it.

    The percentage must be exceeded, not equalled, and it is of the batch. Hosts that could not be
    reached count as failed, and a host that was rescued still counts: a rescue is not a success.
    """
    if not failed:
        return "go_on"
    share = 100.0 * len(failed) / max(len(batch), 1)
    return "abort" if share > max_fail_percentage else "go_on"


def exit_code(hosts: Collection[HostOutcome]) -> ExitCode:
    """What the hosts' last records add up to.

    Committed everywhere is 0. A host whose state after the rescue is not known to be good needs a
    person (4). Hosts that wait for a decision are in doubt (7), and what becomes of hosts that
    somebody else has taken over is theirs to say (7). Otherwise the old version is back.
    """
    if all(host.state == "committed" for host in hosts):
        return ExitCode.COMMITTED
    if any(_needs_person(host) for host in hosts):
        return ExitCode.NEEDS_PERSON
    if any(host.state in ("prepared", "taken_over") for host in hosts):
        return ExitCode.INTERRUPTED
    return ExitCode.ROLLED_BACK


def _needs_person(host: HostOutcome) -> bool:
    if host.state in ("held", "stuck", "lost", "armed", "switched", "damaged"):
        return True
    return host.state == "restored" and not (host.verified and host.healthy)


def decision_for(
    recorded: str | None,
    states: Mapping[str, str],
    unreachable: Iterable[str],
    *,
    all_or_nothing: bool = True,
    sent_back: bool = False,
    first_takeover: bool = True,
) -> Decision:
    """The decision for one transaction, from the record and the hosts' states. Pure.

    ``states`` are the journal states of the hosts that took part and answered, after they were
    taken over. ``all_or_nothing`` is false for a plan that goes on without some of its hosts.

    A recover without the record may have decided before us, and its abort outweighs a commit that
    was recorded and told to nobody: it had fenced every host off. ``sent_back`` says that a host
    which had voted was restored in that way; ``first_takeover`` that one which has voted was never
    taken over before us, so that nobody can have had the answer of every host.
    """
    if "committed" in states.values():
        return "commit"
    if recorded == "abort" or (sent_back and (all_or_nothing or not list(unreachable))):
        return "abort"
    if recorded == "commit":
        return "commit" if first_takeover or not list(unreachable) else "in_doubt"
    if all_or_nothing and any(state in ("restored", "aborted") for state in states.values()):
        # A host that went back can only have done so because no commit was told to it.
        return "abort"
    return "in_doubt" if list(unreachable) else "abort"

"""What a host does with a transaction when no controller tells it.

The same for the program whose connection ended, and for the dead-man that takes its place. Where
nothing was touched, the staged tree is dropped at once. Where the undo is armed, it waits for the
end of the lease, since the controller may come back, and restores. Where the host has voted it
waits for the decision, which needs no process; but a restore that was begun is one that somebody
decided on, and is brought to its end.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Optional

from deployguard.onhost.places import State
from deployguard.onhost.request import RequestError
from deployguard.onhost.state import lease, locks, machine
from deployguard.onhost.state.deadman import Deadman
from deployguard.onhost.state.records import JournalDamaged
from deployguard.onhost.state.standing import epoch_of
from deployguard.onhost.system import System
from deployguard.onhost.transaction.participant import Participant
from deployguard.onhost.transaction.tenure import TAKEOVER_SECONDS, ignore

_POLL = 0.1
#: Whoever takes over waits for the lock this long. One that has not come by then has died.
_TAKEOVER = TAKEOVER_SECONDS + 5.0
#: Evidence that the restore destroys; the service is down meanwhile.
_CRITICAL_SECONDS = 3.0
_REST_SECONDS = 30.0
_EVIDENCE_BYTES = 64 * 1024 * 1024


def finish(participant: Participant, system: System) -> bool:
    """End what may be ended. False when another controller took the transaction over."""
    try:
        return _finish(participant, system)
    except RequestError as error:
        if error.kind == "stale_epoch":  # It came between our look and the step.
            return False
        raise


def _finish(participant: Participant, system: System) -> bool:
    if participant.held:
        return True
    if participant.state not in machine.TERMINAL:
        lease.unattended(participant.folder, system)
    if participant.state in machine.UNTOUCHED:
        participant.abort()
    elif participant.state in machine.LEASED or participant.restoring:
        while lease.left(participant.folder, system) > 0:
            if participant.fenced():
                return False
            system.sleep(min(_POLL, lease.left(participant.folder, system)))
        if participant.fenced():
            return False
        _restore(participant)
    elif participant.state in machine.TERMINAL:
        participant.finish()
    return True


def _restore(participant: Participant) -> None:
    """As the controller does it: nobody will know why the deploy failed without the evidence."""
    bounds = {"max_bytes": _EVIDENCE_BYTES}
    participant.gather(dict(bounds, stage="critical", max_seconds=_CRITICAL_SECONDS))
    participant.restore()
    participant.gather(dict(bounds, stage="rest", max_seconds=_REST_SECONDS))
    participant.finish()


def main(state_directory: str, identifier: str) -> int:
    """The dead-man's life. Returns the exit status; systemd starts it again unless it is 0."""
    # The terminal it was armed from goes away.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o022)
    state, system = State(state_directory), System()
    folder = state.transaction(identifier)
    try:
        _watch(state, folder, system)
    except JournalDamaged as error:
        print("deployguard: %s: %s" % (identifier, error), file=sys.stderr)  # noqa: T201
    Deadman(state, folder, system).disarm()
    return 0


def _watch(state: State, folder: str, system: System) -> None:
    fenced_at: Optional[float] = None
    while os.path.isdir(folder):
        alive = locks.keep_alive(folder)
        if alive is None:
            # Somebody is at work. Not blocked in flock: a takeover waits for the same lock.
            if lease.left(folder, system) > 0 or not locks.end_frozen(folder, system):
                system.sleep(_POLL)
            continue
        participant = Participant(state, system, ignore)
        try:
            participant.reopen(folder, alive)
            if not participant.fenced():
                fenced_at = None
            elif fenced_at is None:
                fenced_at = system.monotonic()
            elif system.monotonic() - fenced_at > _TAKEOVER:
                participant.epoch = epoch_of(folder)
            if not participant.fenced() and finish(participant, system):
                return
        finally:
            participant.close()
        system.sleep(_POLL)

"""The states of one host's part in a transaction, as one table.

A participant begins by taking the lock and recording what is live (``begun``). It builds the new
tree beside the old one (``staged``) and makes the whole undo procedure durable (``armed``). Only
then is anything live touched; when every step is done it is ``switched``. A healthy verdict is its
vote (``prepared``): from here it may no longer decide alone, because another host may already have
been told to commit. The coordinator's decision ends it, as ``committed`` or ``restored``; before
``armed`` there is nothing to undo and it ends as ``aborted``. An undo step that fails ends in
``stuck``, from which only another restore leads out, because everything is still there.

The table is pure: :func:`step` answers the next state or raises :class:`IllegalEvent`, and an
illegal event changes nothing.
"""

from __future__ import annotations

from typing import Dict, FrozenSet, Tuple

IDLE = "idle"
BEGUN = "begun"
STAGED = "staged"
ARMED = "armed"
SWITCHED = "switched"
PREPARED = "prepared"
COMMITTED = "committed"
RESTORED = "restored"
ABORTED = "aborted"
STUCK = "stuck"

BEGIN = "begin"
STAGE = "stage"
ARM = "arm"
SWITCH = "switch"
PREPARE = "prepare"
COMMIT = "commit"
ABORT = "abort"
RESTORE = "restore"
FAIL = "fail"

STATES: Tuple[str, ...] = (
    IDLE,
    BEGUN,
    STAGED,
    ARMED,
    SWITCHED,
    PREPARED,
    COMMITTED,
    RESTORED,
    ABORTED,
    STUCK,
)
EVENTS: Tuple[str, ...] = (
    BEGIN,
    STAGE,
    ARM,
    SWITCH,
    PREPARE,
    COMMIT,
    ABORT,
    RESTORE,
    FAIL,
)

TRANSITIONS: Dict[Tuple[str, str], str] = {
    (IDLE, BEGIN): BEGUN,
    (BEGUN, STAGE): STAGED,
    (BEGUN, ABORT): ABORTED,
    (STAGED, ARM): ARMED,
    (STAGED, ABORT): ABORTED,
    (ARMED, SWITCH): SWITCHED,
    (ARMED, RESTORE): RESTORED,
    (ARMED, FAIL): STUCK,
    (SWITCHED, PREPARE): PREPARED,
    (SWITCHED, RESTORE): RESTORED,
    (SWITCHED, FAIL): STUCK,
    (PREPARED, COMMIT): COMMITTED,
    (PREPARED, RESTORE): RESTORED,
    (PREPARED, FAIL): STUCK,
    (STUCK, RESTORE): RESTORED,
    (STUCK, FAIL): STUCK,
}

#: Nothing more happens here; the lock may be taken by the next transaction.
TERMINAL: FrozenSet[str] = frozenset({COMMITTED, RESTORED, ABORTED})

#: Nothing live was touched: to abort is to drop the staged tree.
UNTOUCHED: FrozenSet[str] = frozenset({IDLE, BEGUN, STAGED})

#: The host restores by itself when the lease ends in one of these.
LEASED: FrozenSet[str] = frozenset({ARMED, SWITCHED})


class IllegalEvent(Exception):
    """The event has no transition from the state; the state stays as it was."""

    def __init__(self, state: str, event: str) -> None:
        super().__init__("%s is not possible in state %s" % (event, state))
        self.state = state
        self.event = event


def step(state: str, event: str) -> str:
    """The state after ``event``. Raises :class:`IllegalEvent`."""
    try:
        return TRANSITIONS[(state, event)]
    except KeyError:
        raise IllegalEvent(state, event) from None

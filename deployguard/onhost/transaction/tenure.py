"""Who has a transaction on this host: its locks, its epoch, its lease and its journal.

A transaction is begun here, or taken over from the process that had it, or gone on with by the host
itself. Whoever has a lower epoch than another is fenced off, and every step asks for that first.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Optional, Sequence

from deployguard.onhost import durable
from deployguard.onhost.faults import Faults
from deployguard.onhost.places import State, write_json
from deployguard.onhost.request import RequestError
from deployguard.onhost.state import lease, locks, machine
from deployguard.onhost.state.deadman import Deadman
from deployguard.onhost.state.journal import Journal
from deployguard.onhost.state.standing import epoch_of, past
from deployguard.onhost.system import System
from deployguard.onhost.transaction import settlement
from deployguard.onhost.transaction.arming import Arming

#: How long a takeover waits for the step that the old process is in.
TAKEOVER_SECONDS = 30.0

Emit = Callable[[Dict[str, Any]], None]


class Tenure:
    """See the module."""

    def __init__(
        self,
        state: State,
        system: System,
        emit: Emit,
        deadman: Callable[[State, str, System], Any] = Deadman,
    ) -> None:
        self._state = state
        self._system = system
        self._emit = emit
        #: What a drill calls to lose the connection.
        self.cut: Callable[[], None] = _stay
        self._journal: Optional[Journal] = None
        self._alive: Optional[int] = None
        self.epoch = 0
        self.lease = 60.0
        self.folder = ""
        self._arming = Arming(deadman, state, system, lambda: self.folder)

    @property
    def state(self) -> str:
        """The state in the journal; ``idle`` before a transaction began here."""
        return self._journal.state if self._journal is not None else machine.IDLE

    def begin(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Take the locks and write the first record. Nothing live is touched."""
        identifier = args["transaction"]
        folder = self._state.transaction(identifier)
        if self._journal is not None or os.path.isdir(folder):
            raise RequestError("state", "transaction %s is already known here" % identifier)
        self.folder = folder
        # The folder and its flock come before the locks: a lock whose transaction cannot be seen
        # to be alive is one that the next transaction may take.
        durable.make_directory(self.folder, 0o700)
        self._alive = locks.keep_alive(self.folder)
        claim = {
            "transaction": identifier,
            "epoch": args["epoch"],
            "owner": args["owner"],
            "plan": args["plan"],
            "since": self._system.now(),
        }
        journal = self._open_journal(args.get("faults"))
        fields = {k: args[k] for k in ("transaction", "epoch", "lease", "owner", "plan", "paths")}
        # Not the host's concern: whoever recovers without the plan has to know.
        fields["all_or_nothing"] = bool(args.get("all_or_nothing", True))
        try:
            locks.acquire(self._state, args["paths"], claim, self._bury)
            lease.renew(self.folder, float(args["lease"]), self._system)
            journal.enter(machine.BEGIN, "begun", **fields)
        except (locks.PathLocked, OSError) as error:
            journal.close()
            self._withdraw(args["paths"], identifier)
            if isinstance(error, locks.PathLocked):
                raise RequestError("locked", str(error), detail=error.holder) from error
            raise
        self._journal = journal
        self.epoch = int(args["epoch"])
        self.lease = float(args["lease"])
        return {"state": self.state}

    def _open_journal(self, wanted: Optional[Sequence[Dict[str, Any]]] = None) -> Journal:
        reach = Faults(wanted, self._emit, self.cut).reach if wanted else None
        return Journal(os.path.join(self.folder, "journal"), self._system.now, reach)

    def _withdraw(self, paths: Sequence[str], identifier: str) -> None:
        """Leave no trace of a transaction that could not begin."""
        for path in paths:
            locks.release(self._state, path, identifier)
        self._leave()
        durable.remove_tree(self.folder)
        self.folder = ""

    def adopt(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Take over a transaction of this host's memory, under a higher epoch."""
        folder = self._state.transaction(args["transaction"])
        if not os.path.isdir(folder):
            raise RequestError("state", "no transaction %s here" % args["transaction"])
        known = epoch_of(folder)
        if known == 0:
            raise RequestError("state", "transaction %s never began here" % args["transaction"])
        if int(args["epoch"]) <= known:
            raise RequestError(
                "stale_epoch", "epoch %s is not above %d" % (args["epoch"], known), detail=known
            )
        # The other process, if one lives, sees the higher epoch and lets go.
        write_json(os.path.join(folder, "epoch"), {"epoch": int(args["epoch"])})
        self.epoch = int(args["epoch"])
        self.folder = folder
        self._alive = self._wait_for(folder)
        if epoch_of(folder) != self.epoch:
            # Two takeovers at once: the one whose epoch stands goes on.
            self._leave()
            raise RequestError("stale_epoch", "another controller takes over just now")
        self._journal = self._open_journal(args.get("faults"))
        begun = self._journal.last("begun")
        self.lease = float(begun["lease"]) if begun else self.lease
        self._journal.append("adopted", epoch=self.epoch, owner=args["owner"])
        self.renew()
        if self.state not in machine.TERMINAL | machine.UNTOUCHED:
            # The old one may have seen that nothing was left for it to do.
            self._arming.at_once(self.lease)
        return self.describe()

    def reopen(self, folder: str, alive: int) -> None:
        """Go on with a transaction under the epoch it has: for the host itself, unattended.

        ``alive`` is the lock of its folder. Fenced where a takeover has begun that does not stand
        in the journal yet. Raises :class:`JournalDamaged`.
        """
        self.folder = folder
        self._alive = alive
        self._journal = self._open_journal()
        claims = [r["epoch"] for r in self._journal.records if r["kind"] in ("begun", "adopted")]
        self.epoch = int(claims[-1]) if claims else 0

    def renew(self) -> None:
        """The controller is there: the lease counts from now."""
        if self.folder:
            lease.renew(self.folder, self.lease, self._system)

    def hand_over(self) -> None:
        """The controller has said that it goes: what has to be undone is undone at once."""
        self.lease = 0.0
        if self.folder:
            lease.end(self.folder)

    @property
    def restoring(self) -> bool:
        """A restore was decided on and begun, and has not come to its end."""
        return (
            self._journal is not None
            and self.state not in machine.TERMINAL | {machine.STUCK}
            and self._journal.last("restoring") is not None
        )

    def _wait_for(self, folder: str) -> int:
        """The ``alive`` lock, once the process that had it has seen that it is fenced off."""
        deadline = self._system.monotonic() + TAKEOVER_SECONDS
        while True:
            taken = locks.keep_alive(folder)
            if taken is not None:
                return taken
            if locks.end_frozen(folder, self._system):
                continue
            if self._system.monotonic() > deadline:
                raise RequestError(
                    "failed",
                    "another process on the host is still at work on this transaction",
                    "wait for it to end its step, then run recover again",
                )
            self._system.sleep(0.05)

    def describe(self) -> Dict[str, Any]:
        """The state, and the record that made it, read back from the journal."""
        journal = self._need()
        last = next((r for r in reversed(journal.records) if "state" in r), {})
        return {"state": journal.state, "record": last, "epoch": self.epoch, **past(journal)}

    def fenced(self) -> bool:
        """Whether somebody has taken the transaction over."""
        return bool(self.folder) and epoch_of(self.folder) > self.epoch

    def close(self) -> None:
        """Let go of the journal and the ``alive`` lock."""
        if self._journal is not None:
            self._journal.close()
        self._leave()

    def _need(self, *states: str) -> Journal:
        if self._journal is None:
            raise RequestError("state", "no transaction has begun")
        if self.fenced():
            raise RequestError("stale_epoch", "another controller took this transaction over")
        if states and self._journal.state not in states:
            raise RequestError(
                "state", "not possible in state %s" % self._journal.state, detail=self.state
            )
        return self._journal

    def _bury(self, identifier: str) -> bool:
        return settlement.bury(self._state, identifier, self._system)

    def _leave(self) -> None:
        if self._alive is not None:
            os.close(self._alive)
            self._alive = None


def ignore(event: Dict[str, Any]) -> None:
    """What happens while nobody listens."""


def _stay() -> None:
    """There is no connection to lose."""

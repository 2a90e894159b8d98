"""The host's part in a transaction: each verb moves the state table by one step.

Nothing here knows a driver, a plan or a controller. What a verb needs was either sent with it or
stands in the journal, and what a restore needs stands in the journal alone: :meth:`restore` works
the same when it is asked for over the connection, when the lease ends, and from a new process that
only has the folder of the transaction.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Iterable, Iterator, Optional, Tuple

from deployguard.onhost import durable
from deployguard.onhost.evidence import collect as evidence
from deployguard.onhost.places import State
from deployguard.onhost.probes import healthcheck, logmarks
from deployguard.onhost.queries import questions
from deployguard.onhost.request import RequestError
from deployguard.onhost.state import machine, migrations, withheld
from deployguard.onhost.state.deadman import Deadman
from deployguard.onhost.state.journal import Journal
from deployguard.onhost.system import System
from deployguard.onhost.transaction import restoration, settlement
from deployguard.onhost.transaction.newtrees import NewTrees, demand_exact
from deployguard.onhost.transaction.operations import Executor
from deployguard.onhost.transaction.tenure import Emit, Tenure
from deployguard.onhost.trees import space
from deployguard.onhost.trees.inspection import file_entry

#: Room set aside while there still is some, so that a restore can write its journal on a full disk.
RESERVE_BYTES = 1024 * 1024

#: Characters of what a task printed that are sent back.
_OUTPUT = 4000


class Participant(Tenure):
    """One transaction on this host."""

    def __init__(
        self,
        state: State,
        system: System,
        emit: Emit,
        deadman: Callable[[State, str, System], Any] = Deadman,
    ) -> None:
        super().__init__(state, system, emit, deadman)
        self._trees = NewTrees(state, system)
        self._log_marks: Dict[str, Any] = {}

    def close(self) -> None:
        """Let go of all that is held: what was prepared, the journal, the ``alive`` lock."""
        self._trees.close()
        super().close()

    # -- looking -----------------------------------------------------------------------------

    def manifest(self, args: Dict[str, Any], pieces: Iterable[bytes]) -> Dict[str, Any]:
        """Receive the manifest of a new tree."""
        return {"count": self._trees.describe(args["digest"], pieces)}

    def revision(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Bring the revision of a git checkout to the host, or say what a bundle has to bring."""
        journal = self._need(machine.BEGUN) if self._journal is not None else None
        answer: Dict[str, Any] = self._trees.checkouts.obtain(
            args["component"], args["transaction"], journal
        )
        return answer

    def bundle(self, args: Dict[str, Any], pieces: Iterable[bytes]) -> Dict[str, Any]:
        """Receive the bundle with the commits that ``revision`` found missing."""
        checkouts = self._trees.checkouts
        size = checkouts.take(args["component"], pieces, args["digest"], args["size"])
        return {"received": size}

    def look(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Compare what is live with what is to come; changes nothing."""
        transaction = args["transaction"]
        components = {
            target["name"]: self._trees.compare(target, transaction)
            for target in args["components"]
        }
        baseline = None
        if args.get("checks"):
            baseline = healthcheck.watch(args["checks"], self._system, mode="once")
        disks = {
            path: dict(space.free(path)._asdict(), exists=os.path.isdir(path))
            for path in args.get("disks", [])
            if os.path.isdir(path)
        }
        answers = questions.answer_all(args.get("questions", ()), self._system)
        return {
            "components": components,
            "baseline": baseline,
            "disks": disks,
            "answers": answers,
        }

    # -- staging -----------------------------------------------------------------------------

    def blobs(self, args: Dict[str, Any], pieces: Iterable[bytes]) -> Dict[str, Any]:
        """Receive the file contents that the look found missing for one component."""
        self._need(machine.BEGUN)
        return {"received": self._trees.receive(self.folder, args["component"], pieces)}

    def stage(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Build every new tree beside the live one, verified and synced."""
        journal = self._need(machine.BEGUN)
        trees, save = self._trees, bool(args.get("save"))
        views = [trees.views[name] for name in args["components"]]
        files = trees.announce(self.folder, views, journal)
        self._arming.begin(self.lease)
        durable.reserve(os.path.join(self.folder, "reserve"), RESERVE_BYTES)
        saved = trees.save_handmade(self.folder, views) if save else {}
        trees.build(self.folder, views, files, save)
        if args.get("verify"):
            demand_exact(views)
        found = trees.look_at_imports(args.get("imports") or [])
        journal.enter(machine.STAGE, "staged")
        return {"state": self.state, "saved": saved, "imports": found}

    # -- the switch --------------------------------------------------------------------------

    def arm(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Make the whole undo durable: procedure, checks, baseline, what must be the same again."""
        journal = self._need(machine.STAGED)
        staged = journal.last("staging")
        assert staged is not None
        journal.enter(
            machine.ARM,
            "armed",
            deadman=self._arming.done(),
            procedure=args["procedure"],
            checks=withheld.withhold(self.folder, args["checks"]),
            baseline=args["baseline"],
            observe=args["observe"],
            observed=args["observed"],
            collectors=self._trees.with_manifests(self.folder, args["collectors"]),
            migrations=args.get("migrations", []),
            crossed=args.get("crossed", ""),
            marks=evidence.mark(args["collectors"], self._system),
            files=[file_entry(file["path"]) for file in staged["files"]],
            links={
                place["live"]: os.readlink(place["live"])
                for place in staged["placements"]
                if os.path.islink(place["live"])
            },
        )
        return {"state": self.state}

    def switch(self, stop: Optional[Callable[[], bool]] = None) -> Dict[str, Any]:
        """Run the procedure. Raises :class:`operations.OperationFailed`; the state stays armed.

        ``stop`` says when a step that only waits need not go on: nobody is left to take the vote.
        """
        journal = self._need(machine.ARMED)
        armed = journal.last("armed")
        assert armed is not None
        self._executor(journal, stop).do(armed["procedure"])
        journal.enter(machine.SWITCH, "switched")
        return {"state": self.state}

    def _executor(self, journal: Journal, stop: Optional[Callable[[], bool]] = None) -> Executor:
        return Executor(journal, self._system, self._emit, self._snapshot, stop)

    def _snapshot(self, component: str) -> None:
        """Record the live tree once more, and where the log ends, now that nobody writes there."""
        armed = (self._journal.last("armed") if self._journal is not None else None) or {}
        self._log_marks.update(logmarks.marks(armed, component, self._system))
        self._trees.record_live(self.folder, component)

    def check(
        self, args: Dict[str, Any], stop: Optional[Callable[[], bool]] = None
    ) -> Dict[str, Any]:
        """Watch the new version until it is healthy, is not in time, or ``stop`` says so."""
        armed = self._need().last("armed") or {}
        checks: Any = logmarks.with_marks(args["checks"], self._log_marks)
        result = healthcheck.watch(
            checks,
            self._system,
            mode="deploy",
            baseline=armed.get("baseline"),
            emit=self._emit,
            stop=stop,
        )
        self._need().append("checked", sync=False, healthy=result["healthy"])
        return dict(result)

    def prepare(self) -> Dict[str, Any]:
        """Vote "healthy". From here on the host waits for the decision."""
        self._need(machine.SWITCHED).enter(machine.PREPARE, "prepared")
        return {"state": self.state}

    def commit(self) -> Dict[str, Any]:
        """The decision is commit. May be repeated; refused where a restore has begun."""
        journal = self._need()
        if journal.state != machine.COMMITTED:
            if self.restoring:
                raise RequestError("state", "a restore has begun, and ends as one")
            journal.enter(machine.COMMIT, "committed")
        return self.finish()

    # -- the way back ------------------------------------------------------------------------

    def restore(self, args: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Bring the old version back and prove it. Ends in ``restored`` or ``stuck``.

        Where nothing was touched yet this is :meth:`abort`. Behind a point of no return it is
        nothing at all, and the answer is ``held``, unless a person has said ``no_return``. With
        ``stop`` only the new services stop, until it is asked for again. May be repeated.
        """
        args = args or {}
        journal = self._need()
        if journal.state in machine.UNTOUCHED:
            return self.abort()
        if journal.state in machine.TERMINAL:
            return self.describe()
        no_return = migrations.ACCEPTED if args.get("no_return") else ""
        point = migrations.crossed(journal)
        if point is not None and not no_return:
            if not migrations.unchanged(point, self._system):
                return self._wait_for_a_person(journal, point)
            no_return = migrations.UNCHANGED
        if args.get("stop"):
            return dict(restoration.stop(journal, self._executor(journal)), state=self.state)
        result = restoration.restore(
            self.folder, journal, self._executor(journal), self._system, self._emit, no_return
        )
        return dict(result, state=self.state)

    def _wait_for_a_person(self, journal: Journal, point: Dict[str, Any]) -> Dict[str, Any]:
        """Stop and hold: the state stays, and neither a lease nor a boot changes it any more."""
        if migrations.held(journal) is None:
            point = dict(point, dumps=migrations.dumps_of(journal))
            journal.append("held", **{name: point[name] for name in migrations.HELD})
            self._arming.disarm()
        found = {"state": self.state, "held": migrations.held(journal)}
        return dict(found, failures=[], differences=[], verified=False, healthy=False, seconds={})

    @property
    def held(self) -> bool:
        """Whether a person has to say what becomes of it."""
        return self._journal is not None and migrations.held(self._journal) is not None

    def hold(self) -> Dict[str, Any]:
        """Leave everything as it is for a person: no lease, no undo, nothing cleared away."""
        journal = self._need()
        point = migrations.crossed(journal)
        if point is not None:
            return self._wait_for_a_person(journal, point)
        journal.enter(machine.FAIL, "stuck", held=True)
        return {"state": self.state}

    def run(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """A task of the plan's ``always`` block, or a step of ``respond``, which has no part in the
        transaction."""
        if self.fenced():
            raise RequestError("stale_epoch", "another controller took this transaction over")
        done = self._system.run(args["argv"], env=args.get("env"), timeout=args["timeout"])
        # Of one that was killed the status may be anything.
        status = done.status if not done.timed_out else done.status or -1
        return {"status": status, "message": done.describe(), "output": done.text[-_OUTPUT:]}

    def abort(self) -> Dict[str, Any]:
        """Drop what was staged. Only where nothing live was touched."""
        journal = self._need()
        if journal.state != machine.ABORTED:
            machine.step(journal.state, machine.ABORT)
            settlement.drop(self._state, self.folder, journal)
            journal.enter(machine.ABORT, "aborted")
        if journal.last("staging") is not None:
            self._arming.disarm()
        return {"state": self.state, "verified": True, "healthy": True}

    def finish(self) -> Dict[str, Any]:
        """After the end: clear up, give up the locks, let the dead-man go. May be repeated."""
        journal = self._need()
        if journal.state in (machine.RESTORED, machine.COMMITTED):
            settlement.settle(self._state, self.folder, journal, self._system)
            self._arming.disarm()
            settlement.forget(self._state, self._system)
        return {"state": self.state}

    # -- evidence ----------------------------------------------------------------------------

    def gather(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Run the collectors of one stage into the transaction's evidence folder."""
        armed = self._journal.last("armed") if self._journal is not None else None
        if armed is None:
            return {"collected": []}
        results = evidence.collect(
            armed["collectors"],
            os.path.join(self.folder, "evidence"),
            self._system,
            marks=armed["marks"],
            stage=args["stage"],
            max_bytes=int(args["max_bytes"]),
            max_seconds=float(args["max_seconds"]),
        )
        return {"collected": results}

    def fetch(self) -> Tuple[Dict[str, Any], Iterator[bytes]]:
        """The evidence folder as a ``tar.gz``, in pieces."""
        return {}, evidence.pack(os.path.join(self.folder, "evidence"))

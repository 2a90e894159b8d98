"""The host's part in a transaction: each verb moves the state table by one step.

Nothing here knows a driver, a plan or a controller. What a verb needs was either sent with it or
stands in the journal, and what a restore needs stands in the journal alone: :meth:`restore` works
the same when it is asked for over the connection, when the lease ends, and from a new process that
only has the folder of the transaction.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from deployguard.onhost import (
    assembly,
    durable,
    evidence,
    handmade,
    healthcheck,
    lease,
    locks,
    machine,
    migrations,
    questions,
    restoration,
    settlement,
    staging,
    withheld,
)
from deployguard.onhost.blobs import receive
from deployguard.onhost.deadman import Deadman
from deployguard.onhost.faults import Faults
from deployguard.onhost.inspection import (
    View,
    demand_usable,
    file_entry,
    look,
    observe,
    rehearse,
    skip_patterns,
)
from deployguard.onhost.journal import Journal
from deployguard.onhost.operations import Executor
from deployguard.onhost.places import NotManageable, State, read_json, write_json
from deployguard.onhost.system import Lanes, System
from deployguard.onhost.tree import Manifest, scan

#: Room set aside while there still is some, so that a restore can write its journal on a full disk.
RESERVE_BYTES = 1024 * 1024

#: How long a takeover waits for the step that the old process is in.
TAKEOVER_SECONDS = 30.0

#: How much longer than its lease a host waits for its dead-man to be armed.
ARMING_SECONDS = 60.0

Emit = Callable[[Dict[str, Any]], None]


class RequestError(Exception):
    """The request cannot be met; ``kind`` is one of the kinds in ``docs/protocol.md``."""

    def __init__(self, kind: str, message: str, hint: str = "", detail: Any = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.hint = hint
        self.detail = detail


class Participant:
    """One transaction on this host."""

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
        self._make_deadman = deadman
        self._arming: Optional[Lanes] = None
        #: What a drill calls to lose the connection.
        self.cut: Callable[[], None] = _stay
        self._manifests: Dict[str, Manifest] = {}
        self._preparing: Any = None
        self._views: Dict[str, View] = {}
        self._log_marks: Dict[str, Any] = {}
        self._journal: Optional[Journal] = None
        self._alive: Optional[int] = None
        self.epoch = 0
        self.lease = 60.0
        self.folder = ""

    # -- the transaction's start -------------------------------------------------------------

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
            self._deadman().arm(self.lease)
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

    # -- looking -----------------------------------------------------------------------------

    def manifest(self, args: Dict[str, Any], pieces: Iterable[bytes]) -> Dict[str, Any]:
        """Receive the manifest of a new tree."""
        manifest = Manifest.from_bytes(b"".join(pieces))
        if manifest.digest() != args["digest"]:
            raise RequestError("usage", "the manifest is not the one with that digest")
        self._manifests[args["digest"]] = manifest
        return {"count": manifest.count()}

    def revision(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Bring the revision of a git checkout to the host, or say what a bundle has to bring."""
        journal = self._need(machine.BEGUN) if self._journal is not None else None
        answer: Dict[str, Any] = self._checkouts().obtain(
            args["component"], args["transaction"], journal
        )
        return answer

    def bundle(self, args: Dict[str, Any], pieces: Iterable[bytes]) -> Dict[str, Any]:
        """Receive the bundle with the commits that ``revision`` found missing."""
        size = self._checkouts().take(args["component"], pieces, args["digest"], args["size"])
        return {"received": size}

    def _checkouts(self) -> Any:
        if self._preparing is None:
            from deployguard.onhost.preparing import Preparing

            self._preparing = Preparing(self._state, self._system)
        return self._preparing

    def look(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Compare what is live with what is to come; changes nothing."""
        components: Dict[str, Any] = {}
        for target in args["components"]:
            source = target["source"]
            wanted = self._manifests[source["digest"]] if source["kind"] == "manifest" else None
            checkout = None
            if target["layout"] == "git" and source["kind"] != "manifest":
                checkout = self._checkouts().checkout(target, args["transaction"])
            view, result = look(self._state, target, wanted, args["transaction"], checkout)
            result["observed"] = observe(self._system, target["observe"])
            demand_usable(result["observed"])
            self._views[target["name"]] = view
            components[target["name"]] = result
        baseline = None
        if args.get("checks"):
            baseline = healthcheck.watch(args["checks"], self._system, mode="once")
        space = {
            path: dict(staging.space_free(path)._asdict(), exists=os.path.isdir(path))
            for path in args.get("disks", [])
            if os.path.isdir(path)
        }
        answers = questions.answer_all(args.get("questions", ()), self._system)
        return {
            "components": components,
            "baseline": baseline,
            "disks": space,
            "answers": answers,
        }

    # -- staging -----------------------------------------------------------------------------

    def blobs(self, args: Dict[str, Any], pieces: Iterable[bytes]) -> Dict[str, Any]:
        """Receive the file contents that the look found missing for one component."""
        self._need(machine.BEGUN)
        store = self._blob_store()
        received = receive(pieces, store, self._views[args["component"]].missing)
        return {"received": len(received)}

    def _blob_store(self) -> str:
        store = os.path.join(self.folder, "blobs")
        if not os.path.isdir(store):
            os.mkdir(store, 0o700)
        return store

    def stage(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Build every new tree beside the live one, verified and synced."""
        journal = self._need(machine.BEGUN)
        views = [self._views[name] for name in args["components"]]
        files = assembly.files_of(views, os.path.basename(self.folder))
        beside = [view.placement.tree for view in views] + [f["beside"] for f in files]
        shared = [path + "/." for view in views for path in assembly.shared_directories(view)]
        directories = settlement.missing_directories(beside + shared + [f["path"] for f in files])
        journal.append(
            "staging",
            targets=[_journalled(view.target) for view in views],
            placements=[view.placement._asdict() for view in views],
            files=[{k: v for k, v in f.items() if k != "content"} for f in files],
            directories=directories,
        )
        for directory in directories:
            durable.make_directory(directory, 0o755)
        for view in views:
            assembly.own_shared(view, directories)
        self._begin_arming()
        durable.reserve(os.path.join(self.folder, "reserve"), RESERVE_BYTES)
        saved = self._save_handmade(views) if args.get("save") else {}
        for view in views:
            assembly.exchange_or_refuse(view)
            self._build(view, bool(args.get("save")))
            rehearse(self._system, view.target["observe"], view.placement.tree)
        if self._preparing is not None:
            self._preparing.clear()
        for file in files:
            assembly.stage_file(file)
        durable.sync_trees([self.folder, *(os.path.dirname(path) for path in beside)])
        for view in views:
            assembly.vouch_for(self.folder, view)
        if args.get("verify"):
            self._demand_exact(views)
        found = self._look_at_imports(args.get("imports") or [])
        journal.enter(machine.STAGE, "staged")
        return {"state": self.state, "saved": saved, "imports": found}

    def _demand_exact(self, views: Sequence[View]) -> None:
        """Every new tree read back and compared with its manifest, in all that one says."""
        for view in views:
            assert view.after is not None
            paths = staging.verify(view.placement.tree, view.after).paths()
            if paths:
                shown = ", ".join(paths[:5])
                raise RequestError(
                    "failed",
                    "%s was not built as it was: %d differ: %s"
                    % (view.target["name"], len(paths), shown),
                    "does the file system keep owners, times and extended attributes?",
                )

    def _look_at_imports(self, checks: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
        """Whether what was staged would find its modules; the controller judges."""
        if not checks:
            return []
        from deployguard.onhost import imports

        return [
            imports.look(check, self._views[check["component"]], self._system) for check in checks
        ]

    def _build(self, view: View, save: bool) -> None:
        missing = assembly.build_tree(self.folder, view, self._blob_store(), save)
        if missing and view.checkout is not None:
            raise NotManageable(
                "the repository of %s changed while it was copied" % view.placement.live,
                "deploy again, while no git is at work there",
            )
        if missing:
            # The live program wrote to files that were to be copied: they have to be sent.
            view.missing = missing
            name = view.target["name"]
            raise RequestError(
                "mismatch",
                "%d files of %s changed on the host while they were copied" % (len(missing), name),
                "deploy again, while nothing writes to %s" % view.placement.live,
                detail={"component": name, "missing": sorted(missing)},
            )

    def _deadman(self) -> Any:
        return self._make_deadman(self._state, self.folder, self._system)

    def _begin_arming(self) -> None:
        """Start what arms the dead-man; it takes as long as some of the copying."""
        if self._arming is None:
            self._arming = self._system.lanes()
            deadman, seconds = self._deadman(), self.lease
            self._arming.start("deadman", lambda: deadman.arm(seconds))

    def _armed_deadman(self) -> str:
        """The kind of the dead-man. Nothing may be touched before this returns."""
        assert self._arming is not None
        answer = self._arming.wait(ARMING_SECONDS)
        self._arming = None
        if answer is None or isinstance(answer[1], Exception):
            reason = "no answer" if answer is None else str(answer[1])
            raise RequestError("failed", "the dead-man could not be armed: %s" % reason)
        return str(answer[1])

    def _disarm(self) -> None:
        if self._arming is not None:
            # What is still on its way would stay.
            self._arming.wait(ARMING_SECONDS)
            self._arming = None
        self._deadman().disarm()

    def _save_handmade(self, views: Sequence[View]) -> Dict[str, str]:
        """Bundle what people changed by hand, before it goes."""
        changes = [
            (view.target["name"], view.placement.root, view.handmade)
            for view in views
            if view.placement.root is not None
        ]
        return handmade.save(self._state, os.path.basename(self.folder), changes)

    # -- the switch --------------------------------------------------------------------------

    def arm(self, args: Dict[str, Any]) -> Dict[str, Any]:
        """Make the whole undo durable: procedure, checks, baseline, what must be the same again."""
        journal = self._need(machine.STAGED)
        staged = journal.last("staging")
        assert staged is not None
        journal.enter(
            machine.ARM,
            "armed",
            deadman=self._armed_deadman(),
            procedure=args["procedure"],
            checks=withheld.withhold(self.folder, args["checks"]),
            baseline=args["baseline"],
            observe=args["observe"],
            observed=args["observed"],
            collectors=self._with_manifests(args["collectors"]),
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

    def _with_manifests(self, collectors: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
        """A failed tree is compared with what was live before it."""
        found = []
        skip = {name: skip_patterns(view.target).globs for name, view in self._views.items()}
        for collector in collectors:
            if collector["kind"] == "tree":
                component = collector["component"]
                name = "before-%s.manifest" % component
                collector = dict(
                    collector,
                    manifest=os.path.join(self.folder, name),
                    staged=os.path.join(self.folder, "after-%s.manifest" % component),
                    # What the host keeps is no part of the failure, and may be large or secret;
                    # a .git is the history of it, and large too.
                    ignore=[*collector.get("ignore", []), *skip.get(component, ()), ".git"],
                )
            found.append(collector)
        return found

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
        self._mark_logs(component)
        view = self._views.get(component)
        if view is None or view.placement.root is None or view.before is None:
            return
        now = scan(view.placement.root, skip=view.skip, cache=view.cache)
        if now != view.before:
            view.before = now
            assembly.save_manifest(self.folder, "before-%s" % component, now)
            assembly.save_index(self.folder, view)

    def _mark_logs(self, component: str) -> None:
        armed = (self._journal.last("armed") if self._journal is not None else None) or {}
        baseline = (armed.get("baseline") or {}).get("checks", [])
        observed = {entry["id"]: entry["observed"] for entry in baseline}
        for check in armed.get("checks", []):
            if check["kind"] == "logs" and check["component"] == component:
                from deployguard.onhost import probe_logs

                mark = probe_logs.mark(check, observed.get(check["id"]), self._system)
                self._log_marks[check["id"]] = mark

    def check(
        self, args: Dict[str, Any], stop: Optional[Callable[[], bool]] = None
    ) -> Dict[str, Any]:
        """Watch the new version until it is healthy, is not in time, or ``stop`` says so."""
        armed = self._need().last("armed") or {}
        marks = self._log_marks
        checks: Any = [
            dict(check, mark=marks[check["id"]]) if check["id"] in marks else check
            for check in args["checks"]
        ]
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
            self._disarm()
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
            self._disarm()
        return {"state": self.state, "verified": True, "healthy": True}

    def finish(self) -> Dict[str, Any]:
        """After the end: clear up, give up the locks, let the dead-man go. May be repeated."""
        journal = self._need()
        if journal.state in (machine.RESTORED, machine.COMMITTED):
            settlement.settle(self._state, self.folder, journal, self._system)
            self._disarm()
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

    # -- the rest ----------------------------------------------------------------------------

    def fenced(self) -> bool:
        """Whether somebody has taken the transaction over."""
        return bool(self.folder) and epoch_of(self.folder) > self.epoch

    def close(self) -> None:
        """Let go of the journal and the ``alive`` lock."""
        if self._journal is not None:
            self._journal.close()
        if self._preparing is not None:
            self._preparing.close()
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


#: Characters of what a task printed that are sent back.
_OUTPUT = 4000


def past(journal: Journal) -> Dict[str, Any]:
    """What the state does not say, and a decision needs.

    ``voted``; ``takeovers``, how many there were; ``going_back`` since a restore was begun;
    ``held`` behind a point of no return; ``takes_back`` a schema, if it goes back; ``sent_back`` by
    whoever took over, though the host had voted.
    """
    kinds = [record["kind"] for record in journal.records]
    back = "restoring" in kinds
    return {
        "voted": "prepared" in kinds,
        "takeovers": kinds.count("adopted"),
        "going_back": back and journal.state != machine.COMMITTED,
        "held": migrations.held(journal),
        "takes_back": migrations.takes_back(journal),
        "sent_back": back
        and "prepared" in kinds
        and "adopted" in kinds[: kinds.index("restoring")],
    }


def epoch_of(folder: str) -> int:
    """The highest epoch that worked on a transaction; 0 when it never began."""
    raised = read_json(os.path.join(folder, "epoch"))
    if raised is not None:
        return int(raised["epoch"])
    journal = Journal(os.path.join(folder, "journal"), lambda: 0.0)
    begun = journal.last("begun")
    return int(begun["epoch"]) if begun is not None else 0


def _journalled(target: Dict[str, Any]) -> Dict[str, Any]:
    """A target as the journal keeps it: no file contents, they may be secrets."""
    return {name: value for name, value in target.items() if name != "files"}


def ignore(event: Dict[str, Any]) -> None:
    """What happens while nobody listens."""


def _stay() -> None:
    """There is no connection to lose."""

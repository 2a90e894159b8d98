"""Runs a procedure: operations that carry their own undo, as data.

An operation is ``{"id", "component", "title", "do": [action…], "undo": [action…]}``. The whole
procedure is in the journal before its first action runs. Around each operation stand two records:
``intent``, synced before the deed and holding what the undo needs to know of the world before it,
and ``done``. An undo walks the intents backwards. It never trusts ``done`` to tell whether a swap
happened: it looks at the inodes, so a record lost in a power cut changes nothing.

Every undo can be repeated, and is when a restore begins anew: a reboot has stopped what the first
attempt started, and a swap that only works the second time must not happen under a running service.
The undo of a plan's task may not bear that; its operation says ``undo_once``.

Where the undo of a migration fails, nothing below it is undone: the old code must not come back
under a schema that it does not know. Its operation says ``undo_or_stop``. What says ``no_return``
has no undo at all; see :mod:`deployguard.onhost.state.migrations`.

What stops the new service is undone even where its start was not begun, as ``undo_always`` says of
that operation: after a power cut the boot may have started the service, with the new tree or half
of it, and a swap back under a running program changes what stands there and not what runs.

Actions:

``run``
    ``argv``, ``env``, ``cwd``, ``timeout``, ``ok`` (accepted statuses), ``on_timeout`` (an argv
    that makes a second attempt possible, such as a kill), ``until`` (seconds in which it is run
    again and again until the status is an accepted one).
``swap`` / ``swap_back``
    ``live``, ``beside``: exchange two names in one step, and back. A name that is absent on one
    side makes it a plain rename.
``carry``
    ``source``, ``target``, ``patterns``: move the paths that belong to the host to the other tree.
``spawn`` / ``terminate``
    A supervised program: ``argv``, ``env``, ``cwd``, ``log``, ``pid_file``; ``signal`` and
    ``timeout``.
``snapshot``
    ``component``: look at the live tree once more, now that its service has stopped.
``dump``
    ``argv``, ``env``, ``user``, ``timeout``: what the program writes is kept at ``path``; ``opens``
    is an argv that reads it there.
``pm2``
    ``verb`` and ``service``: see :mod:`deployguard.onhost.pm2.actions`.
``containers``
    What no single command of an engine does; see :mod:`deployguard.onhost.compose.stack`.
``kubernetes``
    ``verb`` and ``service``: see :mod:`deployguard.onhost.kubernetes.actions`.
``tag``
    ``path``, ``name``, ``commit``: name the commit of a git checkout; it stays, whatever comes.
"""

from __future__ import annotations

import importlib
import json
import os
from typing import Any, Callable, Dict, List, Optional, Sequence

from deployguard.onhost import durable
from deployguard.onhost.excerpts import bounded
from deployguard.onhost.state import supervised
from deployguard.onhost.state.journal import Journal
from deployguard.onhost.state.migrations import make_dump
from deployguard.onhost.system import System
from deployguard.onhost.trees.kept import carry, directory_times, inode_of, matches

Action = Dict[str, Any]
Operation = Dict[str, Any]
Facts = Dict[str, Any]

#: Bytes of what a failed command said that its error repeats.
OUTPUT_KEPT = 2000

#: Kinds of actions with a module of their own, which is loaded where one is asked for.
_MANAGERS = {
    "pm2": "deployguard.onhost.pm2.actions",
    "kubernetes": "deployguard.onhost.kubernetes.actions",
}

#: Between two runs of a command that is asked until it gives the right answer.
_AGAIN = 0.1


class OperationFailed(Exception):
    """One operation failed. ``operation`` is its id; the message says what a person needs."""

    def __init__(self, operation: str, title: str, message: str) -> None:
        super().__init__("%s: %s" % (title, message))
        self.operation = operation
        self.title = title
        self.reason = message


class ActionError(Exception):
    """An action did not do what it is for."""


class Executor:
    """Does and undoes the operations of one journal's procedure."""

    def __init__(
        self,
        journal: Journal,
        system: System,
        emit: Callable[[Dict[str, Any]], None],
        snapshot: Callable[[str], None],
        stop: Optional[Callable[[], bool]] = None,
    ) -> None:
        """``stop`` says when what only waits need not go on."""
        self._stop = stop
        self._journal = journal
        self._system = system
        self._emit = emit
        self._snapshot = snapshot

    def do(self, procedure: Sequence[Operation]) -> None:
        """Run every operation in order. Raises :class:`OperationFailed` at the first that fails."""
        for index, operation in enumerate(procedure):
            try:
                facts = self._facts(operation)
            except ActionError as error:
                raise OperationFailed(operation["id"], operation["title"], str(error)) from error
            self._journal.append("intent", operation=index, id=operation["id"], facts=facts)
            self._emit({"operation": operation["title"], "status": "started"})
            try:
                for action in operation["do"]:
                    self._perform(action, facts)
            except (ActionError, OSError) as error:
                self._journal.append(
                    "op_failed", operation=index, id=operation["id"], message=str(error)
                )
                raise OperationFailed(operation["id"], operation["title"], str(error)) from error
            self._journal.append("done", sync=False, operation=index, id=operation["id"])
        self._journal.flush()

    def undo(
        self, procedure: Sequence[Operation], accept: bool = False, above: int = -1
    ) -> List[Dict[str, str]]:
        """Undo, last first, every operation that was begun; the failures are returned.

        Only those behind the index ``above``, where it is given.

        Of a component that was touched, what says ``undo_always`` is undone as well; where that is
        the id of another operation, only if that one was begun.

        A step that fails does not keep the others from being undone, unless it says
        ``undo_or_stop``: the failure has ``stopped`` then. With ``accept`` such steps are not
        undone at all: a person has said that the old code works under the new schema. A second call
        undoes all of it again, but for what says ``undo_once`` and is undone.
        """
        begun = {record["operation"]: record["facts"] for record in self._journal.all("intent")}
        # An operation with nothing to undo has touched nothing: it looks, or leaves a name.
        touched = {procedure[index]["component"] for index in begun if procedure[index]["undo"]}
        ids = {procedure[index]["id"] for index in begun}
        for index, operation in enumerate(procedure):
            always = operation.get("undo_always")
            if always in ids or (always is True and operation["component"] in touched):
                begun.setdefault(index, {})
        undone = {record["operation"] for record in self._journal.all("undone")}
        failures: List[Dict[str, str]] = []
        for index in sorted((index for index in begun if index > above), reverse=True):
            operation = procedure[index]
            once = bool(operation.get("undo_once"))
            if (once and index in undone) or (accept and operation.get("undo_or_stop")):
                continue
            self._emit({"operation": "undo " + operation["title"], "status": "started"})
            try:
                for action in operation["undo"]:
                    self._perform(action, begun[index])
            except (ActionError, OSError) as error:
                failures.append(
                    {"id": operation["id"], "title": operation["title"], "message": str(error)}
                )
                self._journal.append(
                    "undo_failed", operation=index, id=operation["id"], message=str(error)
                )
                if operation.get("undo_or_stop"):
                    failures[-1]["stopped"] = operation["id"]
                    break
                continue
            self._journal.append("undone", sync=once, operation=index, id=operation["id"])
        self._journal.flush()
        return failures

    def settle(self, procedure: Sequence[Operation]) -> None:
        """Clear away what only an undo would have needed; what fails is noted and left."""
        for operation in procedure:
            for action in operation.get("settle", ()):
                try:
                    self._perform(action, {})
                except (ActionError, OSError) as error:
                    self._journal.append(
                        "settle_failed", sync=False, id=operation["id"], message=str(error)
                    )

    def _facts(self, operation: Operation) -> Facts:
        """What the undo must know of the world before the operation."""
        facts: Facts = {}
        for action in operation["do"]:
            if action["act"] == "swap":
                pair = [inode_of(action["live"]), inode_of(action["beside"])]
                facts.setdefault("swaps", {})[action["live"]] = pair
            elif action["act"] == "carry":
                source, patterns = action["source"], action["patterns"]
                facts.setdefault("directories", {})[source] = directory_times(source, patterns)
                facts.setdefault("kept", {})[source] = {
                    path: inode_of(os.path.join(source, path)) for path in matches(source, patterns)
                }
        for action in operation["undo"]:
            if action["act"] in _MANAGERS and action["verb"] == "restore":
                facts[action["act"]] = self._manager(action).keep()
        return facts

    def _manager(self, action: Action) -> "_Manager":
        return _Manager(action, os.path.dirname(self._journal.path), self._system, self._stop)

    def _perform(self, action: Action, facts: Facts) -> None:
        kind = action["act"]
        if kind == "run":
            self._run(action)
        elif kind == "swap":
            durable.swap(action["live"], action["beside"])
        elif kind == "swap_back":
            swap_back(action["live"], action["beside"], facts["swaps"][action["live"]])
        elif kind == "carry":
            times = facts.get("directories", {}).get(action["target"], {})
            originals = facts.get("kept", {}).get(action["target"], {})
            carry(action["source"], action["target"], action["patterns"], times, originals)
        elif kind == "spawn":
            self._spawn(action)
        elif kind == "terminate":
            try:
                supervised.terminate(action, self._system)
            except supervised.StillAlive as error:
                raise ActionError(str(error)) from error
        elif kind == "dump":
            problem = make_dump(action, self._system)
            if problem:
                raise ActionError(problem)
        elif kind == "snapshot":
            self._snapshot(action["component"])
        else:
            self._perform_elsewhere(action, facts)

    def _perform_elsewhere(self, action: Action, facts: Facts) -> None:
        """What few procedures have, in modules that are read when one has it."""
        kind = action["act"]
        if kind in _MANAGERS:
            self._manager(action).perform(facts.get(kind))
        elif kind == "containers":
            self._containers(action)
        elif kind == "tag":
            self._tag(action)
        else:
            raise ActionError("unknown action %r" % kind)

    def _tag(self, action: Action) -> None:
        from deployguard.onhost import places
        from deployguard.onhost.git import command as git
        from deployguard.onhost.git import emergency

        try:
            emergency.tag(self._system, action["path"], action["name"], action["commit"])
        except (git.GitFailed, places.NotManageable) as error:
            raise ActionError(str(error)) from error

    def _run(self, action: Action) -> None:
        deadline = self._system.monotonic() + action.get("until", 0.0)
        result = self._attempt(action)
        if result.timed_out and action.get("on_timeout"):
            timeout = action.get("timeout", 60.0)
            self._system.run(action["on_timeout"], env=action.get("env"), timeout=timeout)
            result = self._attempt(action)
        while (
            result.timed_out or result.status not in action.get("ok", (0,))
        ) and self._system.monotonic() < deadline:
            self._system.sleep(_AGAIN)
            result = self._attempt(action)
        if result.timed_out:
            raise ActionError(
                "%s did not end within %g s" % (_shown(action["argv"]), action.get("timeout", 60.0))
            )
        if result.status not in action.get("ok", (0,)):
            said = bounded((result.stderr or result.stdout).strip(), OUTPUT_KEPT)
            output = said.decode("utf-8", "replace")
            raise ActionError(
                "%s ended with status %d%s"
                % (
                    _shown(action["argv"]),
                    result.status,
                    ": " + output if output else "",
                )
            )

    def _attempt(self, action: Action) -> Any:
        return self._system.run(
            action["argv"],
            env=action.get("env"),
            cwd=action.get("cwd"),
            timeout=action.get("timeout", 60.0),
            apart=bool(action.get("apart")),
        )

    def _containers(self, action: Action) -> None:
        from deployguard.onhost.compose import containers
        from deployguard.onhost.compose import stack as compose

        try:
            compose.perform(action, self._system)
        except containers.EngineFailed as error:
            raise ActionError(str(error)) from error

    def _spawn(self, action: Action) -> None:
        if supervised.running(action["pid_file"], self._system) is not None:
            return
        try:
            pid = self._system.spawn_detached(
                action["argv"],
                env=action.get("env"),
                cwd=action["cwd"],
                log_path=action["log"],
                apart=True,
            )
        except (OSError, ValueError) as error:
            raise ActionError("cannot start %s: %s" % (_shown(action["argv"]), error)) from error
        identity = {
            "pid": pid,
            "start_time": self._system.process_start_time(pid),
            # An undo starts what ran, not what the next plan says; 0600, for the environment.
            "started_as": {name: action.get(name) for name in ("argv", "env", "cwd", "log")},
        }
        durable.write_file(action["pid_file"], json.dumps(identity).encode("ascii"), 0o600)


class _Manager:
    """An action of a kind that has a module of its own."""

    def __init__(
        self,
        action: Action,
        folder: str,
        system: System,
        stop: Optional[Callable[[], bool]],
    ) -> None:
        self._module: Any = importlib.import_module(_MANAGERS[action["act"]])
        self._action, self._folder, self._system = action, folder, system
        self._stop = stop

    def keep(self) -> Facts:
        """Keep what the action needs as an undo, before anything is done."""
        try:
            kept: Facts = self._module.keep(self._action, self._folder, self._system)
        except self._module.Failed as error:
            raise ActionError(str(error)) from error
        return kept

    def perform(self, facts: Optional[Facts]) -> None:
        """Do it."""
        try:
            self._module.perform(self._action, self._folder, facts, self._system, self._stop)
        except self._module.Failed as error:
            raise ActionError(str(error)) from error


def _shown(argv: Sequence[str]) -> str:
    return " ".join(argv)


def swap_back(live: str, beside: str, before: Sequence[Optional[int]]) -> None:
    """Undo a swap if it happened, told by the inodes recorded before it.

    Raises :class:`ActionError` when neither order is found: somebody else moved the paths.
    """
    now = [inode_of(live), inode_of(beside)]
    if now == list(before):
        return
    if now == [before[1], before[0]]:
        durable.swap(live, beside)
        return
    if before[0] is not None and now[0] == before[0]:
        # The old one is live and the new one was already cleared away.
        return
    raise ActionError(
        "%s and %s are neither as before nor swapped; somebody moved them" % (live, beside)
    )

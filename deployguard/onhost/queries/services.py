"""What drivers ask of their services on the host, before a deploy and after a restore."""

from __future__ import annotations

from typing import Any, Dict, Sequence

from deployguard.onhost.places import NotManageable, read_json
from deployguard.onhost.state import supervised
from deployguard.onhost.system import System


def observe(system: System, questions: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    """Ask what the driver wants to know of its service."""
    answers: Dict[str, Any] = {}
    for question in questions:
        if question["kind"] == "process":
            answers[question["field"]] = _observe_process(question["pid_file"], system)
            continue
        if question["kind"] == "pm2":
            from deployguard.onhost.pm2 import daemon as pm2

            answers[question["field"]] = pm2.observe(question["service"], system)
            continue
        if question["kind"] == "compose":
            from deployguard.onhost.compose import stack as compose

            answers[question["field"]] = compose.observe(question, system)
            continue
        if question["kind"] == "kubernetes":
            from deployguard.onhost.kubernetes import component as kubernetes

            answers[question["field"]] = kubernetes.observe(question, system)
            continue
        result = system.run(
            question["argv"], env=question.get("env"), timeout=question.get("timeout", 30.0)
        )
        if question["kind"] == "properties":
            lines = result.stdout.decode("utf-8", "replace").splitlines()
            found: Dict[str, Any] = dict(line.split("=", 1) for line in lines if "=" in line)
            if question.get("unit"):
                from deployguard.onhost.queries import units

                refused = units.refusal(question, result, found, system)
                if refused:
                    found["refused"] = refused
            answers[question["field"]] = found
        else:
            answers[question["field"]] = {"status": result.status}
    return answers


def demand_usable(answers: Dict[str, Any]) -> None:
    """Raise :class:`NotManageable` where an answer says that the plan cannot be met here.

    Only before anything is touched: after a restore the same answer is a difference.
    """
    for answer in answers.values():
        refused = answer.get("refused")
        if refused:
            raise NotManageable(refused["message"], refused["hint"])


def rehearse(system: System, questions: Sequence[Dict[str, Any]], tree: str) -> None:
    """Try the new tree, as it stands beside the live one, where a kind of service knows how to.

    Raises :class:`NotManageable`; nothing was touched by then.
    """
    for question in questions:
        refused = None
        if question["kind"] == "kubernetes":
            from deployguard.onhost.kubernetes import component as kubernetes

            refused = kubernetes.rehearse(question, tree, system)
        if question["kind"] == "compose":
            from deployguard.onhost.compose import rehearsal

            refused = rehearsal.rehearse(question, tree, system)
        if refused:
            raise NotManageable(refused["message"], refused["hint"])


def _observe_process(pid_file: str, system: System) -> Dict[str, Any]:
    pid = supervised.running(pid_file, system)
    if pid is None:
        return {"running": False}
    identity = read_json(pid_file) or {}
    return {"running": True, "pid": pid, "started_as": identity.get("started_as", {})}

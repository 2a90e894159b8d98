"""What guards ask of a host beside the comparison of trees. Changes nothing.

A question is data: ``id``, ``kind``, and what its kind needs. The answers come back by id. One that
cannot be answered has ``unknown``, the reason; what is not known is for the controller to judge.

``limits``
    Memory, disk and open files that the machine has; with ``unit`` (and ``scope``), the bound of
    that systemd unit on open files.
``backup``
    The newest file that ``pattern`` matches; see :mod:`deployguard.onhost.queries.backups`.
"""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

from deployguard.onhost.system import System

Question = Dict[str, Any]

_SECONDS = 10.0


def answer_all(questions: Sequence[Question], system: System) -> Dict[str, Any]:
    """The answer to each question, by its id."""
    answers: Dict[str, Any] = {}
    for question in questions:
        try:
            answers[question["id"]] = _answer(question, system)
        except (OSError, ValueError) as error:
            answers[question["id"]] = {"unknown": str(error)}
    return answers


def _answer(question: Question, system: System) -> Dict[str, Any]:
    if question["kind"] == "limits":
        return _limits(question, system)
    if question["kind"] == "backup":
        # Reading archives takes modules that no other deploy needs.
        from deployguard.onhost.queries import backups

        return backups.look(question, system)
    return {"unknown": "the host does not know how to find out %r" % question["kind"]}


def _limits(question: Question, system: System) -> Dict[str, Any]:
    found: Dict[str, Any] = {"memory": _memory()}
    allocated, _, most = _words("/proc/sys/fs/file-nr")[:3]
    found["open_files"] = {"most": int(most), "used": int(allocated)}
    found["open_files"]["process"] = int(_words("/proc/sys/fs/nr_open")[0])
    if question.get("unit"):
        scope = ["--user"] if question.get("scope") == "user" else []
        show = ["systemctl", *scope, "show", "--property=LimitNOFILE,LoadState", question["unit"]]
        lines = system.run(show, timeout=_SECONDS).text.splitlines()
        properties = dict(line.split("=", 1) for line in lines if "=" in line)
        bound = properties.get("LimitNOFILE", "")
        if properties.get("LoadState") == "loaded" and bound.isdigit():
            found["open_files"]["unit"] = int(bound)
    return found


def _memory() -> int:
    """Bytes of memory that this machine has."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    raise ValueError("/proc/meminfo does not say how much memory there is")


def _words(path: str) -> List[str]:
    with open(path, encoding="ascii") as file:
        return file.read().split()

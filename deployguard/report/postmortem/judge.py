"""Whether a post-mortem is finished, and whether what it says is true. Pure.

A part is open while something asks to be written there, while there is nothing, or while one of its
boxes is not ticked. A box of the checklist is true when what it is about is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from deployguard.evidence.timeline import iso, parse_iso
from deployguard.report.postmortem.blocks import blocks_of, without_blocks
from deployguard.report.postmortem.document import ACTION_HEAD, COMPLIANCE, PARTS, SIGN_OFF

__all__ = ["Verdict", "judge"]

_HEADING = re.compile(r"^(?P<marks>#{1,6}) +(?P<text>.+?) *#*$")
_BOX = re.compile(r"^\s*[-*] \[(?P<mark>[ xX])\] (?P<text>.+)$")
_ROW = re.compile(r"^\|(.+)\|\s*$")
#: Blocks without which nothing can be held to the journals.
_NEEDED = ("about", "timeline")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class Verdict:
    """What is left to do. ``wrong`` is what is there and not true."""

    incident: str
    due_at: float | None
    open: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    completed: str = ""

    @property
    def finished(self) -> bool:
        """Whether nothing is left."""
        return not self.open and not self.wrong

    def state(self, now: float) -> Literal["finished", "open", "overdue"]:
        """In one word."""
        if self.finished:
            return "finished"
        return "overdue" if self.due_at is not None and now > self.due_at else "open"


@dataclass
class _Text:
    """A document by headings: the lines below each, down to the next that is no deeper, without
    the blocks of the machine and without headings."""

    lines: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, document: str) -> _Text:
        found = cls()
        above: list[tuple[int, str]] = []
        for line in without_blocks(document).splitlines():
            match = _HEADING.match(line)
            if match is not None:
                depth = len(match["marks"])
                above = [one for one in above if one[0] < depth]
                above.append((depth, match["text"]))
                found.lines.setdefault(match["text"], [])
            elif line.strip():
                for _, heading in above:
                    found.lines[heading].append(line.rstrip())
        return found

    def rows(self, heading: str) -> list[list[str]]:
        """The cells of a table, without its head."""
        found = [_ROW.match(line) for line in self.lines.get(heading, [])]
        rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", match[1])]
            for match in found
            if match is not None
        ]
        return rows[2:]


def judge(document: str) -> Verdict:
    """What is left of a post-mortem, from its text alone."""
    text = _Text.of(document)
    about = dict(_about(document))
    due = _due(about.get("Due", ""))
    open_parts = [part for part in PARTS if _open(text.lines.get(part))]
    left = [*(f"{part} is not written" for part in open_parts), *_actions(text)]
    signed = {row[0]: row[1] for row in text.rows("Sign-off") if len(row) == 2}
    left += [f"Sign-off: {name} is empty" for name in SIGN_OFF if not signed.get(name)]
    completed = signed.get("Completed", "")
    known = blocks_of(document)
    wrong = [f"the block `{name}` is gone" for name in _NEEDED if name not in known]
    wrong += [
        f"what the machine wrote below `{block.name}` was changed by hand; "
        "`deployguard postmortem draft` writes it anew"
        for block in known.values()
        if not block.true
    ]
    if completed and not _DATE.match(completed):
        wrong.append(f"Sign-off: Completed is not a date such as 2026-11-23: {completed}")
        completed = ""
    truths = _truths(open_parts, bool(_actions(text)), due, completed)
    boxes = _boxes(text.lines.get("Compliance", []))
    for box, about_part in COMPLIANCE.items():
        ticked, true = boxes.get(box), truths[about_part]
        if ticked and not true:
            wrong.append(f"Compliance: ticked and not true: {box}")
        elif not ticked and true:
            left.append(f"Compliance: not ticked: {box}")
    return Verdict(about.get("Incident", ""), due, tuple(left), tuple(wrong), completed)


def _open(lines: list[str] | None) -> bool:
    if not lines or any("TO WRITE" in line for line in lines):
        return True
    boxes = _boxes(lines)
    return bool(boxes) and not all(boxes.values())


def _boxes(lines: list[str]) -> dict[str, bool]:
    found = (_BOX.match(line) for line in lines)
    return {match["text"].strip(): match["mark"] in "xX" for match in found if match is not None}


def _actions(text: _Text) -> list[str]:
    rows = [row for row in text.rows("Action items") if any(row)]
    if not rows:
        return ["Action items: there is none"]
    left = []
    for row in rows:
        cells = dict(zip(ACTION_HEAD, [*row, *[""] * len(ACTION_HEAD)], strict=False))
        name = cells["ID"] or "?"
        if not cells["Action"] or "TO WRITE" in cells["Action"]:
            left.append(f"Action items: {name} is not written")
            continue
        left += [
            f"Action items: {name} has no {field.lower()}"
            for field in ("Owner", "Due", "Status")
            if not cells[field]
        ]
        if cells["Due"] and not _DATE.fullmatch(cells["Due"]):
            left.append(f"Action items: {name} is due on no date: {cells['Due']}")
    return left


def _truths(
    open_parts: list[str], actions_open: bool, due: float | None, completed: str
) -> dict[str, bool]:
    """What each box of the checklist is about, and whether it is so."""
    lessons = not any(part in open_parts for part in PARTS[-4:])
    prevention = not any(part in open_parts for part in ("Immediate", "Long-term"))
    whys = not any(part in open_parts for part in ("Five whys", "Root cause"))
    return {
        "in time": bool(completed) and (due is None or completed[:10] <= iso(due)[:10]),
        "Root cause": whys,
        "Action items": not actions_open,
        "Immediate": prevention,
        "What went well": lessons,
    }


def _about(document: str) -> list[tuple[str, str]]:
    head = blocks_of(document).get("about")
    found = (_ROW.match(line) for line in (head.text if head else "").splitlines())
    cells = [match[1].split("|", 1) for match in found if match is not None]
    return [(row[0].strip(), row[1].strip()) for row in cells if len(row) == 2]


def _due(text: str) -> float | None:
    try:
        return parse_iso(text)
    except ValueError:
        return None

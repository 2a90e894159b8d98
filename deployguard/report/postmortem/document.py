"""The post-mortem as a document: its headings, what stands below each, and what people write.

The headings are those of the SRE book and of this project's first template. A *part* is a heading
below which people have something to write; :data:`PARTS` lists them, so that a check knows when
one is still open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from deployguard.report.postmortem import parts
from deployguard.report.postmortem.blocks import ask, block
from deployguard.report.postmortem.facts import Facts

__all__ = ["ACTION_HEAD", "COMPLIANCE", "PARTS", "SIGN_OFF", "blocks", "document"]

#: Headings with a part for people; all of them are asked for.
PARTS: tuple[str, ...] = (
    "Executive summary",
    "What happened",
    "Five whys",
    "Root cause",
    "Contributing factors",
    "Detection and response",
    "Users",
    "Business",
    "Data",
    "Remediation",
    "Immediate",
    "Long-term",
    "What went well",
    "What went poorly",
    "Where we were lucky",
    "What surprised us",
)

#: The boxes of the checklist, each with the part that it is about.
COMPLIANCE: dict[str, str] = {
    "Finished in time": "in time",
    "Root cause found and written down": "Root cause",
    "Action items have an owner and a due date": "Action items",
    "Prevention done or scheduled": "Immediate",
    "Lessons written down": "What went well",
}

ACTION_HEAD = ("ID", "Action", "Owner", "Due", "Status", "Ticket")

_WHYS = ("why did it fail?", *["and why was that?"] * 4)

#: What is filled in at the end.
SIGN_OFF = ("Author", "Completed", "Reviewed by", "Action items tracked in")


def blocks(facts: Facts, redact: Callable[[str], str]) -> dict[str, str]:
    """Every block of the machine's, as the facts are now."""
    return {name: block(name, part(facts), redact) for name, part in parts.BLOCKS.items()}


def document(facts: Facts, redact: Callable[[str], str]) -> str:
    """The whole document, as it is handed to people."""
    made = blocks(facts, redact)
    title = redact(" ".join(parts.title_of(facts).split()))
    return "\n".join([f"# {title}", "", *_body(made)]) + "\n"


def _body(made: Mapping[str, str]) -> Iterable[str]:
    yield (
        "What stands between the marks of deployguard is from the journals, and is written anew by "
        "`deployguard postmortem draft`. The rest is for people: replace each line with TO WRITE "
        "in it. `deployguard postmortem check` says what is left."
    )
    yield from ("", made["about"], "")
    yield from _section(
        "Executive summary",
        made["summary"],
        [ask("the root cause, what users noticed, and how it ended, in two or three sentences")],
    )
    yield from ("## Compliance", "")
    yield from (f"- [ ] {box}" for box in COMPLIANCE)
    yield ""
    yield from _section("Timeline", made["timeline"], ["### Durations", "", made["durations"]])
    yield from ("## Root cause analysis", "")
    yield from _section(
        "What happened", made["failed"], [ask("what went wrong, technically")], "###"
    )
    whys = [f"{number}. TO WRITE: {why}" for number, why in enumerate(_WHYS, start=1)]
    yield from _section("Five whys", "", whys, "###")
    yield from _section("Root cause", "", [ask("the last why, in one sentence")], "###")
    yield from _section(
        "Contributing factors",
        made["factors"],
        [ask("what else helped it along: tests, environments that differ, documents, words")],
    )
    yield from _section(
        "Detection and response",
        made["detection"],
        [
            "### Response quality",
            "",
            made["response"],
            "",
            "### Safeguards",
            "",
            made["safeguards"],
            "",
            "### Assessment",
            "",
            ask("could it have been noticed earlier, and was the response what it should be"),
        ],
    )
    yield from ("## Impact", "")
    yield from _section("Users", made["downtime"], [ask("how many noticed, and what")], "###")
    yield from _section("Business", "", [ask("revenue, promises, reputation; or none")], "###")
    yield from _section(
        "Data",
        made["data"],
        [
            "- [ ] No data was lost",
            "- [ ] No data was corrupted",
            "- [ ] The databases are consistent",
            "- [ ] The backups are intact",
        ],
        "###",
    )
    yield from _section(
        "Remediation", made["done"], [ask("what people did beside that, and what is left")]
    )
    yield from ("## Prevention", "")
    yield from _section("Immediate", "", [ask("what was changed at once")], "###")
    yield from _section("Long-term", "", [ask("what will be changed, and when")], "###")
    yield from ("## Action items", "")
    yield f"| {' | '.join(ACTION_HEAD)} |"
    yield "|" + "---|" * len(ACTION_HEAD)
    yield "| 1 | TO WRITE | | YYYY-MM-DD | open | |"
    yield from ("", "## Lessons", "")
    for heading in PARTS[-4:]:
        yield from _section(heading, "", [ask("at least one line, or: nothing")], "###")
    yield from ("## Appendix", "", made["appendix"], "")
    yield from ("## Sign-off", "")
    yield from ("| | |", "|---|---|")
    yield from (f"| {field} | |" for field in SIGN_OFF)


def _section(heading: str, known: str, asked: Iterable[str], level: str = "##") -> Iterable[str]:
    yield from (f"{level} {heading}", "")
    if known:
        yield from (known, "")
    yield from asked
    yield ""

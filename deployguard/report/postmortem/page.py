"""A post-mortem as one page of HTML that needs no network.

HTML in the text stays text, and a link leads to the web or beside the page. What the machine wrote
is not told apart: the marks are comments.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deployguard.report.page.render import hash_of
from deployguard.report.postmortem.judge import Verdict

if TYPE_CHECKING:
    from markdown_it.token import Token

__all__ = ["STYLE_SOURCE", "page"]

_MARKS = re.compile(r"^<!-- deployguard:(?:begin|end) .*-->\n?", re.MULTILINE)
_BOX = re.compile(r"^\[([ xX])\] ")

_STYLE = """\
:root { color-scheme: light dark; --line: #8886; --ask: #b45309; --soft: #8881; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; background: Canvas; color: CanvasText; overflow-wrap: anywhere; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: 1rem 0; }
th, td { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top; }
th:empty { display: none; } tbody tr:nth-child(even) { background: var(--soft); }
code { background: var(--soft); padding: 0 .25em; overflow-wrap: anywhere; }
blockquote { margin: 1rem 0; padding: .25rem 1rem; border-left: 4px solid var(--ask); }
li.box { list-style: none; margin-left: -1.2rem; }
.state { border: 2px solid var(--ask); padding: .5rem 1rem; }
@media print { body { max-width: none; margin: 0; } h2 { break-after: avoid; } tr { break-inside: avoid; } }
"""  # noqa: E501 - a rule a line
#: How a policy names the style.
STYLE_SOURCE = hash_of(_STYLE)


def page(document: str, verdict: Verdict, now: float) -> str:
    """The page; where the post-mortem is not finished it says what is left."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(_MARKS.sub("", document))
    title = next(
        (tokens[i + 1].content for i, one in enumerate(tokens) if one.type == "heading_open"),
        "Post-mortem",
    )
    body = parser.renderer.render(_with_boxes(tokens), parser.options, {})
    body = body.replace("<table>", '<div class="scroll"><table>').replace(
        "</table>", "</table></div>"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        f"content=\"default-src 'none'; style-src {STYLE_SOURCE}; base-uri 'none'; "
        "form-action 'none'\">\n"
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{_state(verdict, now)}{body}</main>\n</body>\n</html>\n"
    )


def _state(verdict: Verdict, now: float) -> str:
    if verdict.finished:
        return ""
    left = [*verdict.wrong, *verdict.open]
    items = "".join(f"<li>{html.escape(text)}</li>" for text in left)
    word = "This post-mortem is not finished"
    if verdict.state(now) == "overdue":
        word += " and is overdue"
    return (
        f'<details class="state"><summary>{word}: {len(left)} left</summary>'
        f"<ul>{items}</ul></details>\n"
    )


def _with_boxes(tokens: Sequence[Token]) -> Any:
    """``[x]`` at the beginning of an item as a box that is read aloud."""
    for number, token in enumerate(tokens):
        before = tokens[number - 2] if number >= 2 else None
        found = _BOX.match(token.content) if token.type == "inline" else None
        if found is None or before is None or before.type != "list_item_open":
            continue
        ticked = found[1] in "xX"
        before.attrSet("class", "box")
        first = (token.children or [])[0]
        first.content = first.content[4:]
        box = first.copy(type="html_inline", tag="", content=_box(ticked))
        token.children = [box, *(token.children or [])]
    return tokens


def _box(ticked: bool) -> str:
    mark, word = ("☑", "done") if ticked else ("☐", "not done")
    return f'<span role="img" aria-label="{word}">{mark}</span> '

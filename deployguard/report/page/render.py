"""Fills the templates of the pages. Every text is escaped; a page fetches nothing and runs nothing.

The templates are beside this module and part of the package.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Any

from deployguard.evidence.timeline import iso, lasting

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["POLICY", "render", "style"]

#: How many paths of a list are shown.
_PATHS = 30


@functools.lru_cache(maxsize=1)
def style() -> str:
    """The one style sheet, which stands in every page."""
    folder = resources.files("deployguard.report.page") / "templates"
    return (folder / "style.css").read_text(encoding="utf-8")


@functools.lru_cache(maxsize=1)
def POLICY() -> str:  # noqa: N802 - a constant that is worked out once
    """What a page may do: use its own style, which is known by its hash, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


@functools.lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("deployguard.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(iso=iso, took=lasting)
    made.globals["page_most"] = _PATHS
    return made


def render(template: str, **values: Any) -> str:
    """The page of a template."""
    from markupsafe import Markup

    # Our own file, of which the hash is in the policy: to escape it would change it.
    css = Markup(style())  # noqa: S704
    return _environment().get_template(template).render(style=css, **values)

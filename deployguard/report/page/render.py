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

__all__ = ["environment", "filled", "hash_of", "render", "style", "style_source"]

#: How many paths of a list are shown.
_PATHS = 30


@functools.lru_cache(maxsize=1)
def style() -> str:
    """The one style sheet, which stands in every page."""
    folder = resources.files("deployguard.report.page") / "templates"
    return (folder / "style.css").read_text(encoding="utf-8")


@functools.lru_cache(maxsize=1)
def style_source() -> str:
    """How a policy names the style sheet: by its hash."""
    return hash_of(style())


def hash_of(text: str) -> str:
    """How a policy names a text that stands in a page."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


@functools.lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates. What is undefined is an error, and every text is escaped."""
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


def filled(templates: Environment, template: str, **values: Any) -> str:
    """The page of a template among some."""
    from markupsafe import Markup

    # Our own file, of which the hash is in the policy: to escape it would change it.
    css = Markup(style())  # noqa: S704
    return templates.get_template(template).render(style=css, **values)


def render(template: str, **values: Any) -> str:
    """A page that stands alone: it may use its own style, and nothing else."""
    policy = f"default-src 'none'; style-src {style_source()}; base-uri 'none'; form-action 'none'"
    return filled(environment(), template, policy=policy, **values)

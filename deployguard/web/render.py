"""Fills the pages of `serve`, with the templates and the style of the report."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from deployguard.report.page import render as report

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["page"]


@functools.lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import ChoiceLoader, PackageLoader

    theirs = report.environment()
    assert theirs.loader is not None
    return theirs.overlay(loader=ChoiceLoader([PackageLoader("deployguard.web"), theirs.loader]))


def page(template: str, **values: Any) -> str:
    """The page of a template."""
    return report.filled(_environment(), template, policy="", **values)

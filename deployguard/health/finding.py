"""What is wrong, in words: the one record that reports and incidents are written from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """One check that failed, one layer that disagrees, one step that broke, in words.

    ``layer`` is the kind of a check (``process``, ``port``, ``http``, ``postgres``, …), ``step``,
    ``connection``, ``guard``, ``drift``, ``disagreement`` or ``log``. ``evidence`` is what was
    seen, or the mend.
    """

    host: str
    component: str
    layer: str
    name: str
    message: str
    critical: bool = True
    evidence: str = ""

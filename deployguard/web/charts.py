"""Columns of a chart, in the units of the drawing. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Chart", "Column", "columns"]

WIDTH = 760.0
HEIGHT = 150.0
LEFT = 10.0
_FLOOR = HEIGHT - 22.0
_CEILING = 18.0


@dataclass(frozen=True)
class Column:
    """A column: ``good`` below, ``bad`` on top of it, and what stands above and below them."""

    x: float
    width: float
    good_y: float
    good_height: float
    bad_y: float
    bad_height: float
    label: str
    words: str


@dataclass(frozen=True)
class Chart:
    """All of them."""

    title: str
    width: float
    height: float
    floor: float
    columns: tuple[Column, ...]
    spoken: str


def columns(
    title: str,
    labels: Sequence[str],
    good: Sequence[float | None],
    bad: Sequence[float] | None = None,
    words: Sequence[str] = (),
) -> Chart:
    """A chart of some values; ``words`` stand above the columns."""
    tops = list(bad) if bad is not None else [0.0] * len(good)
    most = max([(low or 0.0) + top for low, top in zip(good, tops, strict=True)], default=0.0)
    scale = (_FLOOR - _CEILING) / most if most > 0 else 0.0
    step = (WIDTH - 2 * LEFT) / max(len(labels), 1)
    drawn = []
    for number, (label, low, top, word) in enumerate(zip(labels, good, tops, words, strict=True)):
        height, above = (low or 0.0) * scale, top * scale
        drawn.append(
            Column(
                x=round(LEFT + number * step + step * 0.15, 1),
                width=round(step * 0.7, 1),
                good_y=round(_FLOOR - height, 1),
                good_height=round(height, 1),
                bad_y=round(_FLOOR - height - above, 1),
                bad_height=round(above, 1),
                label=label,
                words=word,
            )
        )
    spoken = "; ".join(f"{one.label}: {one.words}" for one in drawn)
    return Chart(title, WIDTH, HEIGHT, _FLOOR, tuple(drawn), spoken)

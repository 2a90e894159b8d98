"""The shapes of log lines: what is the same in lines that say the same thing.

A miner in the manner of Drain (He, Zhu, Zheng, Lyu: "Drain: an online log parsing approach with
fixed depth tree"). A line is cut into words; what has a digit in it is a variable at once. Lines
with as many words and the same first word are compared with the shapes known for these, and join
the most similar one: where they differ the shape has a variable from then on. So memory is bounded
by the number of shapes, and a line costs the comparison with the few of its own kind.

A shape becomes general only by lines that show that a word varies. :meth:`Miner.knows` asks for a
line that fits a shape as it stands: a word that was always the same and is another one now is news.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterable, List, Optional, Tuple

VARIABLE = "<*>"
MAX_SHAPES = 200
#: Words of a line that are compared; the end of a long line rarely tells what kind it is.
MAX_WORDS = 30
MAX_TEXT = 400
#: How much of a line must be the same for it to join a shape.
SIMILAR = 0.6

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_RUN = re.compile(r"[0-9A-Za-z]+")
_JOINED = re.compile(r"<\*>(?:[.:,_+/-]{0,2}<\*>)+")
#: Where a program that logs JSON says what happened, and how bad it is.
_MESSAGES = ("msg", "message", "error", "err", "exception", "event", "text")
_LEVELS = ("level", "severity", "lvl", "levelname", "log.level")
_CALENDAR = frozenset(
    ["mon", "tue", "wed", "thu", "fri", "sat", "sun", "utc"]
    + ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
)
#: pino and bunyan write numbers.
_NUMBERED = {50: "error", 60: "fatal"}


class Shape:
    """One kind of line."""

    __slots__ = ("count", "example", "words")

    def __init__(self, words: List[str], example: str) -> None:
        self.words = words
        self.example = example
        self.count = 1

    def __str__(self) -> str:
        return " ".join(self.words)

    def fits(self, words: List[str]) -> bool:
        """Whether a line of as many words is of this kind."""
        return all(ours in (VARIABLE, theirs) for ours, theirs in zip(self.words, words))

    def similarity(self, words: List[str]) -> float:
        """The share of words that are the same and no variables."""
        same = sum(a == b and a != VARIABLE for a, b in zip(self.words, words))
        return same / len(words)

    def join(self, words: List[str]) -> None:
        """One more line of this kind."""
        self.count += 1
        self.words = [a if a == b else VARIABLE for a, b in zip(self.words, words)]


class Miner:
    """Learns the shapes of lines; those beyond ``limit`` are not kept, and :attr:`full` says so."""

    def __init__(self, limit: int = MAX_SHAPES) -> None:
        self._groups: Dict[Tuple[int, str], List[Shape]] = {}
        self._limit = limit
        self.shapes: List[Shape] = []
        self.full = False

    def learn(self, line: str) -> None:
        """Take one line."""
        words = words_of(line)
        if not words:
            return
        group = self._groups.setdefault(_key(words), [])
        best: Optional[Shape] = None
        most = 0.0
        for shape in group:
            if shape.fits(words):
                shape.join(words)
                return
            similarity = shape.similarity(words)
            if similarity > most:
                best, most = shape, similarity
        if best is not None and most >= SIMILAR:
            best.join(words)
        else:
            self._add(group, words, line)

    def remember(self, shapes: Iterable[str]) -> None:
        """Take shapes as they were written down: ``str(shape)``."""
        for text in shapes:
            words = text.split()[:MAX_WORDS]
            if words:
                self._add(self._groups.setdefault(_key(words), []), words, text)

    def knows(self, line: str) -> bool:
        """Whether a line is of a kind that was learnt; nothing is learnt from asking."""
        words = words_of(line)
        if not words:
            return True
        return any(shape.fits(words) for shape in self._groups.get(_key(words), ()))

    def _add(self, group: List[Shape], words: List[str], line: str) -> None:
        if len(self.shapes) >= self._limit:
            self.full = True
            return
        shape = Shape(words, line.strip()[:MAX_TEXT])
        group.append(shape)
        self.shapes.append(shape)


def _key(words: List[str]) -> Tuple[int, str]:
    return len(words), words[0]


def words_of(line: str) -> List[str]:
    """The words of a line with its variables masked, without the time at its start."""
    text = _UUID.sub(VARIABLE, plain(line)[:MAX_TEXT])
    words = [_masked(word) for word in text.split()[:MAX_WORDS]]
    first = next((at for at, word in enumerate(words) if not _is_time(word)), len(words))
    return words[first:]


def _masked(word: str) -> str:
    if not any(character.isdigit() for character in word):
        return word
    masked = _RUN.sub(_mask, word)
    return _JOINED.sub(VARIABLE, masked)


def _mask(run: Any) -> str:
    text: str = run.group()
    return VARIABLE if any(character.isdigit() for character in text) else text


def _is_time(word: str) -> bool:
    """Whether a word may be part of the time at the start of a line; its day is another one."""
    bare = word.strip("[](){}<>,;:.*-|")
    return not bare.strip("TZ<>*") or bare.lower() in _CALENDAR


def plain(line: str) -> str:
    """The line as it is; of one that is a JSON object the level and the message."""
    if not line.startswith("{"):
        return line
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return line
    message = next((fields[name] for name in _MESSAGES if isinstance(fields.get(name), str)), None)
    if message is None:
        return line
    level = next((fields[name] for name in _LEVELS if name in fields), "")
    level = _NUMBERED.get(level, level) if isinstance(level, int) else level
    return "%s: %s" % (level, message) if isinstance(level, str) and level else message

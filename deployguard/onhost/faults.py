"""Named points at which a drill, or a test, lets something go wrong on this host.

Each record of the journal is two points, ``before KIND`` and ``after KIND``, since what matters of
a crash is which records it finds; operations have their id as well (``after done app:stop``). The
controller asks for faults in ``begin`` and ``adopt``; without any, nothing here does anything.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence

Fault = Dict[str, Any]

#: What may be asked for at a point.
ACTIONS = ("note", "kill", "stop", "wait", "full", "cut")

#: How often one that waits looks whether it may go on, in seconds.
_GLANCE = 0.02


class Faults:
    """What is to go wrong in one process.

    An item has ``point`` (``*`` is every point), ``action`` and ``times``, how often it happens,
    once by default. By action:

    ``note``
        The point's name is sent as an event.
    ``kill``, ``stop``
        The program gets SIGKILL, or SIGSTOP.
    ``wait``
        The file ``path`` is made, and the program waits until it is gone, or to be killed: what
        happens meanwhile, a power cut or a cut network, happens at exactly this point.
    ``full``
        The disk is full: ENOSPC, or what ``error`` names (``EIO``, ``EROFS``, ``EDQUOT``).
    ``cut``
        The connection is gone.
    """

    def __init__(
        self,
        wanted: Optional[Sequence[Fault]],
        emit: Callable[[Dict[str, Any]], None],
        cut: Callable[[], None],
    ) -> None:
        self._wanted: List[Fault] = [
            dict(fault, left=fault.get("times", 1)) for fault in wanted or ()
        ]
        self._emit = emit
        self._cut = cut

    def reach(self, point: str) -> None:
        """Called at each point. Raises :class:`OSError` for a disk that is full."""
        for fault in self._wanted:
            if fault["point"] not in (point, "*"):
                continue
            if fault["action"] == "note":
                self._emit({"point": point})
            elif fault["left"] > 0:
                fault["left"] -= 1
                self._happen(fault, point)

    def _happen(self, fault: Fault, point: str) -> None:
        action = fault["action"]
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif action == "wait":
            with open(fault["path"], "w", encoding="utf-8") as file:
                file.write(point)
            while os.path.exists(fault["path"]):
                threading.Event().wait(_GLANCE)
        elif action == "full":
            number = getattr(errno, fault.get("error", "ENOSPC"))
            raise OSError(number, os.strerror(number), point)
        elif action == "cut":
            self._cut()
        else:
            raise ValueError("no such fault: %r" % action)

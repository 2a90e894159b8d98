"""One stream of bytes for many readers: produced once, spooled to disk, each at its own pace."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator

PIECE = 64 * 1024


class SharedStream:
    """Runs ``produce`` in a thread of its own as soon as there is a first reader.

    The producer never waits for a reader: a host on a slow line holds up nobody.
    """

    def __init__(self, produce: Callable[[], Iterator[bytes]]) -> None:
        self._produce = produce
        self._changed = threading.Condition()
        self._spool = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - until close()
        self._length = 0
        self._complete = False
        self._closed = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def pieces(self) -> Iterator[bytes]:
        """The stream from its start, in pieces of at most ``PIECE`` bytes.

        Raises what the producer raised, to every reader.
        """
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._run, name="deployguard-spool", daemon=True
                )
                self._thread.start()
        return self._read()

    def close(self) -> None:
        """Stop the producer and drop the spool."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        with self._changed:
            self._spool.close()

    def _read(self) -> Iterator[bytes]:
        at = 0
        while True:
            with self._changed:
                while at == self._length and not (self._complete or self._closed):
                    self._changed.wait()
                if self._closed:
                    raise ValueError("the stream was closed while it was read")
                if at == self._length:
                    if self._error is not None:
                        raise self._error
                    return
                # Inside the lock, so that the descriptor cannot be closed, and reused, under us.
                piece = os.pread(self._spool.fileno(), min(PIECE, self._length - at), at)
            at += len(piece)
            yield piece

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for piece in self._produce():
                rest = memoryview(piece)
                while rest:
                    rest = rest[self._spool.write(rest) :]
                with self._changed:
                    self._length += len(piece)
                    self._changed.notify_all()
                    if self._closed:
                        return
        except BaseException as raised:  # noqa: BLE001 - it belongs to the readers
            error = raised
        finally:
            with self._changed:
                self._error = error
                self._complete = True
                self._changed.notify_all()

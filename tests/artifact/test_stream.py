"""One stream for many hosts: produced once, read by each at its own pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployguard.artifact.release import open_artifact
from deployguard.artifact.stream import PIECE, SharedStream
from deployguard.onhost.trees import blobs
from tests.artifact.archives import member, write


def test_many_readers_share_one_production(tmp_path: Path) -> None:
    """Forty hosts ask for the same contents; they are compressed once."""
    started = []

    def produce() -> Iterator[bytes]:
        started.append(True)
        for number in range(200):
            yield bytes([number]) * 1000

    stream = SharedStream(produce)
    with ThreadPoolExecutor(40) as hosts:
        results = list(hosts.map(lambda _: b"".join(stream.pieces()), range(40)))
    assert len(set(results)) == 1
    assert len(results[0]) == 200_000
    assert started == [True]
    stream.close()


def test_readers_are_served_while_it_is_produced() -> None:
    """The first piece travels before the last one exists, and a slow reader holds up nobody."""
    more = threading.Event()

    def produce() -> Iterator[bytes]:
        yield b"first"
        assert more.wait(30)
        yield b"second" * PIECE

    stream = SharedStream(produce)
    slow, quick = stream.pieces(), stream.pieces()
    assert next(quick) == b"first"
    more.set()
    rest = list(quick)
    assert max(len(piece) for piece in rest) == PIECE
    assert b"".join(slow) == b"first" + b"".join(rest)
    stream.close()


def test_a_failure_reaches_every_reader() -> None:
    """Those who wait and those who come later."""

    def produce() -> Iterator[bytes]:
        yield b"some"
        raise OSError("broken")

    stream = SharedStream(produce)
    for _ in range(3):
        with pytest.raises(OSError, match="broken"):
            list(stream.pieces())
    stream.close()


def test_closing_wakes_readers_and_stops_the_producer() -> None:
    """A reader that would wait for ever gets an error; nothing is left running."""
    stopped = threading.Event()

    def produce() -> Iterator[bytes]:
        try:
            while True:
                yield b"x"
                time.sleep(0.001)
        finally:
            stopped.set()

    stream = SharedStream(produce)
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(lambda: sum(map(len, stream.pieces())))
        time.sleep(0.02)
        stream.close()
        with pytest.raises(ValueError, match="closed"):
            reader.result(30)
    assert stopped.wait(30)


def test_a_release_shares_streams_by_what_is_asked_for(tmp_path: Path) -> None:
    """Whatever the order of the digests; other sets are other streams; unknown ones an error."""
    path = write(tmp_path, [member("a", b"1"), member("b", b"2"), member("c", b"1")])
    release = open_artifact(path)
    one, two = release.manifest.blobs()
    both = list(release.blob_stream([one, two]))
    assert both == list(release.blob_stream(iter([two, one, two])))
    assert both != list(release.blob_stream([one]))
    store = tmp_path / "store"
    store.mkdir()
    assert blobs.receive(both, str(store), release.manifest.blobs()) == [one, two]
    assert blobs.receive(release.blob_stream([]), str(store), {}) == []
    with pytest.raises(ValueError, match="not in"):
        release.blob_stream(["0" * 64])
    release.close()
    release.close()
    with pytest.raises(ValueError, match="closed"):
        release.blob_stream([one])

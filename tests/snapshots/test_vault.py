"""Snapshots in both kinds of store: whole or not there, damaged ones told, and none lost."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployguard.onhost.trees.manifest import Entry, Manifest
from deployguard.snapshots.base import Damaged, SnapshotError, SnapshotMissing, StoreAway, WrongKey
from deployguard.snapshots.bucket import BucketStore
from deployguard.snapshots.directory import DirectoryStore
from deployguard.snapshots.record import Component, File, Snapshot
from deployguard.snapshots.retention import prune
from deployguard.snapshots.vault import Vault
from tests.servers.bucket import Bucket
from tests.snapshots.conftest import KEY, OTHER_KEY, Place

DAY = 24 * 3600.0
SENTINEL = b"the password is hunter2-sentinel"
KEYS = pytest.mark.parametrize("keys", [(), (KEY,)], ids=["plain", "sealed"])


def digest_of(data: bytes) -> str:
    """The sha256 in hex."""
    return hashlib.sha256(data).hexdigest()


def take(vault: Vault, number: int, *contents: bytes, host: str = "web1") -> Snapshot:
    """A snapshot of a tree with these files, written as an upload writes one."""
    entries = [Entry(".", "d", 0o755)]
    entries += [
        Entry(f"file{at}", "f", 0o644, len(data), 1, digest_of(data))
        for at, data in enumerate(contents)
    ]
    tree = Manifest(entries).to_bytes()
    identifier = f"2026112{number}T010203-shop-{number:06x}"
    objects = {digest_of(data): data for data in (tree, *contents)}
    there = vault.there()
    for digest, data in objects.items():
        if vault.object_of(digest) not in there:
            vault.keep(digest, len(data), [data])
    component = Component(
        f"v{number}", "/srv/shop", "releases", digest_of(tree), len(tree), len(entries), 0
    )
    snapshot = Snapshot(
        identifier, "shop", "production", 1.0, "me", {host: {"web": component}}, vault.key
    )
    vault.write(snapshot)
    return snapshot


def read_all(vault: Vault, snapshot: Snapshot) -> list[bytes]:
    """Every content of its trees, in the order of the paths."""
    found = []
    for _, _, component in snapshot.components():
        for entry in vault.manifest(snapshot, component):
            if entry.kind == "f":
                found.append(b"".join(vault.content(entry.digest, entry.size, snapshot.key)))
    return found


@KEYS
def test_what_was_kept_comes_back(either: Place, keys: tuple[bytes, ...]) -> None:
    """Record, tree and contents; the newest is the one without a name, a beginning is enough."""
    vault = either.vault(*keys)
    contents = (SENTINEL, b"", os.urandom(300_000))
    first, second = take(vault, 1, *contents), take(vault, 2, b"other")
    again = either.vault(*keys)
    assert again.ids() == [first.id, second.id]
    assert again.snapshot() == second
    assert again.snapshot(first.id[:12]) == again.snapshot(first.id) == first
    assert read_all(again, first) == list(contents)


@KEYS
def test_a_content_is_kept_once(place: Place, keys: tuple[bytes, ...]) -> None:
    """The second snapshot of the same adds a record and nothing else."""
    vault = place.vault(*keys)
    take(vault, 1, b"one", b"two")
    before = place.objects()
    take(vault, 2, b"one", b"two")
    after = place.objects()
    assert {name: data for name, data in after.items() if "/snapshots/" not in name} == {
        name: data for name, data in before.items() if "/snapshots/" not in name
    }
    assert len(after) == len(before) + 1


def test_a_sealed_store_gives_nothing_away(either: Place) -> None:
    """Neither a content nor a path nor a hash of one, in no object and in no name."""
    vault = either.vault(KEY)
    snapshot = take(vault, 1, SENTINEL, SENTINEL * 1000)
    text = b"".join(name.encode() + data for name, data in either.objects().items())
    (_, _, component) = next(snapshot.components())
    secrets = (SENTINEL, b"hunter2", b"file0", b"/srv/shop", KEY, KEY.hex().encode())
    digests = [component.tree, digest_of(SENTINEL), digest_of(SENTINEL * 1000)]
    for secret in (*secrets, *(digest.encode() for digest in digests)):
        assert secret not in text
    # The same search finds it where nothing is sealed.
    take(either.vault(), 1, os.urandom(50) + SENTINEL)
    assert digest_of(SENTINEL)[:8].encode() not in text
    assert b"/srv/shop" not in text


@KEYS
def test_a_torn_upload_is_no_snapshot(place: Place, keys: tuple[bytes, ...]) -> None:
    """It died before the record: there is none, and the next one goes on with what is there."""
    vault = place.vault(*keys)
    good = take(vault, 1, b"one")
    vault.keep(digest_of(b"torn"), 4, [b"torn"])
    assert place.vault(*keys).ids() == [good.id]
    assert vault.object_of(digest_of(b"torn")) in vault.there()
    second = take(vault, 3, b"torn")
    assert read_all(vault, second) == [b"torn"]


class Dying:
    """A store whose connection breaks after so many objects."""

    def __init__(self, store: object, after: int) -> None:
        self._store, self.left = store, after

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def put(self, *arguments: object) -> None:
        """Works so many times."""
        self.left -= 1
        if self.left < 0:
            raise StoreAway("the line is cut")
        self._store.put(*arguments)  # type: ignore[attr-defined]


@KEYS
@pytest.mark.parametrize("after", range(4))
def test_killed_at_every_object(tmp_path: Path, keys: tuple[bytes, ...], after: int) -> None:
    """Wherever an upload dies: no snapshot of it, the older one whole, and the next one whole."""
    from tests.snapshots.conftest import directory_place

    place = directory_place(tmp_path / "store")
    older = take(place.vault(*keys), 1, b"one")
    vault = place.vault(*keys)
    vault._store = Dying(place.store, after)  # type: ignore[assignment]
    with pytest.raises(StoreAway):
        take(vault, 2, b"one", b"two", b"three")
    again = place.vault(*keys)
    assert again.snapshot() == older and read_all(again, older) == [b"one"]
    newer = take(again, 3, b"one", b"two", b"three")
    assert read_all(again, newer) == [b"one", b"two", b"three"]


@KEYS
@pytest.mark.parametrize("how", ["changed", "cut", "empty", "swapped", "missing"])
def test_a_damaged_content_is_told(place: Place, keys: tuple[bytes, ...], how: str) -> None:
    """Never handed out as if it were whole."""
    vault = place.vault(*keys)
    contents = (b"first " * 50, b"other " * 50)
    snapshot = take(vault, 1, *contents)
    names = [f"shop/production/{'sealed' if keys else 'plain'}/{vault.object_of(digest_of(data))}"
             for data in contents]  # fmt: skip
    data = place.objects()[names[0]]
    middle = len(data) // 2
    if how == "missing":
        vault.remove(vault.object_of(digest_of(contents[0])))
    else:
        place.put(
            names[0],
            {
                "changed": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
                "cut": data[:-1],
                "empty": b"",
                "swapped": place.objects()[names[1]],
            }[how],
        )
    with pytest.raises(SnapshotMissing if how == "missing" else Damaged):
        read_all(vault, snapshot)


@KEYS
@pytest.mark.parametrize("how", ["cut", "another"])
def test_a_damaged_record_is_told(place: Place, keys: tuple[bytes, ...], how: str) -> None:
    """One that is cut off, and one that lies under the name of another."""
    vault = place.vault(*keys)
    first, second = take(vault, 1, b"one"), take(vault, 2, b"two")
    folder = f"shop/production/{'sealed' if keys else 'plain'}/snapshots"
    data = place.objects()[f"{folder}/{first.id}"]
    place.put(f"{folder}/{second.id}", data[:-3] if how == "cut" else data)
    with pytest.raises(Damaged):
        vault.snapshot(second.id)
    assert vault.snapshot(first.id) == first


def test_another_key(place: Place) -> None:
    """One clear error with both ids; a ring with both keys reads it, and seals with the first."""
    first = take(place.vault(KEY), 1, SENTINEL)
    with pytest.raises(WrongKey, match="is encrypted with the key"):
        place.vault(OTHER_KEY).snapshot()
    both = place.vault(OTHER_KEY, KEY)
    second = take(both, 2, SENTINEL)
    assert first.key != second.key
    assert [read_all(both, each) for each in (first, second)] == [[SENTINEL], [SENTINEL]]


def test_with_and_without_a_key_are_two_places(place: Place) -> None:
    """Each says that the other is there, and how to get at it."""
    take(place.vault(KEY), 1, b"one")
    with pytest.raises(SnapshotMissing) as told:
        place.vault().snapshot()
    assert "encrypted: name the key" in told.value.hint
    with pytest.raises(SnapshotMissing) as told:
        place.vault(KEY, environment="staging/eu").snapshot()
    assert "a deploy takes one" in told.value.hint


# --- retention ------------------------------------------------------------------------------------


def kept(vault: Vault) -> list[tuple[str, list[bytes]]]:
    """Every snapshot with its contents, read whole."""
    return [(each, read_all(vault, vault.snapshot(each))) for each in vault.ids()]


def test_what_a_snapshot_needs_stays(either: Place) -> None:
    """The oldest go; contents go a day after nothing named them, and never before."""
    vault = either.vault(KEY)
    for number in range(1, 4):
        take(vault, number, b"in all of them", b"only in %d" % number)
    everything = kept(vault)
    assert prune(vault, 3, 0.0).snapshots == ()
    assert kept(vault) == everything
    assert len(prune(vault, 2, 0.0).snapshots) == 1
    assert kept(vault) == everything[1:]
    objects = len(vault.all())
    assert prune(vault, 2, DAY - 1).contents == 0
    assert len(vault.all()) == objects
    # A tree and a content.
    assert prune(vault, 2, DAY).contents == 2
    assert len(vault.all()) == objects - 2
    assert kept(vault) == everything[1:]
    assert prune(vault, 2, 9 * DAY).contents == 0


@KEYS
def test_what_is_on_its_way_out_is_sent_again(place: Place, keys: tuple[bytes, ...]) -> None:
    """An upload does not rely on it; once a snapshot names it, it stays."""
    vault = place.vault(*keys)
    take(vault, 1, b"old")
    take(vault, 2, b"new")
    prune(vault, 1, 0.0)
    name = vault.object_of(digest_of(b"old"))
    assert name in vault.all() and name not in vault.there()
    third = take(vault, 3, b"old")
    prune(vault, 1, 9 * DAY)
    assert kept(vault) == [(third.id, [b"old"])]
    assert name in vault.there()


@KEYS
def test_nothing_is_removed_where_a_snapshot_cannot_be_read(
    place: Place, keys: tuple[bytes, ...]
) -> None:
    """It may need anything."""
    vault = place.vault(*keys)
    for number in range(1, 4):
        take(vault, number, b"%d" % number)
    prune(vault, 2, 0.0)
    folder = f"shop/production/{'sealed' if keys else 'plain'}/snapshots"
    place.put(f"{folder}/{vault.ids()[0]}", b"DGP1nonsense")
    before = vault.all()
    with pytest.raises(SnapshotError):
        prune(vault, 2, 9 * DAY)
    assert vault.all() == before


# --- the stores -----------------------------------------------------------------------------------


def test_a_directory_is_for_its_owner_only(tmp_path: Path) -> None:
    """0700 and 0600, whatever the umask; nothing half-written is left or listed."""
    store = tmp_path / "store"
    store.mkdir()
    old = os.umask(0)
    try:
        take(Vault(DirectoryStore(str(store)), _plain(), "shop", "prod"), 1, b"one")
    finally:
        os.umask(old)
    for path in store.rglob("*"):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
        assert not path.name.startswith(".")


def _plain() -> object:
    from deployguard.snapshots.sealing import Keyring

    return Keyring()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """It may be a disk that is not mounted: it is not made, and the mend says so."""
    store = tmp_path / "mnt" / "backup"
    vault = Vault(DirectoryStore(str(store)), _plain(), "shop", "prod")  # type: ignore[arg-type]
    for act in (vault.ids, lambda: take(vault, 1, b"one"), vault.snapshot):
        with pytest.raises(StoreAway) as told:
            act()
        assert "mount it" in told.value.hint
    assert not store.parent.exists()


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes no more is away, and what it has stays readable."""
    from deployguard.onhost import durable

    store = tmp_path / "store"
    store.mkdir()
    vault = Vault(DirectoryStore(str(store)), _plain(), "shop", "prod")  # type: ignore[arg-type]
    first = take(vault, 1, b"one")

    def full(*_: object) -> Iterator[None]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "writing", full)
    with pytest.raises(StoreAway, match="No space left"):
        take(vault, 2, b"two")
    assert read_all(vault, vault.snapshot()) == [b"one"] and vault.ids() == [first.id]


def test_names_stay_inside(tmp_path: Path) -> None:
    """A name that leads elsewhere is none of ours, wherever it came from."""
    store = DirectoryStore(str(tmp_path))
    for name in ("../outside", "/etc/passwd", "a/../../b"):
        with pytest.raises(ValueError, match="not a name of ours"):
            list(store.get(name))


def test_a_bucket_that_is_not_there(bucket: Bucket) -> None:
    """What it says, and the mend."""
    vault = Vault(
        BucketStore("nobodys", "", endpoint=bucket.endpoint), _plain(), "shop", "prod"  # type: ignore[arg-type]
    )  # fmt: skip
    with pytest.raises(StoreAway) as told:
        take(vault, 1, b"one")
    assert "NoSuchBucket" in told.value.message and "make the bucket" in told.value.hint


def test_a_server_that_is_gone(bucket: Bucket) -> None:
    """Nobody answers there any more."""
    store = BucketStore(bucket.name, "", endpoint="http://127.0.0.1:9")
    vault = Vault(store, _plain(), "shop", "prod")  # type: ignore[arg-type]
    with pytest.raises(StoreAway, match="cannot be reached"):
        vault.ids()


def test_a_server_that_says_nothing(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and never answers: it is given up."""
    monkeypatch.setattr("deployguard.snapshots.bucket._READ_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = BucketStore(bucket.name, "", endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StoreAway, match="cannot be reached"):
            Vault(store, _plain(), "shop", "prod").ids()  # type: ignore[arg-type]


def test_a_large_object_in_parts(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no checksum of its own there: all of it is read back."""
    monkeypatch.setattr("deployguard.snapshots.bucket._ONE_PUT", 1000)
    vault = Vault(
        BucketStore(bucket.name, "p", endpoint=bucket.endpoint), _plain(), "shop", "prod"  # type: ignore[arg-type]
    )  # fmt: skip
    content = os.urandom(100_000)
    snapshot = take(vault, 1, content)
    assert read_all(vault, snapshot) == [content]


def test_a_store_that_keeps_something_else(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that knows no checksums and loses bytes: the upload fails, and there is no snapshot."""
    store = BucketStore(bucket.name, "p", endpoint=bucket.endpoint)
    real = store._client.put_object

    def lossy(**arguments: object) -> dict[str, object]:
        arguments.pop("ChecksumSHA256")
        arguments.pop("ContentLength")
        arguments["Body"] = arguments["Body"].read()[:-1]  # type: ignore[attr-defined]
        real(**arguments)
        return {}

    monkeypatch.setattr(store._client, "put_object", lossy)
    vault = Vault(store, _plain(), "shop", "prod")  # type: ignore[arg-type]
    with pytest.raises(Damaged, match="not what was sent"):
        take(vault, 1, b"one")
    assert vault.ids() == []


def test_files_are_part_of_what_is_needed(tmp_path: Path) -> None:
    """Retention looks at the files beside the tree as well."""
    from tests.snapshots.conftest import directory_place

    vault = directory_place(tmp_path / "store").vault(KEY)
    snapshot = take(vault, 1, b"one")
    (_, _, component) = next(snapshot.components())
    vault.keep(digest_of(b"unit"), 4, [b"unit"])
    file = File("/etc/systemd/system/shop.service", True, digest_of(b"unit"), 4, 0o644, 0, 0, 1)
    from dataclasses import replace

    with_file = replace(component, files=(file,))
    needed = vault.needs(replace(snapshot, hosts={"web1": {"web": with_file}}))
    assert vault.object_of(digest_of(b"unit")) in needed
    assert set(needed) == vault.all()

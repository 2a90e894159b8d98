"""Both kinds of store, with and without a key, behind one interface for the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployguard.snapshots.base import Store
from deployguard.snapshots.bucket import BucketStore
from deployguard.snapshots.directory import DirectoryStore
from deployguard.snapshots.sealing import Keyring
from deployguard.snapshots.vault import Vault
from tests.servers.bucket import CREDENTIALS, Bucket, a_bucket

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))


@dataclass
class Place:
    """A store, and the way past deployguard to what lies in it."""

    store: Store
    objects: Callable[[], dict[str, bytes]]
    put: Callable[[str, bytes], None]

    def vault(self, *keys: bytes, environment: str = "production") -> Vault:
        """The vault of one plan in it."""
        return Vault(self.store, Keyring(keys), "shop", environment)


@pytest.fixture(scope="session")
def server() -> Iterator[Bucket]:
    """moto's server with a bucket."""
    with a_bucket() as found:
        yield found


@pytest.fixture
def bucket(server: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket, and credentials for it where boto3 looks."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    server.empty()
    return server


def directory_place(folder: Path) -> Place:
    """A directory as a store."""
    folder.mkdir(mode=0o700)

    def objects() -> dict[str, bytes]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    return Place(
        DirectoryStore(str(folder)), objects, lambda name, data: _write(folder / name, data)
    )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A directory as a store."""
    return directory_place(tmp_path / "store")


@pytest.fixture(params=["directory", "bucket"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Each kind of store."""
    if request.param == "directory":
        return directory_place(tmp_path / "store")
    bucket: Bucket = request.getfixturevalue("bucket")

    def objects() -> dict[str, bytes]:
        return {name.removeprefix("prod/"): data for name, data in bucket.objects().items()}

    store = BucketStore(bucket.name, "prod", endpoint=bucket.endpoint)
    return Place(store, objects, lambda name, data: bucket.put(f"prod/{name}", data))

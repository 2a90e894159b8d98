"""A bucket as a store: S3, or whatever speaks its protocol. The only file that knows boto3.

Credentials and region come as boto3 finds them: environment, ``~/.aws``, the role of the machine or
of the CI job. They are in no plan.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from deployguard.errors import UsageError
from deployguard.snapshots.base import PIECE, Damaged, SnapshotError, SnapshotMissing, StoreAway

__all__ = ["BucketStore"]

#: Larger objects travel in parts, whose checksums are no checksum of the whole.
_ONE_PUT = 64 * 1024 * 1024
_CONNECT_SECONDS = 5
_READ_SECONDS = 20
_ATTEMPTS = 2
_GONE = ("NoSuchKey", "404", "NotFound")
_MENDS = {
    "NoSuchBucket": "make the bucket, or mend its name in the plan",
    "AccessDenied": "the credentials need s3:GetObject, s3:PutObject, s3:DeleteObject and "
    "s3:ListBucket there",
}
_MEND = "deployguard looks for credentials as boto3 does: AWS_PROFILE, AWS_ACCESS_KEY_ID, ~/.aws"


class BucketStore:
    """Objects below one prefix of a bucket. Used by several threads."""

    def __init__(
        self, bucket: str, prefix: str, *, endpoint: str | None = None, region: str | None = None
    ) -> None:
        self.address = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._client, self._errors = _client(endpoint, region)

    def put(self, name: str, file: BinaryIO, size: int, sha256: bytes) -> None:
        file.seek(0)
        key = self._prefix + name
        checksum = base64.b64encode(sha256).decode("ascii")
        answer: dict[str, Any] = {}
        try:
            if size <= _ONE_PUT:
                answer = self._client.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=file,
                    ContentLength=size,
                    ChecksumSHA256=checksum,
                )
            else:
                extra = {"ChecksumAlgorithm": "SHA256"}
                self._client.upload_fileobj(_Kept(file), self._bucket, key, ExtraArgs=extra)
        except self._errors as error:
            raise self._failure(error, name) from error
        # The store has compared it itself; one that knows no checksums is asked for all of it.
        if answer.get("ChecksumSHA256") != checksum and self._hash(name) != sha256:
            raise Damaged(
                f"{self.address}: {name} is not what was sent there",
                hint="look at the store, and at what lies between it and here",
            )

    def get(self, name: str) -> Iterator[bytes]:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
            yield from answer["Body"].iter_chunks(PIECE)
        except self._errors as error:
            raise self._failure(error, name) from error

    def names(self, prefix: str) -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2")
        try:
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for entry in page.get("Contents", ()):
                    yield str(entry["Key"])[len(self._prefix) :]
        except self._errors as error:
            raise self._failure(error, prefix) from error

    def delete(self, name: str) -> None:
        try:
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)
        except self._errors as error:
            raise self._failure(error, name) from error

    def _hash(self, name: str) -> bytes:
        hashed = hashlib.sha256()
        for piece in self.get(name):
            hashed.update(piece)
        return hashed.digest()

    def _failure(self, error: Exception, name: str) -> SnapshotError:
        """What boto3 raises, in our words: its own name requests, and no mend."""
        answer = getattr(error, "response", None)
        code = str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""
        if code in _GONE:
            return SnapshotMissing(f"{self.address} has no {name}")
        said = f"it says {code}" if code else str(error)
        return StoreAway(
            f"the snapshots in {self.address} cannot be reached: {said}",
            hint=_MENDS.get(code, _MEND),
        )


class _Kept:
    """A file that its reader does not close."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell

    def close(self) -> None:
        """Its owner closes it."""


def _client(endpoint: str | None, region: str | None) -> tuple[Any, tuple[type[Exception], ...]]:
    try:
        import boto3
        from boto3.exceptions import Boto3Error
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise UsageError(
            "snapshots in a bucket need boto3, which is not installed",
            hint="pip install 'deployguard[s3]'",
        ) from None
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
        max_pool_connections=32,
        s3={"addressing_style": "path" if endpoint else "auto"},
        # Ours is the checksum; others of its own choice are what stores that are not AWS refuse.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    errors = (BotoCoreError, ClientError, Boto3Error)
    try:
        client = boto3.session.Session().client(
            "s3", endpoint_url=endpoint, region_name=region, config=config
        )
    except (*errors, ValueError) as error:
        raise StoreAway(f"the bucket cannot be used: {error}", hint=_MEND) from error
    return client, errors

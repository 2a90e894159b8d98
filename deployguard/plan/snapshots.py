"""The block `snapshots`: where what is live is kept off the hosts, before a deploy changes it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from pydantic import Field

from deployguard.errors import UsageError
from deployguard.plan.block import Block
from deployguard.plan.document import Finding, Path
from deployguard.plan.quantity import Duration, Whole
from deployguard.secret import Secret

__all__ = [
    "KEY_MEND",
    "Address",
    "Snapshots",
    "key_text",
    "parse_address",
    "snapshots_findings",
    "snapshots_shorthand",
    "split_snapshot",
]

KEY_MEND = (
    "bring it here: no other opens what was sealed with it; for a first one "
    "`(umask 077; openssl rand -hex 32 > snapshots.key)`, and keep a copy elsewhere"
)

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
#: An id of a snapshot, or its beginning: nothing that a directory is usually called.
_SNAPSHOT = re.compile(r"\d{8}(?:T[A-Za-z0-9._-]*)?")


class Snapshots(Block):
    """Where snapshots of what is live go, and how they are sealed."""

    to: str = Field(description="`s3://BUCKET/PREFIX`, or a directory of this machine.")
    key_file: str | None = Field(
        None, description="File with the key, mode 0600; relative to the plan."
    )
    key_env: str | None = Field(None, description="Environment variable with the key.")
    required: bool = Field(False, description="Without a snapshot there is no deploy.")
    keep: Whole = Field(10, ge=1, description="How many snapshots stay in the store.")
    endpoint: str | None = Field(
        None, pattern=r"^https?://", description="Of an S3-compatible store that is not AWS."
    )
    region: str | None = Field(None, description="Region of the bucket; as boto3 finds it.")
    deadline: Duration = Field(900.0, ge=1, le=43200, description="How long sending one may take.")


@dataclass(frozen=True)
class Address:
    """A place for snapshots: a bucket with a prefix, or without a bucket a directory."""

    bucket: str
    path: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.path}".rstrip("/") if self.bucket else self.path


def parse_address(text: str) -> Address:
    """Read ``s3://BUCKET/PREFIX`` or a directory. Raises ``ValueError``, with the mend."""
    if text.startswith("s3://"):
        bucket, _, prefix = text[len("s3://") :].partition("/")
        if not _BUCKET.fullmatch(bucket) or ".." in prefix.split("/") or "//" in prefix:
            raise ValueError(f'"{text}" is not a bucket; write it as s3://BUCKET/PREFIX')
        return Address(bucket, prefix.strip("/"))
    if _SCHEME.match(text) or not text.strip() or "\0" in text:
        raise ValueError(f'"{text}" is not a store; write s3://BUCKET/PREFIX, or a directory')
    return Address("", text)


def split_snapshot(text: str) -> tuple[str, str]:
    """``STORE@SNAPSHOT`` as its two parts; the second is empty where none is named."""
    store, at, snapshot = text.rpartition("@")
    if at and _SNAPSHOT.fullmatch(snapshot):
        return store, snapshot
    # Of the plan's store, however little of its id; a directory of that name is ./@NAME.
    if at and not store and snapshot and "/" not in snapshot:
        return "", snapshot
    return text, ""


def snapshots_shorthand(value: object) -> object:
    """``snapshots: s3://backups/shop`` is a block with nothing but ``to``."""
    return {"to": value} if isinstance(value, str) else value


def key_text(block: Snapshots, base: str, environ: Mapping[str, str]) -> Secret | None:
    """The keys as they are written; ``None`` for a store that is not encrypted.

    Raises :class:`UsageError` where they are not there, or where others can read them.
    """
    if block.key_env is not None:
        value = environ.get(block.key_env)
        if not value:
            raise UsageError(
                f"the environment variable {block.key_env} is not set",
                hint=f"export {block.key_env}, the key of the snapshots",
            )
        return Secret(value, origin=block.key_env)
    if block.key_file is None:
        return None
    path = os.path.join(base, block.key_file)
    try:
        with open(path, encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            text = file.read(64 * 1024)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(
            f"the key of the snapshots, {block.key_file}, cannot be read: {why}", hint=KEY_MEND
        ) from None
    if mode & 0o077:
        raise UsageError(
            f"the key of the snapshots, {block.key_file}, can be read by others (mode {mode:04o})",
            hint=f"chmod 600 {block.key_file}",
        )
    return Secret(text, origin=block.key_file)


def snapshots_findings(
    block: Snapshots, where: Path, base: str | None, environ: Mapping[str, str] | None
) -> Iterator[Finding]:
    """The rules of the block. Whether the store is there is no mistake of the plan."""
    try:
        address = parse_address(block.to)
    except ValueError as error:
        problem, _, mend = str(error).partition("; ")
        yield Finding((*where, "to"), problem, mend)
        return
    if not address.bucket:
        for field in ("endpoint", "region"):
            if getattr(block, field) is not None:
                words = f"{field} is for s3://, and {block.to} is a directory"
                yield Finding((*where, field), words, f"remove {field}", on_key=True)
    if block.key_file is not None and block.key_env is not None:
        words = "there is key_file as well, and one of them is enough"
        yield Finding((*where, "key_env"), words, "remove one", on_key=True)
        return
    if base is None or environ is None:
        return
    if address.bucket and find_spec("boto3") is None:
        words = "snapshots in a bucket need boto3, which is not installed"
        yield Finding((*where, "to"), words, "pip install 'deployguard[s3]'")
    from deployguard.plan.keys import parse_keys

    try:
        text = key_text(block, base, environ)
        if text is not None:
            parse_keys(text)
    except UsageError as error:
        field = "key_env" if block.key_env is not None else "key_file"
        yield Finding((*where, field), error.message, error.hint)

"""A bucket to keep snapshots in: moto's server, in this process, with its own real HTTP."""

from __future__ import annotations

import contextlib
import logging
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3

__all__ = ["CREDENTIALS", "Bucket", "a_bucket"]

#: For the environment, where boto3 looks.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass
class Bucket:
    """One bucket, seen past deployguard."""

    endpoint: str
    name: str = "backups"
    client: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def empty(self) -> None:
        """As it was when the server started; what moto holds belongs to the process."""
        reset = urllib.request.Request(f"{self.endpoint}/moto-api/reset", method="POST")
        urllib.request.urlopen(reset, timeout=60).close()
        self.client.create_bucket(Bucket=self.name)

    def objects(self) -> dict[str, bytes]:
        """Every object, whole."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        names = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return {
            name: self.client.get_object(Bucket=self.name, Key=name)["Body"].read()
            for name in names
        }

    def put(self, name: str, data: bytes) -> None:
        """Replace an object behind deployguard's back."""
        self.client.put_object(Bucket=self.name, Key=name, Body=data)


@contextlib.contextmanager
def a_bucket() -> Iterator[Bucket]:
    """A server with one empty bucket."""
    from moto.server import ThreadedMotoServer

    # A line of the log for each request is more than anybody reads.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        bucket = Bucket(f"http://{host}:{port}")
        bucket.empty()
        yield bucket
    finally:
        server.stop()

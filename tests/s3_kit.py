"""An S3 store on the loopback (moto's server), what it takes to use it, and a reader that watches what can be seen."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pyarrow.parquet as pq
from cli_kit import start
from moto.server import ThreadedMotoServer

BUCKET = "videos"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


class Store:
    """The store itself, without faults: for preparing and for looking."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.url = f"http://{address[0]}:{address[1]}"
        self._client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            region_name="us-east-1",
        )

    def empty(self) -> None:
        """Make it a store of one empty bucket: all stores of a process share their objects."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")).close()
        self._client.create_bucket(Bucket=BUCKET)

    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def get(self, key: str) -> bytes | None:
        """The object, None when it is not there (any more)."""
        try:
            return self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        except self._client.exceptions.NoSuchKey:
            return None

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=BUCKET, Key=key)

    def keys(self, prefix: str = "") -> list[str]:
        return list(self.tags(prefix))

    def tags(self, prefix: str = "") -> dict[str, str]:
        """The ETag of every object, which is made of its content, by key."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {entry["Key"]: entry["ETag"] for page in pages for entry in page.get("Contents", ())}

    def files(self, prefix: str) -> dict[str, bytes]:
        """Every object below a prefix by its key below it."""
        return {key.removeprefix(prefix): self.get(key) or b"" for key in self.keys(prefix)}


@contextmanager
def store() -> Iterator[Store]:
    """An empty store."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        found = Store(server.get_host_and_port())
        found.empty()
        yield found
    finally:
        server.stop()


def command(*args: object, url: str) -> str:
    """Run `curate` as a process of its own on the store at this address; gives what it printed."""
    process = start(*args, env={**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL": url})
    out, err = process.communicate()
    assert process.returncode == 0, (args, out, err)
    return out


class Watch:
    """Reads again and again what a reader may see of a corpus; ``wrong`` is what was not whole."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.store, self.prefix = store, prefix
        self.wrong: list[str] = []
        self.rounds = 0
        self.sets_seen = 0
        self._whole: set[str] = set()
        self._sets: dict[str, dict[str, str]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.look()

    def _go(self) -> None:
        while not self._stop.wait(0.15):
            self.look()

    def look(self) -> None:
        """Parts are never changed, so each is read once; a shard set that has an index is read whole, and again when
        any object of it is another."""
        self.rounds += 1
        tags = self.store.tags(self.prefix)
        for key in tags:
            if key.endswith(".parquet") and "/tables/" in key and key not in self._whole:
                self._part(key)
            elif key.endswith("/index.json") and "/." not in key:
                below = {name: tag for name, tag in tags.items() if name.startswith(key.removesuffix("index.json"))}
                if self._sets.get(key) != below:
                    self._set(key)
                    self._sets[key] = below

    def _part(self, key: str) -> None:
        data = self.store.get(key)
        if data is None:
            return  # merged or removed since the listing
        if not hashlib.sha256(data).hexdigest().startswith(key.rpartition("part-")[2].removesuffix(".parquet")):
            self.wrong.append(f"{key}: other bytes than its name says")
        pq.ParquetFile(io.BytesIO(data)).read(use_threads=False)
        self._whole.add(key)

    def _set(self, key: str) -> None:
        text = self.store.get(key)
        if text is None:
            return
        self.sets_seen += 1
        for shard in json.loads(text)["shards"]:
            for path, digest in ((shard["path"], shard["sha256"]), (shard["sidecar"], shard["sidecar_sha256"])):
                data = self.store.get(f"{key.rpartition('/')[0]}/{path}")
                if self.store.get(key) != text:
                    return  # the set was replaced while it was read
                if data is None or hashlib.sha256(data).hexdigest() != digest:
                    self.wrong.append(f"{path}: not what the index says")
                elif path.endswith(".tar"):
                    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
                        tar.getnames()


def but_for_places(files: dict[str, bytes]) -> dict[str, object]:
    """Files of shards, but for what the dataset card says of the kind of place that the sources were read from."""
    found = {}
    for name, data in files.items():
        if name.endswith("/README.md"):
            rows = data.decode().splitlines()
            found[name] = "\n".join(row for row in rows if not row.startswith(("| `s3` ", "| `file` ")))
            assert len(rows) == len(found[name].splitlines()) + 1
        elif name.endswith("/index.json"):
            found[name] = {key: value for key, value in json.loads(data).items() if key != "card_sha256"}
        else:
            found[name] = data
    return found

"""Payload stores on fsspec: a folder, S3 or whatever has a file system there."""

from hashlib import sha256
from typing import Any, Final
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from connectors.errors import PayloadCorrupt, PayloadMissing, Unavailable
from connectors.messages import PayloadRef

PAYLOAD_BYTES_MAX: Final = 512 * 2**20


def open_store(url: str) -> "FsspecPayloadStore":
    """The payload store at `url`, such as ``file:///data/payloads`` or ``s3://bucket/line``."""
    return FsspecPayloadStore(url)


class FsspecPayloadStore:
    """`connectors.ports.PayloadStore`; payloads lie at ``<url>/sha256/ab/cdef...``.

    Args:
        url: Where the store is; only claims that lie below it are read.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._fs: Any = fsspec.core.url_to_fs(self._url)[0]

    def put(
        self, data: bytes, *, media_type: str, units: str = "1", shape: tuple[int, ...] = ()
    ) -> PayloadRef:
        """See `PayloadStore.put`.

        Raises:
            PayloadCorrupt: `data` is empty or larger than `PAYLOAD_BYTES_MAX`.
            Unavailable: The store cannot be written.
        """
        _check_size(len(data))
        digest = sha256(data).hexdigest()
        ref = PayloadRef(
            uri=f"{self._url}/sha256/{digest[:2]}/{digest[2:]}",
            sha256=digest,
            size_bytes=len(data),
            media_type=media_type,
            units=units,
            shape=shape,
        )
        try:
            self._write(ref.uri, data)
        except OSError as error:
            raise Unavailable(f"payload store {self._url} cannot be written: {error}") from error
        return ref

    def get(self, ref: PayloadRef) -> bytes:
        """See `PayloadStore.get`."""
        if not ref.uri.startswith(f"{self._url}/") or ".." in ref.uri:
            raise PayloadMissing(
                "payload", f"{ref.uri} does not lie in the line's payload store {self._url}"
            )
        _check_size(ref.size_bytes)
        try:
            size_bytes = self._fs.info(ref.uri)["size"]
            if size_bytes != ref.size_bytes:
                raise PayloadCorrupt(
                    "payload.size_bytes",
                    f"{size_bytes} bytes lie at {ref.uri}, the record says {ref.size_bytes}; "
                    "publish the payload again",
                )
            data: bytes = self._fs.cat_file(ref.uri)
        except FileNotFoundError as error:
            raise PayloadMissing(
                "payload", f"nothing lies at {ref.uri}; publish payloads before their records"
            ) from error
        except OSError as error:
            raise Unavailable(f"payload store {self._url} cannot be read: {error}") from error
        if sha256(data).hexdigest() != ref.sha256:
            raise PayloadCorrupt(
                "payload.sha256", f"other bytes lie at {ref.uri}; publish the payload again"
            )
        return data

    def _write(self, uri: str, data: bytes) -> None:
        """The whole of `data` appears at `uri` at once; object stores do that by themselves."""
        if not isinstance(self._fs, LocalFileSystem):
            self._fs.pipe_file(uri, data)
            return
        unfinished = f"{uri}.{uuid4().hex}"
        self._fs.makedirs(uri.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(unfinished, data)
        self._fs.mv(unfinished, uri)


class UnwrittenPayloadStore(FsspecPayloadStore):
    """Reads the store; `put` gives the claim check that it would have, and writes nothing."""

    def _write(self, uri: str, data: bytes) -> None:
        pass


def _check_size(size_bytes: int) -> None:
    if not 1 <= size_bytes <= PAYLOAD_BYTES_MAX:
        raise PayloadCorrupt(
            "payload.size_bytes",
            f"a payload has 1 to {PAYLOAD_BYTES_MAX} bytes, this one has {size_bytes}",
        )

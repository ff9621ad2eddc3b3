"""What every `connectors.ports.PayloadStore` promises: in memory, in a folder, on another store."""

from hashlib import sha256
from pathlib import Path

import fsspec
import pytest

from connectors.errors import PayloadCorrupt, PayloadMissing, Poison, Unavailable
from connectors.memory import MemoryPayloadStore
from connectors.messages import PayloadRef
from connectors.payloads import PAYLOAD_BYTES_MAX, FsspecPayloadStore, open_store
from connectors.ports import PayloadStore

DATA = b"\x89PNG and so on"


@pytest.fixture(params=["memory", "folder", "fsspec-memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> PayloadStore:
    """The implementation under test."""
    if request.param == "memory":
        return MemoryPayloadStore()
    if request.param == "folder":
        return open_store(f"file://{tmp_path / 'pay loads'}")
    return open_store(f"memory://payloads-{tmp_path.name}/")


@pytest.fixture
def folder(tmp_path: Path) -> FsspecPayloadStore:
    """A store whose files a test can touch."""
    return open_store(f"file://{tmp_path}")


def claim(ref: PayloadRef, **changes: object) -> PayloadRef:
    return ref.model_copy(update=changes)


def test_what_was_put_comes_back_by_its_claim(store: PayloadStore) -> None:
    """The claim check says what lies there and gets the same bytes."""
    ref = store.put(DATA, media_type="image/png", units="mm", shape=(2, 3))
    assert (ref.sha256, ref.size_bytes) == (sha256(DATA).hexdigest(), len(DATA))
    assert (ref.media_type, ref.units, ref.shape) == ("image/png", "mm", (2, 3))
    assert store.get(ref) == DATA


def test_the_same_bytes_have_the_same_address(store: PayloadStore) -> None:
    """Putting again is harmless, and the address follows from the content alone."""
    first, again = (store.put(DATA, media_type="image/png") for _ in range(2))
    assert first == again
    assert first.uri.endswith(f"sha256/{first.sha256[:2]}/{first.sha256[2:]}")
    assert store.put(DATA + b".", media_type="image/png").uri != first.uri


def test_nothing_at_the_address_names_the_payload(store: PayloadStore) -> None:
    """A claim to bytes that were never put is poison in the field `payload`."""
    ref = store.put(DATA, media_type="image/png")
    absent = claim(ref, uri=ref.uri.replace(ref.sha256[2:], "0" * 62))
    with pytest.raises(PayloadMissing) as caught:
        store.get(absent)
    assert caught.value.field == "payload"


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"size_bytes": 5}, "payload.size_bytes"), ({"sha256": "0" * 64}, "payload.sha256")],
)
def test_a_claim_that_does_not_fit_names_its_field(
    store: PayloadStore, changes: dict[str, object], field: str
) -> None:
    """Size and SHA-256 are both checked against what lies there."""
    ref = store.put(DATA, media_type="image/png")
    with pytest.raises(PayloadCorrupt) as caught:
        store.get(claim(ref, **changes))
    assert caught.value.field == field


def test_a_file_that_was_changed_is_found_out_and_healed(
    folder: FsspecPayloadStore, tmp_path: Path
) -> None:
    """Other bytes of the same size are corrupt until the payload is published again."""
    ref = folder.put(DATA, media_type="image/png")
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    file.write_bytes(DATA[::-1])
    with pytest.raises(PayloadCorrupt, match="publish the payload again"):
        folder.get(ref)
    folder.put(DATA, media_type="image/png")
    assert folder.get(ref) == DATA
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


@pytest.mark.parametrize("uri", ["file:///etc/hostname", "{store}/../secret", "http://x/{store}"])
def test_claims_outside_the_store_are_not_read(
    folder: FsspecPayloadStore, tmp_path: Path, uri: str
) -> None:
    """A record cannot make a replica read what lies elsewhere."""
    outside = tmp_path.parent / "secret"
    outside.write_bytes(DATA)
    ref = folder.put(DATA, media_type="image/png")
    with pytest.raises(PayloadMissing, match="does not lie in"):
        folder.get(claim(ref, uri=uri.format(store=f"file://{tmp_path}")))


def test_absurd_sizes_are_refused_before_reading(folder: FsspecPayloadStore) -> None:
    """A claim beyond the bound, and an empty payload, name the size."""
    ref = folder.put(DATA, media_type="image/png")
    for attempt in (
        lambda: folder.get(claim(ref, size_bytes=PAYLOAD_BYTES_MAX + 1)),
        lambda: folder.put(b"", media_type="image/png"),
    ):
        with pytest.raises(Poison) as caught:
            attempt()
        assert caught.value.field == "payload.size_bytes"


def test_a_store_that_cannot_be_reached_is_transient(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An input/output error says nothing about the payload: the caller may try again."""
    store = open_store(f"file://{tmp_path}")
    ref = store.put(DATA, media_type="image/png")
    local = type(fsspec.filesystem("file"))

    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(local, "cat_file", broken)
    monkeypatch.setattr(local, "pipe_file", broken)
    with pytest.raises(Unavailable):
        store.get(ref)
    with pytest.raises(Unavailable):
        store.put(DATA, media_type="image/png")

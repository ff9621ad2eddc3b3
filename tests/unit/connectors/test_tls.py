"""Certificates are read at once, or the setting that is wrong is named."""

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from connectors.errors import Poison
from connectors.kafka import KafkaSecurity
from connectors.tls import TlsFiles


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A client's certificate, its key in the open, sealed, and one of somebody else; no PEM."""
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    ours, others = authority.issue_cert("a.example"), authority.issue_cert("b.example")
    key = serialization.load_pem_private_key(ours.private_key_pem.bytes(), password=None)
    sealed = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    contents = {
        "ca": authority.cert_pem.bytes(),
        "certificate": ours.cert_chain_pems[0].bytes(),
        "key": ours.private_key_pem.bytes(),
        "sealed": sealed,
        "other": others.private_key_pem.bytes(),
        "text": b"not a certificate\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def given(files: dict[str, Path], **names: str) -> TlsFiles:
    return TlsFiles(settings="S", **{role: files[name] for role, name in names.items()})


def test_only_named_authorities_and_right_hosts_are_trusted(files: dict[str, Path]) -> None:
    """The machine's authorities are left out once one is named; nothing older than TLS 1.2."""
    context = given(files, ca="ca", certificate="certificate", key="key").context()
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("names", "setting"),
    [
        ({"ca": "text"}, "S_CA"),
        ({"certificate": "text", "key": "key"}, "S_CERTIFICATE"),
        ({"certificate": "certificate"}, "S_CERTIFICATE"),
        ({"certificate": "certificate", "key": "other"}, "S_CERTIFICATE"),
        ({"certificate": "certificate", "key": "sealed"}, "S_CERTIFICATE"),
    ],
    ids=str,
)
def test_a_file_that_cannot_be_used_is_told_by_its_setting(
    files: dict[str, Path], names: dict[str, str], setting: str
) -> None:
    """Before anything connects; and nothing asks for a password at the terminal."""
    with pytest.raises(Poison) as refusal:
        given(files, **names).context()
    assert refusal.value.field == setting


def test_a_password_is_no_part_of_what_is_printed() -> None:
    """Neither in a log nor in a traceback's locals that somebody prints."""
    assert "s3cret" not in repr(KafkaSecurity(username="u", password="s3cret"))

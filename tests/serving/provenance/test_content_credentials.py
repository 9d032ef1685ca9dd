import datetime
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from prometheus_client import CollectorRegistry

from contracts.claims import Origin
from contracts.errors import VerisynthError
from contracts.imaging import decode, encode_png
from contracts.marks import DIGITAL_SOURCE_TYPE, read_mark
from monitoring.metrics import Metrics
from serving.formats import FORMATS, Signing
from serving.provenance.claims import ClaimKeys
from serving.runtime import Samples
from serving.settings import Settings
from serving.worker import Worker
from tests.images import speckle

c2pa = pytest.importorskip("c2pa", reason="Content Credentials come with the extra `c2pa`")
from serving.provenance.content_credentials import Credentials  # noqa: E402

Key = Any
KEYS = {"ed25519": ed25519.Ed25519PrivateKey.generate, "es256": lambda: ec.generate_private_key(ec.SECP256R1())}


def certificate(subject: str, issuer: str, key: Key, issuing: Key, authority: bool) -> bytes:
    """A certificate for tests, as PEM."""

    def name(text: str) -> x509.Name:
        pairs = ((NameOID.COMMON_NAME, text), (NameOID.ORGANIZATION_NAME, "Test"))
        return x509.Name([x509.NameAttribute(kind, value) for kind, value in pairs])

    now = datetime.datetime.now(datetime.UTC)
    uses = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=authority, crl_sign=authority, decipher_only=False, **uses
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing.public_key()), critical=False)
    )
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    algorithm = None if isinstance(issuing, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(issuing, algorithm).public_bytes(Encoding.PEM)


def write_chain(folder: Path, kind: str = "ed25519") -> Settings:
    """A certificate, the authority's beside it, and its key, in files that the settings name."""
    authority, signer = KEYS[kind](), KEYS[kind]()
    chain = certificate("signer", "authority", signer, authority, authority=False)
    chain += certificate("authority", "authority", authority, authority, authority=True)
    (folder / "chain.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(signer.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Settings(c2pa_certificates_file=folder / "chain.pem", c2pa_key_file=folder / "key.pem")


def read(data: bytes) -> dict[str, Any]:
    with c2pa.Reader("image/png", io.BytesIO(data)) as reader:
        document: dict[str, Any] = json.loads(reader.json())
    return document


@pytest.mark.parametrize("kind", KEYS)
def test_viewers_are_told_that_a_trained_model_made_it(kind: str, tmp_path: Path) -> None:
    settings = write_chain(tmp_path, kind)
    signing = Worker(settings, Metrics(CollectorRegistry())).signing
    pixels = speckle(0)
    data = FORMATS["png"].write(Samples(pixels[None]), Origin("waves", "1", 7, 1.0, None, None), signing)
    found = read(data)
    assert found["validation_state"] == "Valid"
    assertions = found["manifests"][found["active_manifest"]]["assertions"]
    actions = next(entry["data"]["actions"] for entry in assertions if entry["label"].startswith("c2pa.actions"))
    assert [(action["action"], action["digitalSourceType"]) for action in actions] == [
        ("c2pa.created", DIGITAL_SOURCE_TYPE)
    ]
    # Our own mark lies beside it, and the pixels are the same.
    claim = read_mark(data)
    assert claim is not None
    assert claim.kind == "grid"
    assert np.array_equal(decode(data).pixels[2:42, 2:42], pixels)
    assert len(data) < len(encode_png(pixels)) + 20_000


def test_a_changed_file_is_no_longer_valid(tmp_path: Path) -> None:
    write_chain(tmp_path)
    data = Credentials.load(tmp_path / "chain.pem", tmp_path / "key.pem").sign_png(encode_png(speckle(0)))
    position = data.rindex(b"IDAT") + 40
    assert read(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])["validation_state"] == "Invalid"


def test_without_certificates_nothing_is_added() -> None:
    assert Worker(Settings(), Metrics(CollectorRegistry())).signing == Signing(ClaimKeys())


def test_files_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    settings = write_chain(tmp_path)
    certificates, key = settings.c2pa_certificates_file, settings.c2pa_key_file
    assert certificates is not None
    assert key is not None
    with pytest.raises(VerisynthError, match="go together"):
        Worker(Settings(c2pa_certificates_file=certificates), Metrics(CollectorRegistry()))
    with pytest.raises(VerisynthError, match=r"none\.pem cannot be read"):
        Credentials.load(tmp_path / "none.pem", key)
    others = {
        "other": ed25519.Ed25519PrivateKey.generate(),
        "unfit": rsa.generate_private_key(65537, 2048),
    }
    for name, words in (("other", "does not sign with"), ("unfit", "neither Ed25519 nor")):
        path = tmp_path / f"{name}.pem"
        path.write_bytes(others[name].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        with pytest.raises(VerisynthError, match=words):
            Credentials.load(certificates, path)
    (tmp_path / "text.pem").write_text("SECRET")
    with pytest.raises(VerisynthError, match="holds no PEM private key") as refused:
        Credentials.load(certificates, tmp_path / "text.pem")
    assert "SECRET" not in str(refused.value)
    with pytest.raises(VerisynthError, match="does not sign with"):
        Credentials.load(tmp_path / "text.pem", key)

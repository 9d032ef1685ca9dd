"""Content Credentials (C2PA) for PNG files, beside our own mark: what viewers of many makers understand.

They need a certificate that names the operator, and the extra `c2pa`, imported only where
`VERISYNTH_C2PA_CERTIFICATES_FILE` is set. Nothing is asked of the network: no time stamp, no revocation list. Manifests
bear random identifiers, so that files with Content Credentials differ from answer to answer, in nothing but that.
"""

import io
import json
from pathlib import Path

import c2pa
import numpy as np
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from contracts.errors import VerisynthError
from contracts.imaging import encode_png
from contracts.marks import DIGITAL_SOURCE_TYPE

MEDIA_TYPE = "image/png"
MANIFEST = {
    "claim_generator_info": [{"name": "Verisynth"}],
    "format": MEDIA_TYPE,
    "assertions": [
        {
            "label": "c2pa.actions",
            "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": DIGITAL_SOURCE_TYPE}]},
        }
    ],
}
# A thumbnail would be ten times as large as the image.
OPTIONS = {"builder": {"thumbnail": {"enabled": False}}}


class Credentials:
    """Signs with one certificate. Its methods may be called from several threads at once."""

    def __init__(self, certificates: bytes, key: bytes, algorithm: str) -> None:
        self._information = c2pa.C2paSignerInfo(
            alg=algorithm.encode(), sign_cert=certificates, private_key=key, ta_url=None
        )
        self._context = c2pa.Context(c2pa.Settings.from_dict(OPTIONS))

    @staticmethod
    def load(certificates_file: Path, key_file: Path) -> "Credentials":
        """The PEM chain of certificates, the signer's first, and its PEM key: Ed25519, or ECDSA on P-256.

        Raises:
            VerisynthError: for files that cannot be read, do not fit each other, or are not of C2PA's form.
        """
        try:
            certificates, key = certificates_file.read_bytes(), key_file.read_bytes()
        except OSError as error:
            raise VerisynthError(f"{error.filename} cannot be read: {error.strerror}") from error
        credentials = Credentials(certificates, key, _algorithm(key, key_file))
        try:
            credentials.sign_png(encode_png(np.zeros((16, 16, 1), dtype=np.uint8)))
        except c2pa.C2paError as error:
            raise VerisynthError(
                f"C2PA does not sign with {certificates_file} and {key_file}: {error}; it asks for a chain of a "
                "certificate that may sign, and of the authority that issued it"
            ) from error
        return credentials

    def sign_png(self, data: bytes) -> bytes:
        """The PNG with a manifest that says a trained model made it, and a signature over the whole file."""
        signed = io.BytesIO()
        with (
            c2pa.Signer.from_info(self._information) as signer,
            c2pa.Builder(json.dumps(MANIFEST), context=self._context) as builder,
        ):
            builder.sign(signer, MEDIA_TYPE, io.BytesIO(data), signed)
        return signed.getvalue()


def _algorithm(key: bytes, path: Path) -> str:
    try:
        private = load_pem_private_key(key, password=None)
    # TypeError: the key has a password. The library's own words might quote the file.
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise VerisynthError(f"{path} holds no PEM private key without a password") from None
    if isinstance(private, Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, EllipticCurvePrivateKey) and isinstance(private.curve, SECP256R1):
        return "es256"
    raise VerisynthError(f"the C2PA key {path} is neither Ed25519 nor ECDSA on P-256")

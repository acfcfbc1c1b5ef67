"""Signatures of versions by a key pair, as OpenSSF's Model Signing defines them, without any network.

`model.sig` in a version's folder is a Sigstore bundle over the SHA-256 of every other file. The package model-signing makes and
verifies it, and so does its command: `model_signing verify key VERSION --signature VERSION/model.sig --public_key FILE`.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from base.errors import UserError
from base.inputs import check_regular

SIGNATURE_FILE: Final = "model.sig"
_CURVES: Final = "an elliptic curve (P-256, P-384 or P-521) in PEM"


def check_private_key(private_key: Path) -> None:
    """Checks that a key can sign.

    Raises:
      UserError: it can't be read or used, or model-signing is not installed.
    """
    _signing(private_key)


def sign_folder(version: str, private_key: Path) -> bytes:
    """The signature of all files in a local folder, without the signature that lies there.

    Raises:
      UserError: the key can't be read or used, or model-signing is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="fpn-signature-") as folder:
        path = Path(folder, SIGNATURE_FILE)
        try:
            _signing(private_key).sign(Path(version).resolve(), path)
        except ValueError as error:  # a link or a pipe among the files
            raise UserError(f"{version}: can't be signed ({error})") from error
        return path.read_bytes()


def signature_problem(version: str, public_key: Path) -> str:
    """What is wrong with the signature of a local folder, such as "it has no signature (model.sig)"; "" if nothing is.

    Raises:
      UserError: the key can't be read or used, or model-signing is not installed.
    """
    verifying, signature = _verifying(public_key), Path(version, SIGNATURE_FILE)
    if not signature.is_file():
        return f"it has no signature ({SIGNATURE_FILE})"
    try:
        verifying.verify(Path(version).resolve(), signature)
    except Exception as error:  # of the many packages that read a bundle
        if str(error).startswith("Signature mismatch"):
            return "its files are not those that were signed"
        return f"{SIGNATURE_FILE} is no signature by the key of {public_key}"
    return ""


def _signing(private_key: Path) -> Any:
    with _key_errors(private_key, "private key", f"no key without a password, of {_CURVES}"):
        from model_signing import signing

        return signing.Config().use_elliptic_key_signer(private_key=private_key).set_hashing_config(_hashing())


def _verifying(public_key: Path) -> Any:
    with _key_errors(public_key, "public key", f"no key of {_CURVES}"):
        from model_signing import verifying

        return verifying.Config().use_elliptic_key_verifier(public_key=public_key).set_hashing_config(_hashing())


@contextlib.contextmanager
def _key_errors(key: Path, what: str, wrong: str) -> Iterator[None]:
    check_regular(key, what)
    try:
        yield
    except ImportError as error:
        raise UserError(
            "signatures need the package model-signing: .venv/bin/uv pip install --python .venv/bin/python --constraints "
            "requirements.lock -e '.[signing]'"
        ) from error
    except Exception as error:  # whatever the package cryptography raises for a file that is no such key
        raise UserError(f"{what}: {key}: {wrong}; docs/trust.md shows how to make a key pair") from error


def _hashing() -> Any:
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)

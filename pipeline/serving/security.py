"""Who may ask the server, and over what: the names it goes by, its token and its certificate."""

import argparse
import fnmatch
import hmac
import ipaddress
import ssl
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from base.errors import UserError
from base.inputs import open_regular

_LOCAL: Final = "localhost"
_OTHER_KEY: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")  # the last: of another algorithm
_MOST: Final = 2**20  # bytes of a token, a certificate or a key


@dataclass(frozen=True)
class Security:
    """What a request must show.

    Attributes:
      hosts: names by which the server may be addressed, beside IP addresses and localhost; `*` stands for any text.
      token: what a client must send as its bearer token; None if all may ask.
      tls: certificate and key of the server; None for plain HTTP.
    """

    hosts: tuple[str, ...] = ()
    token: bytes | None = None
    tls: ssl.SSLContext | None = None

    def takes_host(self, host: str) -> bool:
        """Whether the header Host names this server.

        An IP address always does: the trick of a foreign page that has its own name lead to this server ("DNS rebinding")
        can't work with an address.
        """
        name = host_name(host)
        return name == _LOCAL or name.endswith(f".{_LOCAL}") or _is_address(name) or self._names(name)

    def takes_origin(self, origin: str, host: str) -> bool:
        """Whether a page from `origin` may ask: one of this server itself, or one of `hosts`."""
        _, separator, place = origin.partition("://")
        return bool(separator) and (place.lower() == host.lower() or self._names(host_name(place)))

    def takes_token(self, authorization: str) -> bool:
        """Whether the header Authorization has the token."""
        if self.token is None:
            return True
        scheme, _, given = authorization.partition(" ")
        return hmac.compare_digest(given.strip().encode(), self.token) and scheme.lower() == "bearer"

    def _names(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.hosts)


def host_name(host: str) -> str:
    """The name in HOST:PORT, in lower case, without the brackets around an IPv6 address."""
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")


@lru_cache(256)
def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def read_security(options: argparse.Namespace) -> Security:
    """Reads the files that the options of `fpn serve` name.

    Raises:
      UserError: a file can't be read, has no token, or no certificate and key that belong together.
    """
    if options.key and not options.certificate:
        raise UserError("--key: give the --certificate that it belongs to")
    return Security(
        hosts=(options.host.lower(), *(name.lower() for name in options.allow_host)),
        token=_read_token(options.token_file) if options.token_file else None,
        tls=_read_certificate(options.certificate, options.key) if options.certificate else None,
    )


def _read_token(file: Path) -> bytes:
    token = _read(file, "--token-file").strip()
    if not token or not token.isascii() or any(byte <= 32 or byte == 127 for byte in token):
        raise UserError(f"--token-file {file}: must hold the token alone, in letters, digits and signs without blanks")
    return token


def _read_certificate(certificate: Path, key: Path | None) -> ssl.SSLContext:
    content = _read(certificate, "--certificate")
    if b"CERTIFICATE-----" not in content:
        cure = "give a PEM file, whose first line is -----BEGIN CERTIFICATE-----"
        raise UserError(f"--certificate {certificate}: has no certificate in it; {cure}")
    of_key = _read(key, "--key") if key else content
    place = f"--key {key}" if key else f"--certificate {certificate}"
    if b"PRIVATE KEY-----" not in of_key:
        cure = "give a PEM file that has one" if key else "give the file that has it with --key"
        raise UserError(f"{place}: has no key in it; {cure}")
    if b"ENCRYPTED" in of_key:
        raise UserError(f"{place}: the key has a password; write it without: openssl pkey -in FILE -out NEW")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except ssl.SSLError as error:
        if error.reason in _OTHER_KEY:
            raise UserError(f"{place}: is not the key of {certificate}; give PEM files that belong together") from error
        names = f"--certificate {certificate}" + (f" --key {key}" if key else "")
        raise UserError(f"{names}: damaged, or no PEM files ({error.reason or error}); make or copy them anew") from error
    return context


def _refuse_password() -> str:
    return ""  # else OpenSSL would ask for it on the terminal


def _read(file: Path, option: str) -> bytes:
    try:
        with open_regular(file) as opened:
            content = opened.read(_MOST + 1)
    except OSError as error:
        raise UserError(f"{option} {file}: {error.strerror}; give a file that the server may read") from error
    if len(content) > _MOST:
        raise UserError(f"{option} {file}: is larger than 1 MiB; give the file that the option is for")
    return content

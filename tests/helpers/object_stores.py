"""Object stores on this machine: moto's server speaks S3, fake-gcs-server speaks Google Cloud Storage.

    with gcs_server() as store:
        store.create_bucket("bucket")
        store.put("bucket", "images/cat/1.png", content)
        subprocess.run(command, env={**os.environ, **store.environment})
        assert store.list("bucket", "answers/") == ["answers/summary.json"]

Both listen on 127.0.0.1 only, on free ports, hold everything in memory, and end with the block. `Unavailable` says why one
can't be had; the fixtures in conftest.py skip with it.

TensorFlow's client for gs:// knows two addresses only, https://storage.googleapis.com and https://www.googleapis.com. A proxy
answers in their name, with a certificate of its own; TensorFlow finds both in environment variables.
"""

import contextlib
import datetime
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

FAKE_GCS_SERVER: Final = "github.com/fsouza/fake-gcs-server@v1.55.1"
_GCS_HOSTS: Final = ("storage.googleapis.com", "www.googleapis.com")
_BUILD_TIMEOUT: Final = 600  # seconds
_START_TIMEOUT: Final = 60


class Unavailable(Exception):
    """A server can't be had here; the message says why."""


class Store(ABC):
    """A running server.

    Attributes:
      scheme: of its URIs: "s3" or "gs".
      url: http://127.0.0.1:PORT; both serve their protocol without encryption there.
      environment: variables with which a process reaches it: by boto3 and Beam, or by google-cloud-storage, Beam and
        TensorFlow. It finds no credentials of the user.
    """

    scheme: str

    def __init__(self, url: str, environment: dict[str, str]) -> None:
        self.url = url
        self.environment = environment

    @abstractmethod
    def create_bucket(self, bucket: str) -> None: ...

    @abstractmethod
    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Writes an object; a key that ends in a slash, with b"", is a marker of a folder."""

    @abstractmethod
    def get(self, bucket: str, key: str) -> bytes: ...

    @abstractmethod
    def delete(self, bucket: str, key: str) -> None: ...

    @abstractmethod
    def list(self, bucket: str, prefix: str = "") -> list[str]:
        """All keys that begin so, markers of folders too, in alphabetical order."""


class S3(Store):
    """moto's server."""

    scheme = "s3"

    def __init__(self, url: str, environment: dict[str, str]) -> None:
        import boto3

        super().__init__(url, environment)
        self._client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name=environment["AWS_DEFAULT_REGION"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        )

    def create_bucket(self, bucket: str) -> None:
        self._client.create_bucket(Bucket=bucket)

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=bucket, Key=key, Body=content)

    def get(self, bucket: str, key: str) -> bytes:
        return self._client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def delete(self, bucket: str, key: str) -> None:
        self._client.delete_object(Bucket=bucket, Key=key)

    def list(self, bucket: str, prefix: str = "") -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))


class Gcs(Store):
    """fake-gcs-server."""

    scheme = "gs"

    def __init__(self, url: str, environment: dict[str, str]) -> None:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        super().__init__(url, environment)
        self._client = storage.Client("tests", AnonymousCredentials(), client_options={"api_endpoint": url})

    def create_bucket(self, bucket: str) -> None:
        self._client.create_bucket(bucket)

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self._client.bucket(bucket).blob(key).upload_from_string(content, "application/octet-stream")

    def get(self, bucket: str, key: str) -> bytes:
        return self._client.bucket(bucket).blob(key).download_as_bytes()

    def delete(self, bucket: str, key: str) -> None:
        self._client.bucket(bucket).blob(key).delete()

    def list(self, bucket: str, prefix: str = "") -> list[str]:
        return sorted(blob.name for blob in self._client.list_blobs(bucket, prefix=prefix))


@contextlib.contextmanager
def s3_server() -> Iterator[S3]:
    """Serves S3 until the end of the block.

    Raises:
      Unavailable: moto or boto3 is not installed, or the server doesn't start.
    """
    try:
        import boto3  # noqa: F401
        import flask_cors  # noqa: F401
        import moto  # noqa: F401
    except ImportError as error:
        raise Unavailable(f"moto's server needs the package {error.name}") from error
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    with _running([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], f"{url}/moto-api/data.json"):
        yield S3(url, environment)


@contextlib.contextmanager
def gcs_server() -> Iterator[Gcs]:
    """Serves Google Cloud Storage until the end of the block; the first time on a machine, minutes pass for its build.

    Raises:
      Unavailable: there is no server, and none can be built, or it doesn't start.
    """
    program = _fake_gcs_server()
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = _write_certificate(Path(folder))
        port, proxy_port = _free_port(), _free_port()
        url, proxy = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{proxy_port}"
        command = [program, "-backend=memory", "-scheme=http", "-host=127.0.0.1", f"-port={port}", f"-external-url={url}"]
        proxy_command = [sys.executable, __file__, str(proxy_port), str(port), str(certificate), str(key)]
        with (
            _running([*command, "-log-level=error"], f"{url}/_internal/healthcheck"),
            _running(proxy_command, f"{proxy}/token"),
        ):
            environment = {
                "STORAGE_EMULATOR_HOST": url,
                "HTTPS_PROXY": proxy,
                "https_proxy": proxy,
                "NO_PROXY": "127.0.0.1,localhost",
                "no_proxy": "127.0.0.1,localhost",
                "CURL_CA_BUNDLE": str(certificate),
                "NO_GCE_CHECK": "true",  # no look for a machine's own account: of TensorFlow and of google-auth
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "tests",  # TensorFlow
                "GOOGLE_APPLICATION_CREDENTIALS": str(_write_account(Path(folder), f"{proxy}/token")),  # the others
                "GOOGLE_CLOUD_PROJECT": "tests",
            }
            yield Gcs(url, environment)


def _fake_gcs_server() -> str:
    """The program, built once into the user's cache."""
    if program := shutil.which("fake-gcs-server"):
        return program
    name, _, version = FAKE_GCS_SERVER.partition("@")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fpn-pipeline"
    kept = cache / f"{name.rpartition('/')[2]}-{version}"
    if kept.exists():
        return str(kept)
    if not shutil.which("go"):
        raise Unavailable("fake-gcs-server is not there, and no go to build it")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        environment = {**os.environ, "GOBIN": folder}
        command = ["go", "install", FAKE_GCS_SERVER]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_BUILD_TIMEOUT, check=False)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"fake-gcs-server was not built in {_BUILD_TIMEOUT} s") from error
        if done.returncode:
            raise Unavailable(f"fake-gcs-server can't be built: {done.stderr.strip()[-300:]}")
        os.replace(f"{folder}/{name.rpartition('/')[2]}", kept)  # another process may have put its own there
    return str(kept)


@contextlib.contextmanager
def _running(command: list[str], health: str) -> Iterator[None]:
    """A server, from its first answer until the end of the block."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        try:
            _wait(process, health, output)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen, health: str, output: Any) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    ends = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            direct.open(health, timeout=5).close()
            return
        except (urllib.error.URLError, OSError) as error:
            if process.poll() is not None or time.monotonic() > ends:
                output.seek(0)
                name = os.path.basename(str(process.args[0])) if isinstance(process.args, list) else ""
                raise Unavailable(f"{name} doesn't serve {health}: {output.read()[-300:]}") from error
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _write_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate of Google's names, for a day, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _GCS_HOSTS[0])])
    names = [x509.DNSName(host) for host in _GCS_HOSTS]
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def _write_account(folder: Path, token_uri: str) -> Path:
    """Credentials of a service account: without any, Beam looks for some for half a minute before it goes on."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "tests",
        "private_key_id": "1",
        "private_key": key.decode(),
        "client_email": "tests@tests.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }
    path = folder / "account.json"
    path.write_text(json.dumps(account))
    return path


class _Proxy(ThreadingHTTPServer):
    """Answers in the name of Google's store with what a server on this machine says; leads nobody elsewhere.

    Below /token it gives tokens, as Google does to service accounts. It runs in a process of its own, since TensorFlow waits
    for answers without letting other threads of Python go on.
    """

    def __init__(self, port: int, store_port: int, certificate: str, key: str) -> None:
        super().__init__(("127.0.0.1", port), _Forwarder)
        self.store_port = store_port
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.tls.load_cert_chain(certificate, key)


class _Forwarder(BaseHTTPRequestHandler):
    server: _Proxy
    protocol_version = "HTTP/1.1"
    inside = False  # of a tunnel

    def do_CONNECT(self) -> None:
        if self.path not in [f"{host}:443" for host in _GCS_HOSTS]:
            self.send_error(403)
            return
        self.send_response_only(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)  # type: ignore[assignment]
        self.inside = True

    def do_GET(self) -> None:
        body = self._body()
        if self.inside:
            self._forward(body)
        elif self.path == "/token":
            token = {"access_token": "tests", "expires_in": 86_400, "token_type": "Bearer"}
            self._answer(200, {"Content-Type": "application/json"}, json.dumps(token).encode())
        else:
            self.send_error(403)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _forward(self, body: bytes) -> None:
        store = http.client.HTTPConnection("127.0.0.1", self.server.store_port)
        headers = dict(self.headers.items())
        # TensorFlow sends "identity", which Go's server refuses, and "chunked", which is decoded here.
        headers.pop("Transfer-Encoding", None)
        headers["Content-Length"] = str(len(body))
        headers["X-Forwarded-Proto"] = "https"
        with contextlib.closing(store):
            store.request(self.command, self.path, body, headers)
            answer = store.getresponse()
            self._answer(answer.status, dict(answer.getheaders()), answer.read())

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name not in ("Content-Length", "Transfer-Encoding", "Connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", headers.get("Content-Length", str(len(body))))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


if __name__ == "__main__":
    _Proxy(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:5]).serve_forever()

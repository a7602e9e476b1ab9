"""A web server on loopback that sends an archive, or fails as the web does."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass
class Web:
    """What the server at `url` sends: by path, a body, or a status and where to look instead."""

    url: str = ""
    bodies: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    claimed: dict[str, int] = field(default_factory=dict)
    """Lengths in the header of bodies, where they are not the true ones."""
    validators: dict[str, dict[str, str]] = field(default_factory=dict)
    """ETag or Last-Modified of bodies; to a request that has its value the answer is 304."""
    unending: set[str] = field(default_factory=set)
    """Paths at which the headers begin and never end."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Host and target of each request."""
    statuses: list[int] = field(default_factory=list)
    """Of the answers."""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def write_certificate(path: Path, *hosts: str) -> Path:
    """Write a certificate for `hosts` that signs itself, with its key, to a PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@contextmanager
def serving(certificate: Path | None = None) -> Iterator[Web]:
    """The server, for the duration of the context; with a certificate and its key, it speaks TLS."""
    web = Web()
    server = _Server(("127.0.0.1", 0), _Handler)
    server.web = web
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    web.url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    web: Web

    def handle_error(self, *_: object) -> None:
        """Nothing: a client that gives up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        web = self.server.web
        web.requests.append((self.headers["Host"], self.path))
        path = self.path.partition("?")[0]
        if path in web.unending:
            self._begin()
        elif path in web.redirects:
            self.send_response(302)
            self.send_header("Location", web.redirects[path])
            self.end_headers()
        elif self._conditions() & set(web.validators.get(path, {}).values()):
            self.send_response(304)
            self.end_headers()
        elif path in web.bodies:
            body = web.bodies[path]
            self.send_response(200)
            for name, value in web.validators.get(path, {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(web.claimed.get(path, len(body))))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)
        else:
            self.send_error(403 if "Signature" in self.path else 404)

    def _conditions(self) -> set[str]:
        return {self.headers[name] for name in ("If-None-Match", "If-Modified-Since") if name in self.headers}

    def send_response(self, code: int, message: str | None = None) -> None:
        self.server.web.statuses.append(code)
        super().send_response(code, message)

    def _begin(self) -> None:
        with suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            self.rfile.read(1)

    def log_message(self, *_: object) -> None:
        """Nothing: `Web.requests` has what matters."""

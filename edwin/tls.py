"""TLS: the gateway's certificate as its server needs it, and as its commands trust it.

``listener`` serves with :func:`configured`, ``cli`` asks the gateway of its own
state folder with :func:`own_context`.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from edwin.errors import ConfigError

if TYPE_CHECKING:
    from edwin.config.snapshot import TlsConfig

_CERTIFICATE = re.compile(
    "-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL
)


def configured(files: TlsConfig | None) -> ssl.SSLContext | None:
    """Return what connections are encrypted with; None: they are not.

    Raises:
        ConfigError: As :func:`server_context`.

    """
    return server_context(files.cert_file, files.key_file) if files else None


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return what to serve HTTPS with: TLS 1.2 or later, HTTP/1.1.

    Args:
        certificate: PEM; the server's own, then those that lead to its issuer.
        key: PEM; its private key, not encrypted.

    Raises:
        ConfigError: If they cannot be read, or do not belong together.

    """
    _check(certificate, "certFile")
    _check(key, "keyFile")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password of ours, OpenSSL asks for one at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(_reason(certificate, key, error)) from error
    return context


def own_context(certificate: Path) -> ssl.SSLContext:
    """Return what to reach this machine's own gateway with.

    Its certificate is known, so that only it is accepted; it is for the name that
    others know the gateway by, and here it is asked by its address.

    Raises:
        ConfigError: If the certificate cannot be read.

    """
    found = _CERTIFICATE.search(_check(certificate, "certFile"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=found.group() if found else "none")
    except ssl.SSLError as error:
        raise ConfigError(
            f"gateway.tls.certFile: {certificate} holds no certificate in PEM"
        ) from error
    return context


def _check(path: Path, key: str) -> str:
    """Return what the file holds; OpenSSL would not say which of two it means."""
    try:
        return path.read_text("ascii", "replace")
    except OSError as error:
        reason = (error.strerror or "error").lower()
        raise ConfigError(
            f"gateway.tls.{key}: {path} cannot be read ({reason})"
        ) from error


def _reason(certificate: Path, key: Path, error: OSError) -> str:
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return (
            f"gateway.tls.keyFile: {key} is not the key of the certificate in "
            f"{certificate}"
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate)
    except (ssl.SSLError, OSError):
        return f"gateway.tls.certFile: {certificate} holds no certificate in PEM"
    return (
        f"gateway.tls.keyFile: {key} holds no private key in PEM that needs no password"
    )

"""TLS towards endpoints: whom to trust, and what went wrong in words."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

from gateway.errors import StartError


class Tls(NamedTuple):
    """How a connection speaks TLS. server_name: what the certificate must be for, and what is asked for (SNI)."""

    context: ssl.SSLContext
    server_name: str


def client_context(key: str, ca: str | None, verify: bool) -> ssl.SSLContext:
    """ca: the file with the certificates that are trusted, None for the system's; key: where the configuration names
    it. Raises StartError."""
    if ca is not None and Path(ca).exists() and not Path(ca).is_file():  # a pipe would be waited for
        raise StartError(f"{key}: {ca} is not a file")
    try:
        context = ssl.create_default_context(cafile=ca)
    except ssl.SSLError:
        raise StartError(f"{key}: {ca} holds no certificates in PEM form") from None
    except OSError as error:
        raise StartError(f"{key}: {ca} can't be read: {error.strerror}") from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def trouble(error: ssl.SSLError) -> str:
    """Why there is no TLS, without OpenSSL's codes and line numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message.rstrip('.')}"
    reason = str(error.reason or "").replace("_", " ").lower()
    return f"TLS handshake failed: {reason or 'no reason was given'}"

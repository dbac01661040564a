"""Certificates for tests."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Names:
    """A certificate authority, and the files and contexts of who has a certificate from it."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.file = str(folder / "ca.pem")
        self._authority.cert_pem.write_to_path(self.file)

    def context(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*names).configure_cert(context)
        return context

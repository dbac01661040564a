"""What tests of several layers need."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.middleware.identity import watched
from tests.middleware.tokens import key_document, public_jwk


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is looked at with each request."""
    monkeypatch.setattr(watched, "LOOK", 0.0)


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    """A file of public keys."""
    path = tmp_path / "jwks.json"
    path.write_bytes(key_document(public_jwk("ES256"), public_jwk("RS256"), public_jwk("ES384")))
    return path

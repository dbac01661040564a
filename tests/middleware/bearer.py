"""Requests with tokens to a lone `jwt` layer, and how it refuses them."""

from __future__ import annotations

import json
from typing import Any

from tests.middleware.rig import Answer
from tests.middleware.tokens import (
    raw_token,
    token,
)

BOUND: dict[str, Any] = {"algorithms": ["ES256"], "issuer": "https://id.example", "audience": "api"}


def bearer(written: bytes) -> bytes:
    return b"Authorization: Bearer " + written


def told(asked: Answer) -> tuple[int, str, str]:
    """How a request was refused: status, reason, and the sentence in the challenge."""
    assert not asked.passed
    return asked.status, asked.reason, asked.challenge.partition('error_description="')[2].removesuffix('"')


def invalid(asked: Answer) -> str:
    """The sentence with which a token was refused as an invalid one."""
    status, reason, said = told(asked)
    assert (status, reason) == (401, "token_invalid")
    assert 'error="invalid_token"' in asked.challenge
    return said


def signed(payload: bytes, alg: str = "ES256") -> bytes:
    return raw_token(json.dumps({"alg": alg, "kid": f"{alg}-0"}).encode(), payload, alg)


def with_header(number: int = 0, /, **header: Any) -> bytes:
    return token("ES256", number, header=header)


SIGNATURE = "The signature of the token can not be verified"
ALGORITHM = "The algorithm of the token is not accepted"
HEADER = "The token has a header parameter that is not accepted"
MALFORMED = "The token is malformed"

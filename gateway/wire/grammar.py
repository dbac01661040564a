"""What may stand where (RFC 9112): the expressions, what they let through, and the error for all else.

The grammar is the RFC's without its obsolete parts: no bare CR or LF, no folding, no space before a colon, no control
characters.
"""

from __future__ import annotations

import re
from functools import lru_cache

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"

# The other files import what an expression does, not the expression: CPython takes an imported name for a module's and
# makes a bound method at every call, 300 to 500 instructions each.
match_request_line = re.compile(rb"(" + TOKEN + rb"++) ([\x21\x22\x24-\x7e\x80-\xff]++) HTTP/1\.([0-9])").fullmatch
match_status_line = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*+)?").fullmatch
match_field_line = re.compile(rb"(" + TOKEN + rb"++):[ \t]*+([\t\x20-\x7e\x80-\xff]*+)").fullmatch
match_token = re.compile(TOKEN + rb"++").fullmatch
find_bare_line_ending = re.compile(rb"(?<!\r)\n|\r(?!\n)(?=.)", re.DOTALL).search

_VALUE_ONLY = re.compile(rb"[\t\x20-\x7e\x80-\xff]*+")
_TARGET_ONLY = re.compile(rb"[\x21\x22\x24-\x7e\x80-\xff]++")
_AUTHORITY = re.compile(rb"(?:\[[0-9A-Fa-f:.]++\]|[!$&'()*+,;=\-._~0-9A-Za-z%]*+)(?::[0-9]{0,5})?")
LONGEST_AUTHORITY = 261  # a DNS name has 253 characters at the most (RFC 1035), a port 5


class WireError(Exception):
    """A message that must not be read. status: what a client is told; reason: a code for people and logs."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def is_method(method: bytes) -> bool:
    """Whether this can be the method of a request."""
    return match_token(method) is not None


def is_field(name: bytes, value: bytes) -> bool:
    """Whether this pair can stand on the wire as one field line."""
    return match_token(name) is not None and _VALUE_ONLY.fullmatch(value) is not None


def is_target(target: bytes) -> bool:
    """Whether this can stand in a request line as the target."""
    return _TARGET_ONLY.fullmatch(target) is not None


def is_authority(host: bytes) -> bool:
    """Whether this can be a host and port."""
    return len(host) <= LONGEST_AUTHORITY and well_formed_authority(host)


@lru_cache(maxsize=4096)
def well_formed_authority(host: bytes) -> bool:
    """Whether this reads as a host and port, however long it is. Remembered, for the hosts of a gateway are few: ask
    about those within `LONGEST_AUTHORITY` only."""
    return _AUTHORITY.fullmatch(host) is not None


def tokens(value: bytes) -> list[bytes]:
    """The members of a comma-separated list, in lower case."""
    return [token.strip(b" \t") for token in value.lower().split(b",")]

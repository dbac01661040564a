"""The names of fields that mean something to an intermediary, in lower case."""

from __future__ import annotations

# Removed by every intermediary, with what Connection names (RFC 9110, section 7.6.1; Go's list).
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
# Told to the application by us, never by a client whom nobody vouched for; so is every name that begins so.
IDENTITY = frozenset((b"forwarded", b"x-real-ip", b"true-client-ip", b"cf-connecting-ip"))
IDENTITY_PREFIXES = (b"x-forwarded-", b"x-original-")
# More than one of these in a request is an attempt to be read in two ways.
SINGLE = frozenset((b"host", b"content-length", b"transfer-encoding"))
# What CGI would spell like another one: `X_Real_IP` and `X-Real-IP` both become HTTP_X_REAL_IP. Dropped, as nginx does.
SPOOF = b"_"

NO_NAMES: frozenset[bytes] = frozenset()

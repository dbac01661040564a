"""What a token says, and whether that is enough: times, issuer, audience, scopes, and claims as field values. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from gateway.middleware.identity.jose import TokenRefused

Claims = dict[str, Any]

# Seconds at the end of the year 9999. A time beyond it is one in milliseconds, and a token that would never expire.
_LATEST = 253402300799
# What may stand in a field as it is: one line, without space at its ends that the next reader would take away.
_FIELD_TEXT = re.compile(r"(?:[^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?)?")


@dataclass(frozen=True, slots=True)
class Rules:
    """What is demanded of claims. issuers: any when None. audiences: of these one at least; when None a token must not
    name any. required: names besides `exp`. leeway: seconds that clocks may differ. max_age: seconds since `iat`."""

    issuers: frozenset[str] | None = None
    audiences: frozenset[str] | None = None
    any_audience: bool = False
    required: tuple[str, ...] = ()
    leeway: float = 30.0
    max_age: float | None = None

    def check(self, claims: Claims, now: float) -> float:
        """now: seconds since 1970. Until when the token is good, as such seconds. Raises TokenRefused."""
        for name in self.required:
            if claims.get(name) is None:
                raise TokenRefused("The token lacks a claim that is required")
        until = self._within(claims, now)
        if self.issuers is not None:
            issuer = claims.get("iss")
            if type(issuer) is not str or issuer not in self.issuers:
                raise TokenRefused("The issuer of the token is not accepted")
        if not self.any_audience:
            self._meant_for_us(claims)
        return until

    def _within(self, claims: Claims, now: float) -> float:
        expires = _time(claims, "exp")
        if expires is None:
            raise TokenRefused("The token does not expire")
        until = expires + self.leeway
        if now >= until:
            raise TokenRefused("The token has expired", "token_expired")
        begins = _time(claims, "nbf")
        issued = _time(claims, "iat")
        if begins is not None and begins > now + self.leeway:
            raise TokenRefused("The token is not valid yet")
        if issued is not None and issued > now + self.leeway:
            raise TokenRefused("The token was issued in the future")
        if self.max_age is not None:
            if issued is None:
                raise TokenRefused("The token does not say when it was issued")
            until = min(until, issued + self.max_age + self.leeway)
            if now >= until:
                raise TokenRefused("The token is too old", "token_expired")
        return until

    def _meant_for_us(self, claims: Claims) -> None:
        """RFC 7519, section 4.1.3: who is not named where somebody is must refuse."""
        meant = claims.get("aud")
        if meant is None and self.audiences is None:
            return
        named = meant if type(meant) is list else [meant]
        if not all(type(one) is str for one in named) or (self.audiences or frozenset()).isdisjoint(named):
            raise TokenRefused("The token is meant for somebody else")


def _time(claims: Claims, name: str) -> float | None:
    """A NumericDate (RFC 7519, section 2); None when there is no such claim."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) not in (int, float) or not 0 <= value <= _LATEST:
        raise TokenRefused("A time in the token is malformed")
    return float(value)


def scopes_of(claims: Claims) -> frozenset[str]:
    """The scopes of a token: `scope` as RFC 8693, section 4.2, has it, or `scp`; either as text or as an array."""
    found: list[str] = []
    for name in ("scope", "scp"):
        value = claims.get(name)
        if type(value) is str:
            found += value.split(" ")
        elif type(value) is list:
            found += [one for one in value if type(one) is str]
    return frozenset(found)


def claim(claims: Claims, path: str) -> Any:
    """A claim by its name, or by names with dots between them from the outside in. None when there is none."""
    if path in claims:  # also "https://example.com/roles": the whole name goes first
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        if type(value) is not dict:
            return None
        value = value.get(name)
    return value


def field_text(value: Any) -> str | None:
    """A claim as the value of a field, None when there is nothing to say. Raises TokenRefused for what can't stand in
    one, or would read differently there: a list whose item holds a comma would have more items than it has."""
    if value is None:
        return None
    if type(value) is list:
        items = [_plain(item) for item in value]
        if any("," in item or not item for item in items):
            raise TokenRefused("A claim of the token can not be passed on")
        return ",".join(items)
    return _plain(value)


def _plain(value: Any) -> str:
    if type(value) is str:
        if _FIELD_TEXT.fullmatch(value) is None:
            raise TokenRefused("A claim of the token can not be passed on")
        return value
    if type(value) in (int, float, bool):
        return json.dumps(value)
    raise TokenRefused("A claim of the token can not be passed on")


def user_of(claims: Claims, path: str) -> str:
    """Who somebody is, for logs and templates; "" when the claim is no text and no whole number."""
    value = claim(claims, path)
    if type(value) is int:
        return str(value)
    return value if type(value) is str and _FIELD_TEXT.fullmatch(value) is not None else ""

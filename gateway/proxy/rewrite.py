"""The target that an endpoint gets in place of the client's, and the way back: a place that its response speaks of has
another name for the client. Pure.

Targets are changed in their escaped form and nothing is decoded for good, so what a rewrite does not concern arrives
byte for byte as it was sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.config.model import Rewrite as RewriteConfig
from gateway.config.values import parse_replacement
from gateway.proxy.paths import decoded, escaped

_DOTS = re.compile(rb"/(?:\.|%2[Ee]){1,2}(?![^/])")
# In a query "+" is a space and "&" begins the next parameter; what comes from a path means neither.
_NO_VALUE = re.compile(rb"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9._~/:@%-]")


def join(base: bytes, target: bytes) -> bytes:
    """The target below the path of an endpoint's address, joined as Go's NewSingleHostReverseProxy joins them: with one
    slash between, in their escaped forms."""
    if not base or target == b"*":
        return target
    if base.endswith(b"/"):
        return base + (target[1:] if target.startswith(b"/") else target)
    return base + target if target.startswith(b"/") else base + b"/" + target


class Rewrite:
    """What a route does to targets.

    prefix: what is stripped, b"" for nothing; the endpoint hears of it in X-Forwarded-Prefix. added: what goes before
    instead. Both are stems, without a slash at their end.
    """

    def __init__(self, config: RewriteConfig, path: str) -> None:
        """path: the prefix that the route takes, "" when it takes another kind of path."""
        stem = path.rstrip("/") if config.strip_prefix else ""
        self.prefix = escaped(stem.encode())
        self.added = (config.add_prefix or "").encode().rstrip(b"/")
        self._segments = stem.split("/")[1:]
        self._whole = config.replace_path.encode() if config.replace_path is not None else None
        self._pattern = None
        if config.regex is not None and config.to is not None:
            self._pattern = re.compile(config.regex)
            self._replacement = _Replacement(config.to, self._pattern)

    def target(self, target: bytes) -> bytes:
        """The target for the endpoint, of a request that the route took. It can stand in a request line when `target`
        can."""
        if target == b"*":
            return target
        path, mark, query = target.partition(b"?")
        if self._pattern is not None:
            return self._replaced(self._pattern, path, mark, query)
        if self._whole is not None:
            path = self._whole
        elif self.prefix:
            path = self._stripped(path)
        return self.added + path + mark + query

    def _stripped(self, path: bytes) -> bytes:
        after = path[len(self.prefix) :]
        if path.startswith(self.prefix) and after[:1] in (b"", b"/") and not _DOTS.search(path):
            return after or b"/"
        # Escaped in another way, or on detours ("/x/../shop/y"): cut where the walk arrives at the prefix for the last
        # time, so that what is left does not lead out of it again.
        walked: list[str] = []
        at = cut = 0
        for segment in path.split(b"/")[1:]:
            at += 1 + len(segment)
            name = decoded(segment)
            if name in ("", "."):
                continue
            if name == "..":
                del walked[-1:]
            else:
                walked.append(name)
            if walked == self._segments:
                cut = at
        return path[cut:] or b"/"

    def _replaced(self, pattern: re.Pattern[str], path: bytes, mark: bytes, query: bytes) -> bytes:
        text = path.decode("utf-8", "surrogateescape")
        found = pattern.match(text)
        if found is None:
            return path + mark + query
        tail = text[found.end() :].encode("utf-8", "surrogateescape")
        path, own = self._replacement.of(found)
        if own:
            mark, query = b"?", own + b"&" + query if query else own
        return escaped(path + tail) + mark + query


class _Replacement:
    """What a match becomes: literal pieces and groups, once for the path and once for the query."""

    def __init__(self, text: str, pattern: re.Pattern[str]) -> None:
        path, _, query = text.partition("?")
        self._path = parse_replacement(path, pattern)
        self._query = parse_replacement("/" + query, pattern)

    def of(self, found: re.Match[str]) -> tuple[bytes, bytes]:
        """The path, not yet escaped, and the query."""

        def group(number: int) -> bytes:
            return (found[number] or "").encode("utf-8", "surrogateescape")

        path = b"".join([piece.encode() if isinstance(piece, str) else group(piece) for piece in self._path])
        query = b"".join([piece.encode() if isinstance(piece, str) else _value(group(piece)) for piece in self._query])
        return path, query[1:]


def _value(raw: bytes) -> bytes:
    return _NO_VALUE.sub(lambda found: b"%%%02X" % found[0][0], raw)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Where the resources of an endpoint are for clients of a route.

    public, internal: the same place as clients and as the endpoint write it, as stems ("" for the root). authorities:
    what the endpoint calls itself; hosts: the same without ports. All in lower case.
    """

    public: bytes
    internal: bytes
    authorities: frozenset[bytes]
    hosts: frozenset[bytes]

    @classmethod
    def of(cls, rewrite: Rewrite | None, base: bytes, authority: bytes, host: bytes) -> Mapping | None:
        """What maps the responses of an endpoint; None when it and the client say the same.

        base, authority: of the endpoint's address. host: the Host that it is sent, b"" for the client's own.
        """
        public = rewrite.prefix if rewrite is not None else b""
        internal = join(base, rewrite.added if rewrite is not None and rewrite.added else b"/").rstrip(b"/")
        if public == internal and not host:
            return None
        authorities = frozenset(_without_port(one.lower(), b"http") for one in (authority, host) if one)
        return cls(public, internal, authorities, frozenset(_PORT.sub(b"", one) for one in authorities))

    def path(self, path: bytes) -> bytes | None:
        """The public form of an internal path, whatever may follow it; None for one that lies elsewhere.

        An endpoint that takes X-Forwarded-Prefix into account says the public form itself.
        """
        if not _is_below(path, self.internal):
            return None
        if _is_below(self.public, self.internal) and self.public != self.internal and _is_below(path, self.public):
            return path
        path = self.public + path[len(self.internal) :]
        return path if path.startswith(b"/") else b"/" + path


_PORT = re.compile(rb":[0-9]*\Z")


def _is_below(path: bytes, stem: bytes) -> bool:
    return path.startswith(stem) and path[len(stem) : len(stem) + 1] in (b"", b"/", b"?", b"#")


def _without_port(authority: bytes, scheme: bytes) -> bytes:
    return authority.removesuffix(b":443" if scheme == b"https" else b":80")


_LINE = re.compile(
    rb"^(?:(?P<url>(?:content-)?location)|(?P<refresh>refresh)|set-cookie)(?P<colon>:[ \t]*)(?P<value>[^\r\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_ABSOLUTE = re.compile(rb"(?:(https?):)?//([^/?#\\]+)([/?#][!-~\x80-\xff]*)?", re.IGNORECASE)
_PATH = re.compile(rb"/(?![/\\])[!-~\x80-\xff]*")
_REFRESH = re.compile(
    rb"""([0-9]+(?:\.[0-9]*)?[ \t]*[;,][ \t]*(?:url[ \t]*=[ \t]*)?(["']?))([!-~\x80-\xff]*?)(\2[ \t]*)""", re.IGNORECASE
)


def mapped_back(block: bytes, mapping: Mapping, scheme: bytes, host: bytes) -> bytes:
    """The field lines of a response as the client must read them; the same object when nothing is to be changed.

    block: lines with CRLF between them. scheme, host: how the client addressed the gateway. Location, Content-Location,
    Refresh and Set-Cookie are mapped, everything else is left alone, and so is what can't be read for certain.
    """
    lower = block.lower()
    if b"location:" not in lower and b"set-cookie:" not in lower and b"refresh:" not in lower:
        return block
    back = _Back(mapping, scheme, host)
    mapped = _LINE.sub(back.line, block)
    return mapped if mapped != block else block


class _Back:
    """A mapping for one response."""

    def __init__(self, mapping: Mapping, scheme: bytes, host: bytes) -> None:
        self._mapping = mapping
        self._scheme = scheme
        self._host = host

    def line(self, found: re.Match[bytes]) -> bytes:
        value = found["value"]
        if found["url"]:
            url = value.rstrip(b" \t")
            mapped = self._url(url) + value[len(url) :]
        elif found["refresh"]:
            parts = _REFRESH.fullmatch(value)
            mapped = parts[1] + self._url(parts[3]) + parts[4] if parts is not None else value
        else:
            mapped = self._cookie(value)
        return found[0][: found.start("value") - found.start()] + mapped

    def _url(self, url: bytes) -> bytes:
        if _PATH.fullmatch(url):
            path = self._mapping.path(url)
            # Where nothing goes before it any more, "/base//host" would become a URL of another host.
            return path if path is not None and _PATH.fullmatch(path) else url
        found = _ABSOLUTE.fullmatch(url)
        if found is None:
            return url
        named, authority, rest = found.groups(b"")
        scheme = named.lower() or b"http"
        path = self._mapping.path(rest if rest.startswith(b"/") else b"/" + rest)
        if path is None:
            return url
        authority = _without_port(authority.lower(), scheme)
        if authority in self._mapping.authorities and scheme == b"http" and self._host:
            before = b"%b://" % self._scheme if named else b"//"
            return before + self._host + path
        if authority == _without_port(self._host.lower(), scheme):
            return url[: found.end(2)] + path
        return url

    def _cookie(self, value: bytes) -> bytes:
        pair, *attributes = value.split(b";")
        kept = [pair]
        for attribute in attributes:
            name, equals, said = attribute.partition(b"=")
            match name.strip(b" \t").lower():
                case b"domain" if said.strip(b" \t").lower().removeprefix(b".") in self._mapping.hosts:
                    continue  # without it the cookie is for the host that the client asked, and no other
                case b"path" if not pair.lstrip(b" \t").lower().startswith(b"__host-"):  # which must say "/"
                    attribute = name + equals + self._cookie_path(said)
            kept.append(attribute)
        return b";".join(kept)

    def _cookie_path(self, said: bytes) -> bytes:
        path = said.strip(b" \t")
        if not path.startswith(b"/"):
            return said
        # "/" is the root with all below it; behind a public prefix a slash would leave out the prefix itself.
        mapped = self._mapping.path(path) if path != b"/" or self._mapping.internal else self._mapping.public or b"/"
        return said.replace(path, mapped, 1) if mapped is not None else said

"""Files of a directory."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Awaitable, Iterable, Mapping
from email.utils import parsedate
from mimetypes import guess_type
from time import gmtime
from typing import Any, ClassVar, Literal, NamedTuple
from urllib.parse import unquote_to_bytes

from starlette.staticfiles import StaticFiles

from gateway.config.fields import Flag, NonEmpty
from gateway.config.http import FieldValue, UrlPath
from gateway.errors import Absent, Refused, StartError
from gateway.middleware.content.location import in_location
from gateway.middleware.middleware import App, Message, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.wire import RequestHead, listed, value_of

# RFC 9110, section 14.1.1, for the one unit that is known here. What doesn't look so is ignored (section 14.2).
_RANGES = re.compile(rb"bytes=(?:[ \t]*(?:[0-9]{1,18}-(?:[0-9]{1,18})?|-[0-9]{1,18})[ \t]*(?:,|$))+", re.IGNORECASE)
_FROM_TO = re.compile(rb"([0-9]+)-([0-9]+)")
_LONGEST_RANGES = 1024
_METHODS = ("GET", "HEAD")
# What a file is that is compressed, by what Python calls the coding. Without Content-Encoding, which not every client
# of a .js.gz could do with, it is an archive and no script.
_CODED = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "compress": "application/x-compress",
}


class Options(Base):
    kind: Literal["static"] = "static"
    """Serves the files of a directory."""
    root: NonEmpty
    """The directory. A relative path starts at the directory of the configuration file."""
    prefix: UrlPath = "/"
    """What is taken off the path of a request first: with "/assets", /assets/app.js is app.js in `root`. A path that
    does not begin so is none of a file."""
    index: tuple[NonEmpty, ...] = ("index.html",)
    """The files that stand for a directory, the first that there is. Without any a directory is not found; it is never
    listed."""
    cache_control: FieldValue | None = None
    """The Cache-Control field; none when absent."""
    fallthrough: Flag = False
    """Whether a request for which there is no file goes on, instead of being answered 404; others than GET and HEAD
    too."""
    dot_files: Flag = False
    """Whether files and directories are served whose names begin with a dot; /.well-known (RFC 8615) always is."""
    follow_symlinks: Flag = False
    """Whether links are followed that lead out of `root`."""

    FILES: ClassVar[tuple[str, ...]] = ("root",)

    @classmethod
    def answers(cls, written: Mapping[str, Any]) -> bool:
        return not written.get("fallthrough")


class Static(Middleware):
    """Answers GET and HEAD with the file that the path names in `root`, by pieces of 64 KiB: with ETag, Last-Modified,
    ranges, 304, 412 (`precondition_failed`) and a type by the last ending of its name. The path of a directory gets the
    slash it lacks by a redirect, and then the directory's index. What is not there, may not be read or lies outside is
    404 (`file_not_found`), another method 405. Paths with dot segments, a backslash, an escaped slash or an empty
    segment name no file, however they are escaped.

    Of a file that grows while it is sent goes out what there was; the answer is cut (`file_changed`) when it becomes
    shorter.

    Order: inside compression, security headers and authentication. With `fallthrough` the application behind it answers
    for what is not a file."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "static", root = "/srv/www", cache_control = "max-age=3600" }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        if not os.path.lexists(options.root):
            raise Absent(f"root: there is no directory {options.root}")
        if not os.path.isdir(options.root):  # noqa: PTH112
            raise StartError(f"root: {options.root} is not a directory")
        self._place = place
        self._files = StaticFiles(directory=options.root, follow_symlink=options.follow_symlinks)
        self._prefix = options.prefix.rstrip("/").encode()
        self._index = options.index
        self._cache_control = options.cache_control
        self._falls_through = options.fallthrough
        self._shows_dots = options.dot_files

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["method"] in _METHODS:
            return self._serve(scope, receive, send)
        if self._falls_through:
            return self._app(scope, receive, send)
        return self._place.refuse(scope["gateway"], send, "method_not_allowed", ((b"allow", b"GET, HEAD"),))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange, head = scope["gateway"], scope["headers"]
        path, mark, query = head.target.partition(b"?")
        name = self._name(path)
        found = None if name is None else await asyncio.to_thread(self._look_up, name)
        is_slashed = path.endswith(b"/")
        if found is None or (is_slashed and not found.stands_for_directory):
            if self._falls_through:
                await self._app(scope, receive, send)
            else:
                await self._place.refuse(exchange, send, "file_not_found")
            return
        if found.stands_for_directory and not is_slashed:
            where = in_location(path + b"/" + mark + query)
            headers = [(b"location", where), (b"content-length", b"0")]
            exchange.begun = True
            await send({"type": "http.response.start", "status": 308, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        theirs = _as_starlette_has_it(scope["method"], head.pairs())
        response = self._files.file_response(found.path, found.facts, theirs)
        if not _is_meant(head, response.headers["etag"].encode(), found.facts.st_mtime):
            await self._place.refuse(exchange, send, "precondition_failed")
            return
        _, coding = guess_type(found.path)
        if coding is not None and "content-type" in response.headers:
            response.headers["content-type"] = _CODED.get(coding, "application/octet-stream")
        exchange.begun = True
        if self._cache_control is not None:
            response.headers["cache-control"] = self._cache_control
        await _Exact(scope["method"], send).response(response, theirs, receive)

    def _name(self, path: bytes) -> str | None:
        """The file that a path names, relative to the root; None for what names none."""
        if not path.startswith(self._prefix + b"/") and path != self._prefix:
            return None
        raw = path[len(self._prefix) + 1 :]
        if b"\\" in raw or b"//" in path or b"%2f" in raw.lower():
            return None
        try:
            name = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            return None
        if "\0" in name or "\\" in name:
            return None
        segments = name.removesuffix("/").split("/") if name else []
        for number, segment in enumerate(segments):
            if segment in ("", ".", ".."):
                return None
            is_shown = self._shows_dots or (segment == ".well-known" and not number)
            if segment.startswith(".") and not is_shown:
                return None
        return "/".join(segments)

    def _look_up(self, name: str) -> _File | None:
        """In a thread: disks may take their time."""
        found = self._stat(name)
        if found is not None and stat.S_ISDIR(found.facts.st_mode):
            for index in self._index:
                file = self._stat(f"{name}/{index}" if name else index)
                if file is not None and file.is_readable:
                    return file._replace(stands_for_directory=True)
            return None
        return found if found is not None and found.is_readable else None

    def _stat(self, name: str) -> _File | None:
        """None for what is not there or lies outside."""
        try:
            path, facts = self._files.lookup_path(name)
        except (OSError, ValueError):  # too long a name, links that go round
            return None
        return None if facts is None else _File(path, facts)


class _Exact:
    """A response of as many bytes as it says, whatever becomes of the file meanwhile: Starlette sends what is there."""

    __slots__ = ("_is_sending", "_left", "_method", "_send")

    def __init__(self, method: str, send: Send) -> None:
        self._method = method
        self._send = send
        self._left = 0
        self._is_sending = False

    async def response(self, response: Any, scope: Scope, receive: Receive) -> None:
        """Raises Refused for a file that became shorter, or can't be read any more."""
        try:
            await response(scope, receive, self.send)
        except _Enough:
            pass
        except (OSError, RuntimeError) as error:
            if self._is_sending:
                raise
            raise Refused("file_changed", str(error)) from None

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            length = value_of(message["headers"], b"content-length")
            self._left = int(length) if length is not None and self._method != "HEAD" else 0
        else:
            body = message.get("body", b"")
            if len(body) > self._left:
                body = body[: self._left]
            self._left -= len(body)
            more = self._left > 0
            if more and not message.get("more_body", False):
                raise Refused("file_changed", f"{self._left} bytes of it are missing")
            message = {"type": kind, "body": body, "more_body": more}
        self._is_sending = True
        await self._send(message)
        self._is_sending = False
        if kind == "http.response.body" and not self._left:
            raise _Enough


class _Enough(Exception):
    """All that was promised is sent."""


class _File(NamedTuple):
    """facts: what the system says of it. stands_for_directory: a directory was asked for, and this is its index."""

    path: str
    facts: os.stat_result
    stands_for_directory: bool = False

    @property
    def is_readable(self) -> bool:
        return stat.S_ISREG(self.facts.st_mode) and os.access(self.path, os.R_OK)


def _as_starlette_has_it(method: str, pairs: Iterable[tuple[bytes, bytes]]) -> Scope:
    """A scope for its responses: they take a list of fields, and answer 400 to a Range that is to be ignored. Since 2.4
    nobody listens for the client's leaving beside them: here that is a cancellation."""
    if method == "GET":
        headers = [pair for pair in pairs if pair[0] != b"range" or _is_range(pair[1])]
    else:  # for which a range means nothing (RFC 9110, section 14.2)
        headers = [pair for pair in pairs if pair[0] != b"range"]
    return {"type": "http", "asgi": {"spec_version": "2.4"}, "method": method, "headers": headers}


def _is_meant(head: RequestHead, tag: bytes, changed: float) -> bool:
    """Whether If-Match, or else If-Unmodified-Since, holds (RFC 9110, section 13.2.2). changed: seconds since 1970."""
    tags = listed(head, b"if-match")
    if tags is not None:
        return tags == b"*" or tag in [one.strip(b" \t") for one in tags.split(b",")]
    since = head.value(b"if-unmodified-since")
    latest = parsedate(since.decode("latin-1")) if since is not None else None
    return latest is None or gmtime(changed)[:6] <= latest[:6]


def _is_range(value: bytes) -> bool:
    if len(value) > _LONGEST_RANGES or not _RANGES.fullmatch(value):
        return False
    return all(int(first) <= int(last) for first, last in _FROM_TO.findall(value))

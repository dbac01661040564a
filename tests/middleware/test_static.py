"""Files of a directory, and nothing beside it."""

from __future__ import annotations

import os
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Absent, Refused, StartError
from gateway.middleware.compress import Compress
from gateway.middleware.middleware import Message
from gateway.middleware.static import Static
from tests.listeners.site import get
from tests.middleware.rig import Answer, Inner, ask, asking, layer, scope_of
from tests.middleware.surroundings import place, refused
from tests.upstream.peer import live

INDEX = b"<!doctype html>"
LARGE = bytes(range(256)) * 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    www = tmp_path / "www"
    for name, text in {
        "index.html": INDEX,
        "a.txt": b"hello",
        "large.bin": LARGE,
        "empty": b"",
        "sub/index.html": b"sub",
        "bare/b.txt": b"b",
        "gr\u00fc\u00df e.txt": b"gruss",
        ".env": b"secret",
        ".git/config": b"secret",
        ".well-known/security.txt": b"contact",
        "sub/.well-known/x": b"hidden",
    }.items():
        file = www / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
    (tmp_path / "outside.txt").write_bytes(b"secret")
    (tmp_path / "www-too").mkdir()
    (tmp_path / "www-too" / "x").write_bytes(b"secret")
    (www / "out").symlink_to(tmp_path / "outside.txt")
    (www / "outdir").symlink_to(tmp_path)
    (www / "in").symlink_to("a.txt")
    (www / "round").symlink_to("round")
    os.mkfifo(www / "pipe")
    return www


async def got(root: Path, target: str, fields: bytes = b"", method: bytes = b"GET", **options: Any) -> Answer:
    return await ask(layer(Static, Inner(b"app"), root=str(root), **options), get(target.encode(), fields, method))


@live
async def test_files(root: Path) -> None:
    answer = await got(root, "/a.txt?v=1")
    assert (answer.status, answer.body, answer[b"content-length"]) == (200, b"hello", b"5")
    assert answer[b"content-type"] == b"text/plain; charset=utf-8" and answer[b"accept-ranges"] == b"bytes"
    assert answer[b"last-modified"] and answer[b"etag"] and b"cache-control" not in answer
    assert answer.exchange.begun
    answer = await got(root, "/large.bin")
    assert answer.body == LARGE and all(len(piece) <= 65536 for piece in answer.pieces)
    assert (await got(root, "/empty")).body == b""
    assert (await got(root, "/gr%C3%BC%c3%9f%20e.txt")).body == b"gruss"
    assert (await got(root, "/in")).body == b"hello"
    head = await got(root, "/large.bin", method=b"HEAD")
    assert head[b"content-length"] == b"256000" and head.body == b""


@live
async def test_directories(root: Path) -> None:
    assert (await got(root, "/")).body == INDEX
    assert (await got(root, "/sub/")).body == b"sub"
    answer = await got(root, "/sub?a=b")
    assert (answer.status, answer[b"location"]) == (308, b"/sub/?a=b")
    for target in ("/bare", "/bare/", "/a.txt/"):
        assert (await got(root, target)).status == 404
    assert (await got(root, "/bare/", index=["x", "b.txt"])).body == b"b"
    assert (await got(root, "/", index=[])).status == 404


@live
@pytest.mark.parametrize(
    "target",
    [
        "/../outside.txt",
        "/sub/../../outside.txt",
        "/sub/../a.txt",
        "/./a.txt",
        "/%2e%2e/outside.txt",
        "/%2E%2E%2Foutside.txt",
        "/..%2foutside.txt",
        "/..\\outside.txt",
        "/..%5coutside.txt",
        "/sub%2findex.html",
        "/%252e%252e/outside.txt",
        "//a.txt",
        "/sub//index.html",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/a.txt%00",
        "/a.txt%00.png",
        "/%ff",
        "/" + "a" * 300,
        "/a.txt/b",
        "/out",
        "/outdir/outside.txt",
        "/outdir/www-too/x",
        "/../www-too/x",
        "/round",
        "/pipe",
        "/.env",
        "/.git/config",
        "/%2eenv",
        "/sub/.well-known/x",
        "/none",
    ],
)
async def test_what_is_no_file(root: Path, target: str) -> None:
    there = place()
    answer = await ask(layer(Static, Inner(b"app"), there, root=str(root)), get(target.encode()))
    assert (answer.status, answer.reason, refused(there)) == (404, "file_not_found", 1)
    assert b"secret" not in answer.body


@live
async def test_what_can_be_allowed(root: Path) -> None:
    assert (await got(root, "/.well-known/security.txt")).body == b"contact"
    assert (await got(root, "/.env", dot_files=True)).body == b"secret"
    assert (await got(root, "/out", follow_symlinks=True)).body == b"secret"
    assert (await got(root, "/../outside.txt", follow_symlinks=True, dot_files=True)).status == 404


@live
async def test_a_file_that_may_not_be_read(root: Path) -> None:
    (root / "a.txt").chmod(0)
    if os.access(root / "a.txt", os.R_OK):
        pytest.skip("root reads everything")
    assert (await got(root, "/a.txt")).status == 404


@live
async def test_a_prefix(root: Path) -> None:
    for prefix in ("/assets", "/assets/"):
        assert (await got(root, "/assets/a.txt", prefix=prefix)).body == b"hello"
        assert (await got(root, "/assets/", prefix=prefix)).body == INDEX
        assert (await got(root, "/assets", prefix=prefix))[b"location"] == b"/assets/"
        for target in ("/a.txt", "/assetsa.txt", "/"):
            assert (await got(root, target, prefix=prefix)).status == 404


@live
async def test_other_methods(root: Path) -> None:
    answer = await got(root, "/a.txt", method=b"POST")
    assert (answer.status, answer.reason, answer[b"allow"]) == (405, "method_not_allowed", b"GET, HEAD")


@live
async def test_falling_through(root: Path) -> None:
    for target, method in [("/none", b"GET"), ("/a.txt", b"POST"), ("/bare/", b"GET"), ("/../x", b"GET")]:
        assert (await got(root, target, method=method, fallthrough=True)).body == b"app"
    assert (await got(root, "/a.txt", fallthrough=True)).body == b"hello"


@live
async def test_conditions(root: Path) -> None:
    first = await got(root, "/a.txt", cache_control="max-age=60")
    tag = first[b"etag"]
    for fields in (
        b"if-none-match: " + tag,
        b"if-none-match: W/" + tag,
        b'if-none-match: "x", ' + tag,
        b"if-none-match: *",
        b"if-modified-since: " + first[b"last-modified"],
    ):
        answer = await got(root, "/a.txt", fields + b"\r\n", cache_control="max-age=60")
        assert (answer.status, answer.body) == (304, b"")
        assert answer[b"etag"] == tag and answer[b"cache-control"] == b"max-age=60"
    old = formatdate(0, usegmt=True).encode()
    for fields in (b'if-none-match: "x"', b"if-modified-since: " + old):
        assert (await got(root, "/a.txt", fields + b"\r\n")).status == 200


@live
async def test_conditions_of_who_means_one_version(root: Path) -> None:
    first = await got(root, "/a.txt")
    tag, last, old = first[b"etag"], first[b"last-modified"], formatdate(0, usegmt=True).encode()
    for fields, status in [
        (b'if-match: "x"', 412),
        (b"if-match: W/" + tag, 412),
        (b"if-match: " + tag, 200),
        (b'if-match: "x"\r\nif-match: ' + tag, 200),
        (b"if-match: *", 200),
        (b"if-match: %b\r\nif-unmodified-since: %b" % (tag, old), 200),
        (b"if-unmodified-since: " + old, 412),
        (b"if-unmodified-since: " + last, 200),
        (b"if-unmodified-since: yesterday", 200),
        (b'if-match: "x"\r\nif-none-match: ' + tag, 412),
        (b'if-match: "x"\r\nrange: bytes=0-1', 412),
        (b"if-match: %b\r\nrange: bytes=0-1" % tag, 206),
        (b"if-unmodified-since: %b\r\nif-none-match: %b" % (old, tag), 412),
    ]:
        answer = await got(root, "/a.txt", fields + b"\r\n")
        assert answer.status == status, fields
        assert answer.reason == ("precondition_failed" if status == 412 else "")


@live
async def test_head_knows_no_ranges(root: Path) -> None:
    for said in (b"bytes=0-1", b"bytes=300000-", b"bytes=x"):
        answer = await got(root, "/large.bin", b"range: %b\r\n" % said, b"HEAD")
        assert (answer.status, answer[b"content-length"]) == (200, b"256000") and b"content-range" not in answer


@live
async def test_what_is_compressed_is_an_archive(root: Path) -> None:
    for name, kind in [
        ("a.js.gz", b"application/gzip"),
        ("a.tar.gz", b"application/gzip"),
        ("a.tgz", b"application/gzip"),
        ("a.html.bz2", b"application/x-bzip2"),
        ("a.css.br", b"application/octet-stream"),
        ("a.gz.js", b"text/javascript; charset=utf-8"),
    ]:
        (root / name).write_bytes(b"x")
        answer = await got(root, "/" + name)
        assert answer[b"content-type"] == kind and b"content-encoding" not in answer


@live
async def test_ranges(root: Path) -> None:
    for said, start, end in [(b"0-9", 0, 10), (b"255990-", 255990, 256000), (b"-5", 255995, 256000), (b"5-5", 5, 6)]:
        answer = await got(root, "/large.bin", b"range: bytes=%b\r\n" % said)
        assert (answer.status, answer.body) == (206, LARGE[start:end])
        assert answer[b"content-range"] == b"bytes %d-%d/256000" % (start, end - 1)
    for said in (b"bytes=9-5", b"bytes=x", b"lines=0-5", b"bytes=", b"bytes=--1", b"bytes=0-5;q=1", b"bytes=0-" * 500):
        answer = await got(root, "/large.bin", b"range: " + said + b"\r\n")
        assert (answer.status, len(answer.body)) == (200, 256000), said
    answer = await got(root, "/large.bin", b"range: bytes=256000-\r\n")
    assert answer.status == 416 and answer[b"content-range"] == b"bytes */256000"
    answer = await got(root, "/large.bin", b"range: bytes=0-1, 10-11\r\n")
    assert answer.status == 206 and answer[b"content-type"].startswith(b"multipart/byteranges")
    tag = (await got(root, "/large.bin"))[b"etag"]
    for condition, status in [(tag, 206), (b'"x"', 200), (b"W/" + tag, 200)]:
        fields = b"range: bytes=0-1\r\nif-range: %b\r\n" % condition
        assert (await got(root, "/large.bin", fields)).status == status


class Meanwhile(Answer):
    """What left, when something happens as soon as the head of the answer is sent."""

    def __init__(self, request: bytes, happens: Callable[[], Any]) -> None:
        super().__init__(asking(request))
        self._happens = happens

    async def send(self, message: Message) -> None:
        await super().send(message)
        if message["type"] == "http.response.start":
            self._happens()

    async def come(self, root: Path) -> Answer:
        await layer(Static, Inner(b"app"), root=str(root))(scope_of(self.exchange), never, self.send)
        return self


async def never() -> Message:
    raise AssertionError


RANGES = [(b"", 0, 256000), (b"range: bytes=1000-\r\n", 1000, 256000), (b"range: bytes=5-255990\r\n", 5, 255991)]


@live
@pytest.mark.parametrize(("fields", "start", "end"), RANGES)
@pytest.mark.parametrize("more", [b"x", LARGE])
async def test_a_file_that_grows_is_sent_as_it_was(
    root: Path, fields: bytes, start: int, end: int, more: bytes
) -> None:
    file = root / "large.bin"
    answer = Meanwhile(get(b"/large.bin", fields), lambda: file.write_bytes(LARGE + more))
    assert (await answer.come(root)).body == LARGE[start:end]
    assert answer[b"content-length"] == b"%d" % (end - start)
    several = Meanwhile(get(b"/large.bin", b"range: bytes=0-1, 70000-\r\n"), lambda: file.write_bytes(LARGE + more * 2))
    assert len((await several.come(root)).body) == int(several[b"content-length"])


@live
@pytest.mark.parametrize("fields", [*(fields for fields, _, _ in RANGES), b"range: bytes=0-1, 70000-\r\n"])
async def test_a_file_that_becomes_shorter_is_cut(root: Path, fields: bytes) -> None:
    file = root / "large.bin"
    for size in (0, 65536, 100_000):
        file.write_bytes(LARGE)
        answer = Meanwhile(get(b"/large.bin", fields), lambda size=size: os.truncate(file, size))  # type: ignore[misc]
        with pytest.raises(Refused) as caught:
            await answer.come(root)
        assert caught.value.reason == "file_changed"
        assert all(body["more_body"] for body in answer.of("body"))
    file.write_bytes(LARGE)
    with pytest.raises(Refused):
        await Meanwhile(get(b"/large.bin", fields), file.unlink).come(root)


@live
async def test_what_goes_wrong_on_the_way_out_is_nothing_of_the_files(root: Path) -> None:
    def fails() -> None:
        raise RuntimeError("another layer")

    with pytest.raises(RuntimeError, match="another layer"):
        await Meanwhile(get(b"/large.bin"), fails).come(root)


@live
async def test_the_request_is_not_changed_for_the_application_behind(root: Path) -> None:
    inner = Inner(b"app")
    one = layer(Static, inner, root=str(root), fallthrough=True)
    await ask(one, get(b"/none", b"range: lines=1\r\nx-a: 1\r\n"))
    assert inner.asked[0].all(b"range") == [b"lines=1"] and inner.asked[0].scope["headers"] is inner.asked[0].head


@live
async def test_within_compression(root: Path) -> None:
    (root / "page.html").write_bytes(b"<p>again and again" * 1000)
    one = layer(Compress, layer(Static, Inner(), root=str(root)))
    accept = b"accept-encoding: gzip\r\n"
    answer = await ask(one, get(b"/page.html", accept))
    assert answer[b"content-encoding"] == b"gzip" and answer[b"etag"].startswith(b"W/")
    again = await ask(one, get(b"/page.html", accept + b"if-none-match: %b\r\n" % answer[b"etag"]))
    assert (again.status, again[b"etag"]) == (304, answer[b"etag"])
    part = await ask(one, get(b"/page.html", accept + b"range: bytes=0-9\r\n"))
    assert (part.status, part.body) == (206, b"<p>again a")


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Absent, match=r"root: there is no directory .*none"):
        layer(Static, Inner(), root=str(tmp_path / "none"))
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="is not a directory") as raised:
        layer(Static, Inner(), root=str(tmp_path / "file"))
    assert not isinstance(raised.value, Absent)


def test_whether_anything_is_let_through() -> None:
    assert Static.OPTIONS.answers({"kind": "static", "root": "/"})
    assert not Static.OPTIONS.answers({"kind": "static", "root": "/", "fallthrough": True})

"""What only this gateway is configured to do: who the client is, and paths that could be read in two ways."""

from __future__ import annotations

from typing import Any

from tests.conformance.case import Answer, Case, Outcome, Reply, Seen, exchange, forwarded, get, post, refused, response

IDENTITY = "SEMANTICS 10"
ME = {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http", "x-forwarded-host": "example.com"}


def identity(name: str, *fields: bytes, listener: str = "web", **seen: Any) -> Case:
    return exchange(name, IDENTITY, get("/", *fields), forwarded(Seen(**seen)), ours=True, listener=listener)


CLIENTS = (
    identity("the client is introduced", has=ME),
    identity("a spoofed X-Forwarded-For", b"X-Forwarded-For: 1.2.3.4", has=ME),
    identity("spoofed X-Forwarded-For lines", b"X-Forwarded-For: 1.2.3.4", b"x-forwarded-for: 5.6.7.8", has=ME),
    identity("a spoofed X-Forwarded-Host and -Proto", b"X-Forwarded-Host: evil", b"X-Forwarded-Proto: https", has=ME),
    identity("other spoofed X-Forwarded fields", b"X-Forwarded-Port: 1", b"X-Forwarded-Prefix: /a",
             b"X-Forwarded-Any: b",
             has=ME, absent=("x-forwarded-port", "x-forwarded-prefix", "x-forwarded-any")),
    identity("a spoofed Forwarded", b"Forwarded: for=1.2.3.4;proto=https;host=evil", has=ME, absent=("forwarded",)),
    identity("a spoofed X-Real-IP", b"X-Real-IP: 1.2.3.4", has=ME, absent=("x-real-ip",)),
    identity("spoofed fields of CDNs", b"True-Client-IP: 1.2.3.4", b"CF-Connecting-IP: 1.2.3.4", has=ME,
             absent=("true-client-ip", "cf-connecting-ip")),
    identity("spoofed X-Original fields", b"X-Original-URL: /admin", b"X-Original-Host: evil",
             b"X-Original-For: 1.2.3.4",
             has=ME, absent=("x-original-url", "x-original-host", "x-original-for")),
    identity("a spoof with underscores", b"X_Forwarded_For: 1.2.3.4", b"X_Real_IP: 1.2.3.4", has=ME,
             absent=("x_forwarded_for", "x_real_ip")),
    identity("a spoof in capitals", b"X-FORWARDED-FOR: 1.2.3.4", b"FORWARDED: for=1.2.3.4", has=ME,
             absent=("forwarded",)),
    identity("a spoof that Connection names", b"X-Forwarded-For: 1.2.3.4", b"Connection: x-forwarded-for, forwarded",
             has=ME),
    identity("an empty X-Forwarded-For", b"X-Forwarded-For:", has=ME),
    exchange("a spoof in HTTP/1.0", IDENTITY, get("/", b"X-Forwarded-For: 1.2.3.4", version=b"HTTP/1.0"),
             Outcome(answers=(Answer(),), ends=True, requests=(Seen(has=ME),)), ours=True),
    exchange("a spoof in a trailer", IDENTITY,
             get("/", b"Transfer-Encoding: chunked",
                 method=b"POST") + b"0\r\nX-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n\r\n",
             forwarded(Seen(has=ME, no_trailers=("x-forwarded-for", "x-real-ip"), absent=("x-real-ip",))), ours=True),
    exchange("the host of absolute form is the one introduced", IDENTITY,
             b"GET http://other.example/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
             forwarded(Seen(host="other.example", has=ME | {"x-forwarded-host": "other.example"})), ours=True),
    identity("each request is introduced on its own", b"X-Forwarded-For: 9.9.9.9", has=ME),
    identity("a trusted proxy's client", b"X-Forwarded-For: 1.2.3.4", listener="trusting",
             like={"x-forwarded-for": r"1\.2\.3\.4, 127\.0\.0\.1"}),
    identity("a trusted proxy's chain", b"X-Forwarded-For: 9.9.9.9, 1.2.3.4, 10.1.2.3", listener="trusting",
             like={"x-forwarded-for": r"(9\.9\.9\.9, )?1\.2\.3\.4, 10\.1\.2\.3, 127\.0\.0\.1"}),
    identity("RFC 7239", listener="standard", like={"forwarded": r'for="?127\.0\.0\.1"?(;.*)?'},
             absent=("x-forwarded-for",)),
    identity("RFC 7239 against a spoof", b"Forwarded: for=1.2.3.4", b"X-Forwarded-For: 1.2.3.4", listener="standard",
             like={"forwarded": r'for="?127\.0\.0\.1"?(;[^,]*)?'}, absent=("x-forwarded-for",)),
)  # fmt: skip

PATHS = "path_policy = reject"
AMBIGUOUS = refused(400, reason="ambiguous_path")
NOT_CLEAR = Outcome(answers=(Answer(status=400, reason="ambiguous_path"),), requests=0)
PLAIN = (
    b"/",
    b"/a",
    b"/a/",
    b"/a.b/c~d",
    b"/a%20b",
    b"/%C3%A9",
    b"/a%25b",
    b"/.well-known/x",
    b"/...",
    b"/a..b",
    b"/a.",
    b"/a=b,c",
)
UNCLEAR = (
    b"/a%2Fb", b"/a%2fb", b"/%2e%2e/b", b"/%2E/b", b"/a/../b", b"/a/..", b"/..", b"/.", b"/a/./b", b"/a/%2e%2E/b",
    b"/.%2e/b",
    b"//", b"//a", b"/a//b", b"/a%00b", b"/a;b", b"/a/..;/b", b"/a\\b", b"/a%5cb", b"/a%5Cb", b"/%zz", b"/a%", b"/a%4",
)  # fmt: skip

POLICY = (
    *(
        exchange(f"path {path.decode('latin-1')} is plain", PATHS, get(path),
                 forwarded(Seen(line=b"GET %b HTTP/1.1" % path)), ours=True)
        for path in PLAIN
    ),
    *(exchange(f"path {path.decode('latin-1')} is unclear", PATHS, get(path), NOT_CLEAR,
    ours=True) for path in UNCLEAR),
    *(
        exchange(f"path {path.decode('latin-1')} passes where it may", "path_policy = pass", get(path),
                 forwarded(Seen(line=b"GET %b HTTP/1.1" % path)), ours=True, listener="open")
        for path in UNCLEAR
    ),
    exchange("an unclear path in absolute form", PATHS,
             b"GET http://example.com/a/../b HTTP/1.1\r\nHost: example.com\r\n\r\n",
             NOT_CLEAR, ours=True),
    exchange("an unclear path with a body", PATHS, post(b"GET /smuggled HTTP/1.1\r\n\r\n", target=b"/a//b"),
             Outcome(answers=(Answer(status=400, reason="ambiguous_path"),), requests=0, without=b"smuggled"),
                     ours=True),
    exchange("what is unclear in a query", PATHS, get("/?a=//../%2e%2F;%00\\"), forwarded(Seen()), ours=True),
)  # fmt: skip

ANSWERS = (
    exchange("an endpoint that refuses connections", "RFC 9110 15.6.3", get("/-dead/x"),
             Outcome(answers=(Answer(status=(502, 503)),), goes_on=True, requests=0)),
    exchange("an endpoint that refuses connections, told why", "ours", get("/-dead/x"),
             Outcome(answers=(Answer(status=(502, 503), reason="connection_refused|destination_unavailable"),),
                     goes_on=True, requests=0), ours=True),
    exchange("a 404 of the origin is its own", "ours", get("/none"),
             Outcome(answers=(Answer(status=404, body=b"nothing", absent=("proxy-status",)),), goes_on=True),
             replies=(Reply(response(b"Content-Length: 7", body=b"nothing", status=b"404 Not Found")),), ours=True),
    exchange("a whole answer, byte for byte", "ours", get("/"),
             Outcome(answers=(Answer(exact=b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-b: 2\r\ndate: <date>\r\n"
                                           b"content-length: 2\r\n\r\nok"),), goes_on=True),
             replies=(Reply(response(b"X-A: 1", b"x-b: 2", b"Content-Length: 2", body=b"ok")),), ours=True),
)  # fmt: skip

CASES = (*CLIENTS, *POLICY, *ANSWERS)

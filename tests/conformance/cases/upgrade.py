"""Switching protocols (RFC 9110, section 7.8; Go's ReverseProxy, item 8), and requests that only look like it."""

from __future__ import annotations

from tests.conformance.case import (
    OK,
    Again,
    Answer,
    Case,
    Ends,
    Finish,
    Got,
    Interim,
    NotReused,
    OriginEnds,
    OriginFinish,
    Outcome,
    Passes,
    PassesToOrigin,
    Receive,
    Reply,
    Say,
    Seen,
    Send,
    Step,
    exchange,
    forwarded,
    get,
    response,
    scene,
)

UPGRADE = "RFC 9110 7.8"
GO = "Go reverseproxy 8"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="


def asking(target: str = "/", *fields: bytes, token: bytes = b"websocket", connection: bytes = b"Upgrade") -> bytes:
    return get(target, b"Connection: " + connection, b"Upgrade: " + token, KEY, b"Sec-WebSocket-Version: 13", *fields)


def switch(token: bytes = b"websocket", *fields: bytes) -> bytes:
    accept = (b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",) if token.lower() == b"websocket" else ()
    return response(b"Upgrade: " + token, b"Connection: Upgrade", *accept, *fields, status=b"101 Switching Protocols")


WEBSOCKET = Seen(has={"upgrade": "websocket", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
"sec-websocket-version": "13"},
                 member={"connection": "upgrade"})  # fmt: skip
SWITCHED = Receive(Answer(status=101, like={"upgrade": "(?i)websocket"}, member={"connection": "upgrade"},
                          has={"sec-websocket-accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}))  # fmt: skip
OPEN: tuple[Step, ...] = (
    Send(asking()), Got(WEBSOCKET), Say(switch()),
         SWITCHED,
)  # fmt: skip
BYTES = bytes(range(256)) * 8


def tunnel(name: str, *steps: Step, clause: str = UPGRADE, ours: bool = False) -> Case:
    return scene(name, clause, *OPEN, *steps, ours=ours)


TUNNELS = (
    tunnel("WebSocket", clause="RFC 6455 4, RFC 9110 7.8"),
    tunnel("bytes to the origin", Send(BYTES), PassesToOrigin(BYTES)),
    tunnel("bytes to the client", Say(BYTES), Passes(BYTES)),
    tunnel("bytes both ways", Send(b"\x81\x05hello"), PassesToOrigin(b"\x81\x05hello"), Say(b"\x81\x02ok"),
           Passes(b"\x81\x02ok"),
           Send(b"more"), PassesToOrigin(b"\x81\x05hellomore")),
    tunnel("what looks like HTTP is not", Send(get("/smuggled")), PassesToOrigin(get("/smuggled")), Say(OK),
           Passes(OK)),
    tunnel("300,000 bytes each way", Send(b"ab" * 150_000), PassesToOrigin(b"ab" * 150_000), Say(b"cd" * 150_000),
           Passes(b"cd" * 150_000)),
    tunnel("the client ends it", Finish("end"), OriginEnds()),
    tunnel("the client resets it", Finish("reset"), OriginEnds()),
    tunnel("the origin ends it", OriginFinish("end"), Ends()),
    tunnel("the origin resets it", OriginFinish("reset"), Ends()),
    tunnel("the client's half ends", Send(b"last"), Finish("half"), PassesToOrigin(b"last"), OriginEnds(),
           Say(b"still here"),
           Passes(b"still here"), OriginFinish("end"), Ends(), clause=GO, ours=True),
    tunnel("the origin's half ends", Say(b"last", "half"), Passes(b"last"), Ends(), Send(b"still here"),
           PassesToOrigin(b"still here"),
           Finish("end"), clause=GO, ours=True),
    tunnel("a tunnel's connection carries nothing else", Send(b"x"), PassesToOrigin(b"x"), Finish("end"), NotReused()),
    tunnel("data and the end at once", Say(b"farewell", "end"), Passes(b"farewell"), Ends()),
    scene("bytes behind the 101", UPGRADE, Send(asking()), Got(WEBSOCKET), Say(switch() + b"\x81\x05hello"),
          Receive(Answer(status=101)), Passes(b"\x81\x05hello")),
    scene("bytes behind the request", "ours", Send(asking() + b"\x81\x05hello"), Got(WEBSOCKET), Say(switch()),
          Receive(Answer(status=101)), PassesToOrigin(b"\x81\x05hello"), ours=True),
    scene("another letter case of the token", UPGRADE, Send(asking(token=b"WebSocket")),
          Got(Seen(like={"upgrade": "(?i)websocket"})),
          Say(switch(b"WEBSOCKET")), Receive(Answer(status=101)), Send(b"x"), PassesToOrigin(b"x")),
    scene("Upgrade among other options of Connection", UPGRADE, Send(asking(connection=b"keep-alive, Upgrade")),
          Got(WEBSOCKET),
          Say(switch()), Receive(Answer(status=101)), Send(b"x"), PassesToOrigin(b"x")),
    scene("an upgrade on a used connection", UPGRADE, Send(get("/1")), Got(), Say(OK), Receive(), Send(asking()),
          Got(WEBSOCKET),
          Say(switch()), Receive(Answer(status=101)), Send(b"x"), PassesToOrigin(b"x"), Say(b"y"), Passes(b"y")),
    scene("fields of the 101", UPGRADE, Send(asking()), Got(),
          Say(switch(b"websocket", b"Sec-WebSocket-Protocol: chat", b"Sec-WebSocket-Extensions: permessage-deflate")),
          Receive(Answer(status=101, has={"sec-websocket-protocol": "chat",
                                          "sec-websocket-extensions": "permessage-deflate"}))),
    scene("hints before the 101", "RFC 9110 15.2", Send(asking()), Got(WEBSOCKET),
          Say(b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + switch()), Interim(103), Receive(Answer(status=101)),
              Send(b"x"),
          PassesToOrigin(b"x")),
    scene("another protocol where any may be spoken", "ours: upgrade = any", Send(asking("/-any-upgrade",
          token=b"foo/2")),
          Got(Seen(has={"upgrade": "foo/2"}, member={"connection": "upgrade"})), Say(switch(b"foo/2")),
          Receive(Answer(status=101, has={"upgrade": "foo/2"})), Send(b"x"), PassesToOrigin(b"x"), Say(b"y"),
                  Passes(b"y"), ours=True),
    scene("one protocol of several", UPGRADE, Send(asking("/-any-upgrade", token=b"foo/2, websocket")), Got(),
          Say(switch(b"websocket")),
          Receive(Answer(status=101)), Send(b"x"), PassesToOrigin(b"x"), ours=True),
)  # fmt: skip

MISMATCH = Outcome(answers=(Answer(status=502),), reused=False)
REFUSED = (
    exchange("101 to another protocol", "RFC 9110 7.8, Go reverseproxy 8", asking(), MISMATCH,
             ours=True, replies=(Reply(switch(b"h2c")),)),
    exchange("101 without Upgrade", GO, asking(), MISMATCH,
             ours=True, replies=(Reply(response(b"Connection: Upgrade", status=b"101 Switching Protocols")),)),
    exchange("101 to more than was asked for", UPGRADE, asking(), MISMATCH, replies=(Reply(switch(b"websocket, h2c")),
             ), ours=True),
    exchange("101 to a protocol that the route does not allow", "ours", asking(token=b"h2c"), MISMATCH,
             replies=(Reply(switch(b"h2c")),), ours=True),
    exchange("a protocol that the route does not allow is not asked for", "ours", asking(token=b"h2c"),
             forwarded(Seen(absent=("upgrade", "connection: upgrade"))), ours=True),
    exchange("of several protocols those that the route allows", "ours", asking(token=b"h2c, websocket"),
             forwarded(Seen(has={"upgrade": "websocket"})), ours=True),
    exchange("no protocol where none is allowed", "ours", asking("/-no-upgrades"), forwarded(Seen(absent=("upgrade",
             ))), ours=True),
    exchange("an upgrade answered by 200", UPGRADE, asking(), Outcome(answers=(Answer(body=b"ok", absent=("upgrade",)),
             ), goes_on=True),
             replies=(Reply(OK),)),
    exchange("an upgrade answered by 403", UPGRADE, asking(), Outcome(answers=(Answer(status=403),), goes_on=True),
             replies=(Reply(response(b"Content-Length: 0", status=b"403 x")),)),
    exchange("426 tells the protocol", "RFC 9110 15.5.22", get(),
             Outcome(answers=(Answer(status=426, has={"upgrade": "websocket"}, member={"connection": "upgrade"}),)),
                     ours=True,
             replies=(Reply(response(b"Upgrade: websocket", b"Connection: Upgrade", b"Content-Length: 0",
             status=b"426 x")),)),
    exchange("Upgrade without Connection", UPGRADE, get("/", b"Upgrade: websocket"), forwarded(Seen(absent=("upgrade",
             )))),
    exchange("101 for Upgrade without Connection", UPGRADE, get("/", b"Upgrade: websocket"), MISMATCH,
             ours=True, replies=(Reply(switch()),)),
    exchange("Connection: Upgrade without Upgrade", UPGRADE, get("/", b"Connection: Upgrade"),
             forwarded(Seen(absent=("upgrade",)))),
    exchange("the settings of h2c end here", UPGRADE, get("/", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c",
                                                          b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
             forwarded(Seen(absent=("http2-settings", "upgrade"))), ours=True),
    exchange("a request behind an upgrade that was declined", UPGRADE, asking() + get("/next"),
             Outcome(answers=(Answer(), Answer()), goes_on=True, requests=(Seen(), Seen(line=b"GET /next HTTP/1.1"))),
             Outcome(answers=(Answer(),), ends=True, requests=1)),
    *(
        exchange(f"an upgrade with a body that is {how} and looks like a request", "RFC 9112 6.3", data,
                 Outcome(answers=(Answer(),), without=b"smuggled", goes_on=True, requests=(Seen(body=get("/smuggled")),
                         )),
                 Outcome(answers=(Answer(status=range(400, 600)),), without=b"smuggled", requests=0),
                 Outcome(answers=(Answer(),), without=b"smuggled", ends=True, requests=(Seen(body=get("/smuggled")),)))
        for how, data in {
            "counted": get("/", b"Connection: Upgrade", b"Upgrade: websocket",
            b"Content-Length: %d" % len(get("/smuggled")),
                           method=b"POST") + get("/smuggled"),
            "chunked": get("/", b"Connection: Upgrade", b"Upgrade: websocket", b"Transfer-Encoding: chunked",
            method=b"POST")
            + b"%x\r\n%b\r\n0\r\n\r\n" % (len(get("/smuggled")), get("/smuggled")),
            "not allowed": get("/", b"Connection: Upgrade", b"Upgrade: h2c",
            b"Content-Length: %d" % len(get("/smuggled")),
                               method=b"POST") + get("/smuggled"),
        }.items()
    ),
    scene("an upgrade with an expectation", UPGRADE, Send(asking("/", b"Expect: 100-continue")), Got(), Say(switch()),
          Receive(Answer(status=101)), Send(b"x"), PassesToOrigin(b"x")),
    scene("an upgrade and then plain requests", UPGRADE, Send(asking()), Got(), Say(OK), Receive(Answer(body=b"ok")),
          Again()),
)  # fmt: skip

CASES = (*TUNNELS, *REFUSED)

"""Imported by every Python that starts with this folder on its path: then a gateway has one more kind of layer, which
answers what it knows of a document. So tests of documents need none of the kinds that use them."""

from __future__ import annotations

import json
import os
from typing import Any, Literal

from gateway import middleware
from gateway.config.fields import FilePath
from gateway.config.http import HttpUrl
from gateway.config.quantities import Duration
from gateway.documents import Wanted
from gateway.middleware.middleware import App, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base


class Options(Base):
    kind: Literal["document"] = "document"
    url: HttpUrl
    refresh: Duration = 300.0
    min_refresh: Duration = 30.0
    ca: FilePath | None = None

    def documents(self) -> tuple[Wanted, ...]:
        return (Wanted(self.url, self.refresh, 5.0, self.ca, "keys", self.min_refresh),)


class Document(Middleware):
    """/anew asks for another look first."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "document", url = "http://127.0.0.1:9006/keys" }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._documents = place.documents
        self._url = options.url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        looked = None
        if scope["gateway"].target == b"/anew":
            looked = await self._documents.refresh(self._url, 5.0)
        document = self._documents.get(self._url)
        facts: dict[str, Any] = {"pid": os.getpid(), "looked": looked, "trouble": self._documents.trouble(self._url)}
        if document is not None:
            facts |= {"body": document.body.decode(), "version": document.version}
        body = json.dumps(facts).encode()
        scope["gateway"].begun = True
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200 if document else 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})


middleware.MIDDLEWARE["document"] = Document
middleware.KINDS["document"] = Document.OPTIONS  # type: ignore[index]

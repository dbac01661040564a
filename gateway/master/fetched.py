"""What the observers have fetched: kept for those who come, told to those who are here.

A worker that lacks something in a document says so here too; the observer of its generation is who looks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from gateway.child import is_read, tell
from gateway.documents import Documents, close, heard, said, wanted
from gateway.master.children import Child
from gateway.master.generation import Generation
from gateway.scoreboard import Role, State


class Fetched:
    def __init__(self) -> None:
        # By child: the documents that it was not told of yet, and whether it has another body of each.
        self._owed: dict[Child, dict[str, bool]] = {}

    def begin(self, old: Generation | None, new: Generation) -> None:
        """A new generation takes over what is fetched as before. Raises StartError."""
        before = old.documents if old is not None else Documents()
        new.documents = before.kept(wanted(new.config))

    def heard(
        self,
        child: Child,
        generations: Iterable[Generation | None],
        children: Iterable[Child],
        message: dict[str, Any],
        fds: Iterable[int],
    ) -> None:
        """An observer's word. What it found for its generation holds for one that wants the same too."""
        url, look, body = heard(message, fds)
        there = [one for one in generations if one is not None]
        whose = next((one.documents for one in there if one.number == child.generation), None)
        if whose is None:
            return
        for generation in there:
            documents = generation.documents
            if not documents.is_same(url, whose):
                continue
            known = documents.get(url)
            is_new = body is not None and (known is None or known.body != body)
            # Counted here, for observers come and go.
            version = documents.look(url).version + is_new
            documents.take(url, replace(look, version=version), body if is_new else None)
            for one in children:
                if one.generation == generation.number and one.role is Role.WORKER:
                    owed = self._owed.setdefault(one, {})
                    owed[url] = owed.get(url, False) or is_new

    def asked(self, child: Child, children: Iterable[Child], message: dict[str, Any]) -> None:
        """A worker's word: it lacks something in a document."""
        for one in children:
            if one.role is Role.OBSERVER and one.generation == child.generation and one.state is State.READY:
                tell(one.channel, {"do": "refresh", "url": message["url"]})

    def owes(self, generation: Generation | None = None) -> bool:
        """Whether anybody, or a child of this generation, was not told everything yet."""
        return any(generation is None or child.generation == generation.number for child in self._owed)

    def turn(self, current: Generation | None, starting: Generation | None, children: Collection[Child]) -> None:
        """On each turn of the loop: tell who is ready to hear."""
        generations = {one.number: one for one in (current, starting) if one is not None}
        for child, owed in list(self._owed.items()):
            if child not in children or child.generation not in generations:
                del self._owed[child]
                continue
            while owed and is_read(child.channel):
                url, is_new = next(iter(owed.items()))
                if not self._tell(child, generations[child.generation].documents, url, is_new):
                    break
                del owed[url]
            if not owed:
                del self._owed[child]

    def _tell(self, child: Child, documents: Documents, url: str, is_new: bool) -> bool:
        known = documents.get(url)
        message, fds = said(url, documents.look(url), known.body if known is not None and is_new else None)
        is_told = tell(child.channel, {"do": "document", **message}, fds)
        close(fds)
        return is_told

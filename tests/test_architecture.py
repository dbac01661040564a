"""The house rules, held by a walk over the imports: which room may know which, and where foreign things come in.

A rule that is broken is told with its file and line. A new room or library needs a line in a table here, and that is
the moment to think about where it belongs.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gateway"

GROUND = {
    "config",
    "answer",
    "documents",
    "errors",
    "findings",
    "scoreboard",
    "ledger",
    "metrics",
    "log",
    "wire",
    "wheel",
    "exchange",
    "session",
    "outgoing",
    "parts",
    "peek",
    "child",
    "client_hello",
    "socks",
    "reasons",
    "refusals",
    "pages",
    "relay",
    "proxy_protocol",
    "truth",
    "tls",
    "ranges",
    "respond",
    "blame",
    "plugins",
}
# From top to bottom: what a room may import besides itself. "" is the package itself, for its version.
MAY_KNOW: dict[str, set[str]] = {
    "__main__": {"cli"},
    "cli": {"", "config", "errors", "scoreboard", "master", "worker", "observer", "demo", "proxy", "middleware"},
    "demo": {"", "config", "errors", "scoreboard", "master", "worker", "observer"},
    "testing": {"", *GROUND, "listeners", "middleware", "worker"},
    "master": {"", *GROUND},
    "worker": {"", *GROUND, "listeners", "proxy", "middleware", "upstream"},
    "observer": {"", *GROUND, "upstream"},
    "listeners": {"", *GROUND, "upstream"},
    "proxy": {"", *GROUND, "upstream"},
    "middleware": {"", *GROUND, "upstream"},
    "upstream": {"", *GROUND},
    # The ground: each thing on it stands alone, or on what is named here.
    "answer": {"reasons", "refusals"},
    "client_hello": {"errors"},
    "socks": {"errors"},
    "child": {"config", "documents", "errors", "findings", "ledger", "log", "metrics", "scoreboard"},
    "blame": set(),
    "plugins": {"reasons", "wire"},
    "findings": {"config"},
    "log": {"config", "errors", "exchange", "session"},
    "metrics": {"config", "findings", "scoreboard", "exchange", "session", "truth", "reasons"},
    "config": {"documents", "errors"},
    "documents": {"errors"},
    "errors": set(),
    "ledger": {"scoreboard"},
    "exchange": set(),
    "session": set(),
    "outgoing": set(),
    "parts": set(),
    "pages": {"errors", "refusals"},
    "peek": set(),
    "relay": {"peek", "wheel"},
    "proxy_protocol": {"errors", "ranges"},
    "truth": {"scoreboard"},
    "tls": {"errors"},
    "ranges": set(),
    "respond": {"config"},
    "reasons": set(),
    "refusals": {"reasons"},
    "scoreboard": set(),
    "wheel": set(),
    "wire": set(),
    "": set(),
}

# Rooms that are built up file by file, from the bottom: each file may import those before it and no others.
FILE_BY_FILE = {
    "wire": ("grammar", "names", "lines", "fields", "framing", "heads", "proxied", "chunked", "messages"),
}

# Where a foreign library may be imported. "*" in a pattern does not stop at folders.
DOORS: dict[str, tuple[str, ...]] = {
    "backports": ("middleware/content/codings.py",),
    "brotli": ("middleware/content/codings.py",),
    "argon2": ("middleware/identity/passwords.py",),
    "bcrypt": ("middleware/identity/passwords.py",),
    "click": ("cli.py", "demo.py"),
    "compression": ("middleware/content/codings.py",),
    "dns": ("upstream/discovery/dns.py", "upstream/nameservers.py"),
    "httptools": (),
    "httpx": ("upstream/transport.py",),
    "jwt": ("middleware/identity/keyset.py",),
    "msgspec": ("*",),  # an encoder, like json
    "psutil": ("master/status.py", "observer/admin.py"),
    "pydantic": ("config/*", "middleware/*"),
    "pydantic_core": ("config/*",),
    "redis": ("middleware/limits/redis_store.py",),
    "setproctitle": ("child.py", "master/reload.py"),
    "starlette": ("worker/assembly.py", "observer/admin.py", "middleware/static.py"),
    "uvicorn": ("listeners/http.py", "observer/observer.py"),
    "uvloop": ("worker/worker.py", "observer/observer.py"),
}

# Parts of the standard library that not everybody may use: for each, who may not.
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "threading": ("*",),  # the master forks, and a worker is one event loop
    "concurrent": ("*",),
    "multiprocessing": ("*",),
    "subprocess": ("listeners/*", "proxy/*", "upstream/*", "worker/*", "observer/*", "metrics/*", "config/*"),
    "asyncio": ("master/*", "config/*", "metrics/*", "cli.py", "child.py", "log.py", "scoreboard.py", "ledger.py"),
    "ssl": ("master/*",),
}

# Clock and chance are arguments here, and nothing waits: what these decide depends only on what they are given.
PURE = (
    "client_hello.py",
    "socks.py",
    "config/lint.py",
    "errors.py",
    "exchange.py",
    "listeners/identity.py",
    "listeners/verdict.py",
    "metrics/plan.py",
    "metrics/text.py",
    "middleware/limits/charges.py",
    "middleware/limits/keys.py",
    "middleware/identity/challenge.py",
    "middleware/identity/claims.py",
    "middleware/identity/credential.py",
    "middleware/identity/htpasswd.py",
    "middleware/identity/jose.py",
    "middleware/identity/keyset.py",
    "middleware/identity/passwords.py",
    "middleware/identity/recent.py",
    "middleware/identity/told.py",
    "middleware/template.py",
    "middleware/written.py",
    "middleware/content/codings.py",
    "middleware/content/lists.py",
    "middleware/content/location.py",
    "parts.py",
    "proxy/hash_key.py",
    "proxy/headers.py",
    "proxy/explain.py",
    "proxy/explained.py",
    "proxy/onward.py",
    "proxy/paths.py",
    "proxy/quantile.py",
    "proxy/retry.py",
    "proxy/rewrite.py",
    "proxy/routes.py",
    "proxy/split.py",
    "proxy_protocol.py",
    "ranges.py",
    "reasons.py",
    "refusals.py",
    "upstream/balancers/*",
    "upstream/health.py",
    "upstream/latency.py",
    "upstream/lifetime.py",
    "upstream/ratio.py",
    "upstream/sticky.py",
    "wheel.py",
    "wire/*",
)
IMPURE = {"asyncio", "socket", "time", "random", "os", "select", "selectors", "secrets", "uuid", "datetime", "signal"}


@dataclass(frozen=True, slots=True)
class Import:
    file: str  # below gateway/
    line: int
    module: str

    @property
    def room(self) -> str:
        return _room(self.file.removesuffix(".py").replace("/", ".").removesuffix("__init__").rstrip("."))

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"gateway/{self.file}:{self.line} imports {self.module}"


def _room(dotted: str) -> str:
    return dotted.partition(".")[0]


def _is_for_types_only(node: ast.If) -> bool:
    test = node.test
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"


def _nodes(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import, also those inside functions; not those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and _is_for_types_only(node):
            yield from _nodes(ast.Module(node.orelse, []))
        else:
            yield from _nodes(node)


def imports_of(file: str, text: str) -> Iterator[Import]:
    for node in _nodes(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
            continue
        assert not node.level, f"gateway/{file}:{node.lineno} imports by dots, which hides the room"
        module = node.module or ""
        for alias in node.names:
            # "from gateway import errors" speaks of a module, "from gateway.errors import StartError" of a name.
            whole = f"{module}.{alias.name}"
            path = ROOT / whole.replace(".", "/")
            is_module = path.is_dir() or path.with_suffix(".py").is_file()
            yield Import(file, node.lineno, whole if is_module else module)


FILES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
IMPORTS = [one for file, text in FILES.items() for one in imports_of(file, text)]


def _told(broken: list[Import]) -> str:
    return "\n".join(map(str, broken))


def test_every_room_is_on_the_plan() -> None:
    rooms = {_room(file.removesuffix(".py").replace("/", ".")) for file in FILES} - {"__init__"}
    assert rooms <= MAY_KNOW.keys(), rooms - MAY_KNOW.keys()


@pytest.mark.parametrize("room", [room or "gateway" for room in MAY_KNOW])
def test_a_room_knows_only_what_lies_below_it(room: str) -> None:
    room = "" if room == "gateway" else room
    broken = []
    for one in IMPORTS:
        if one.room == room and one.top == "gateway":
            known = _room(one.module.removeprefix("gateway").lstrip("."))
            if known != room and known not in MAY_KNOW[room]:
                broken.append(one)
    assert not broken, _told(broken)


def test_the_plan_has_no_circle() -> None:
    seen: set[str] = set()

    def walk(room: str, path: tuple[str, ...]) -> None:
        assert room not in path, " -> ".join((*path, room))
        if room not in seen:
            for below in MAY_KNOW[room]:
                walk(below, (*path, room))
            seen.add(room)

    for room in MAY_KNOW:
        walk(room, ())


def test_the_master_never_imports_what_carries_traffic() -> None:
    carriers = ("worker", "observer", "listeners", "proxy", "middleware", "upstream")
    broken = [
        one
        for one in IMPORTS
        if one.room == "master" and one.module.startswith("gateway.")
        if _room(one.module.removeprefix("gateway.")) in carriers
    ]
    assert not broken, _told(broken)


@pytest.mark.parametrize("library", DOORS)
def test_a_foreign_library_comes_in_by_its_door(library: str) -> None:
    broken = [
        one
        for one in IMPORTS
        if one.top == library and not any(fnmatch(one.file, pattern) for pattern in DOORS[library])
    ]
    assert not broken, _told(broken)


def test_every_foreign_library_has_a_door() -> None:
    foreign = {one.top for one in IMPORTS} - set(sys.stdlib_module_names) - {"gateway", "__future__"}
    assert foreign <= DOORS.keys(), foreign - DOORS.keys()


@pytest.mark.parametrize("room", FILE_BY_FILE)
def test_a_file_knows_only_those_before_it(room: str) -> None:
    order = [f"{room}/{name}.py" for name in FILE_BY_FILE[room]]
    assert {file for file in FILES if file.startswith(f"{room}/")} == {*order, f"{room}/__init__.py"}
    broken = []
    for at, file in enumerate(order):
        for one in IMPORTS:
            known = one.module.removeprefix("gateway.").replace(".", "/")
            if one.file == file and (known == room or known.startswith(f"{room}/")) and f"{known}.py" not in order[:at]:
                broken.append(one)
    assert not broken, _told(broken)


@pytest.mark.parametrize("module", FORBIDDEN)
def test_what_not_everybody_may_use(module: str) -> None:
    broken = [
        one for one in IMPORTS if one.top == module and any(fnmatch(one.file, pattern) for pattern in FORBIDDEN[module])
    ]
    assert not broken, _told(broken)


@pytest.mark.parametrize("pattern", PURE)
def test_pure_files_are_pure(pattern: str) -> None:
    files = [file for file in FILES if fnmatch(file, pattern)]
    assert files, f"there is no gateway/{pattern} any more"
    broken = [one for one in IMPORTS if one.file in files and one.top in IMPURE]
    assert not broken, _told(broken)
    for file in files:
        names = {node.name for node in ast.walk(ast.parse(FILES[file])) if isinstance(node, ast.AsyncFunctionDef)}
        assert not names, f"gateway/{file} waits: {names}"


@pytest.mark.parametrize("file", FILES)
def test_every_file_says_what_it_is_for(file: str) -> None:
    assert ast.get_docstring(ast.parse(FILES[file])), f"gateway/{file} has no docstring"


def test_the_walk_sees_what_it_must() -> None:
    """The walk itself, on a file that breaks everything."""
    text = """
from typing import TYPE_CHECKING
import asyncio, uvicorn.config
from gateway import errors, __version__
from gateway.master.master import Master
def late():
    from gateway.worker import worker
if TYPE_CHECKING:
    from gateway.listeners import http
else:
    import threading
try:
    import httpx
except ImportError:
    pass
"""
    found = {one.module for one in imports_of("proxy/x.py", text)}
    assert found == {
        "typing",
        "asyncio",
        "uvicorn.config",
        "gateway.errors",
        "gateway",
        "gateway.master.master",
        "gateway.worker.worker",
        "threading",
        "httpx",
    }
    assert {one.room for one in imports_of("proxy/x.py", text)} == {"proxy"}
    assert {one.room for one in imports_of("cli.py", text)} == {"cli"}
    assert {one.room for one in imports_of("__init__.py", text)} == {""}

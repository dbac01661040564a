"""The command: ``python -m tests.fuzz TARGET``, with a fuzzer behind it or on single inputs."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.mutations import WORDS, mutated

# What the targets import is imported where atheris may be looking on (`looked_on`), and not before.
if TYPE_CHECKING:
    from tests.fuzz.loop import Loop
    from tests.fuzz.targets import Target

NAMES = ("server", "proxy", "forward", "response", "chunks", "tokens", "hello", "socks", "preface")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("files", nargs="*", type=Path, help="inputs to try, instead of fuzzing")
    parser.add_argument("--seconds", type=int, default=60, help="how long to fuzz")
    parser.add_argument("--shrink", action="store_true", help="make each input smaller as long as it fails")
    parser.add_argument("--mutations", type=int, default=0, help="try this many mutations of the seeds without atheris")
    parser.add_argument("--work", type=Path, default=Path(".fuzz"), help="where what is found is kept")
    chosen = parser.parse_intermixed_args()
    if not (chosen.files or chosen.mutations):
        fuzz(chosen.target, chosen.seconds, chosen.work / chosen.target)
    else:
        from tests.fuzz.loop import running
        from tests.fuzz.targets import TARGETS

        target = TARGETS[chosen.target]
        with running() as loop:
            inputs = [path.read_bytes() for path in chosen.files]
            failed = [_try(loop, target, data, chosen.shrink) for data in inputs]
            failed += [_try(loop, target, data, chosen.shrink) for data in mutated(target.seeds, chosen.mutations)]
        sys.exit(1 if any(failed) else 0)


def _try(loop: Loop, target: Target, data: bytes, shrink: bool) -> bool:
    """Whether an input fails; says how."""
    failure = _failure(loop, target, data)
    if failure is None:
        return False
    if shrink:
        data = shrunk(loop, target, data, failure[0])
        failure = _failure(loop, target, data) or failure
    print(f"{data!r}\n{failure[1][-1500:]}")
    return True


def _failure(loop: Loop, target: Target, data: bytes) -> tuple[str, str] | None:
    """What an input does wrong: in short, and all of it."""
    try:
        target.run(loop, data)
    except Exception as error:
        loop.forget()
        return f"{type(error).__name__} {str(error)[:25]}", traceback.format_exc()
    return None


def shrunk(loop: Loop, target: Target, data: bytes, failure: str) -> bytes:
    """The input without whatever it fails just as well without."""
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            less = data[:at] + data[at + size :]
            found = _failure(loop, target, less)
            if found is not None and found[0] == failure:
                data = less
            else:
                at += size
        size //= 2
    return data


def fuzz(name: str, seconds: int, work: Path) -> None:
    """Let atheris look for inputs that fail. What it learns goes to work/corpus, what fails to work/found-*."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install -e '.[fuzz]'")
    with atheris.instrument_imports(include=["gateway"]), contextlib.redirect_stderr(io.StringIO()):
        from tests.fuzz.loop import running
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    corpus = work / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    words = work / "words"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in WORDS))
    with running() as loop:

        def one(data: bytes) -> None:
            target.run(loop, data)

        atheris.Setup(
            [
                sys.argv[0],
                f"-max_total_time={seconds}",
                f"-artifact_prefix={work}/found-",
                f"-dict={words}",
                "-max_len=4096",
                "-timeout=20",
                "-rss_limit_mb=1024",
                str(corpus),
            ],
            one,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()

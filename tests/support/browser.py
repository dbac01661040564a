"""A real browser without a window, for one page."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def looking_at(url: str, folder: Path, *flags: str) -> Iterator[Path]:
    """While it is entered a browser looks at the page; it keeps its things in the folder. Gives its log."""
    browser = next(filter(None, map(shutil.which, _NAMES)), None)
    assert browser is not None, f"none of {', '.join(_NAMES)} is installed"
    command = [
        browser,
        "--headless",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--no-proxy-server",
        "--remote-debugging-port=0",  # it stays until it is ended
        f"--user-data-dir={folder / 'profile'}",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        *flags,
        url,
    ]
    told = folder / "browser.log"
    with told.open("wb") as log:
        # What is found by name may be a script that starts the browser and waits for it: both have to be ended.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        yield told
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # who is slower than the script

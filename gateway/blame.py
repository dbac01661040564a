"""An exception in one line for people: its type, its text, and the line of a plug-in where it happened."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

_OURS = str(Path(__file__).parent)
_LIBRARIES = tuple({sysconfig.get_paths()[one] for one in ("stdlib", "platstdlib", "purelib", "platlib")})
_LONGEST = 500  # characters of an exception's own text


def told(error: BaseException) -> str:
    """'KeyError: 'tenant' (/etc/gateway/plugins/my_hooks.py:12)'. Of the lines that led there the last one that is
    neither the gateway's nor a library's: that is the one a person can change."""
    text = " ".join(str(error).split()) if not isinstance(error, SyntaxError) else error.msg
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + "..."
    line = type(error).__name__ + (f": {text}" if text else "")
    where = _where(error)
    return f"{line} ({where})" if where else line


def _where(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{error.filename}:{error.lineno}"
    best = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if file.startswith((_OURS, "<frozen ")):
            continue
        if not file.startswith(_LIBRARIES) or not best:
            best = f"{file}:{number}"
    return best

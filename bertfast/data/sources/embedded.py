"""The default corpus: English prose that comes with every CPython, the topics of its reference and its docstrings.

Nothing is bundled or downloaded: the text is read from the source files of the standard library.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from bertfast.errors import InputError

# Packages with few docstrings, or with docstrings that are themselves examples.
_LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "encodings", "site-packages", "dist-packages"}


def library_files() -> list[Path]:
    """The standard library's source files, in a fixed order."""
    files = []
    for place, folders, names in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.startswith(("_", ".", "config-"))]
        files += [Path(place, name) for name in names if name.endswith(".py")]
    if not files:
        raise InputError("this Python comes without its library's source, which is the default text: give --corpus")
    return sorted(files)

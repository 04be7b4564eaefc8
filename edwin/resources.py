"""Where the files shipped beside the code are: schemas and default configuration.

Installed, they are the packages ``edwin.schemas`` and ``edwin.conf``; in a checkout
they are the folders ``schemas`` and ``conf`` next to ``edwin``.
"""

from __future__ import annotations

import importlib.resources
from importlib.resources.abc import Traversable
from pathlib import Path


def folder(name: str) -> Traversable:
    """Return the shipped folder *name*, ``schemas`` or ``conf``."""
    try:
        return importlib.resources.files(f"edwin.{name}")
    except ModuleNotFoundError:
        return Path(__file__).resolve().parent.parent / name


def read(name: str, path: str) -> bytes:
    """Return the bytes of file *path* (``openai/error.json``) in folder *name*.

    Raises:
        FileNotFoundError: If there is no such file.

    """
    return folder(name).joinpath(path).read_bytes()

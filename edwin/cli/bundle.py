"""What a backup is made of: one tar file, with its list of contents in front.

The database, and the secrets without which the sessions in it could not be found again
and clients would not be let in.  Called by the commands ``backup`` and ``restore``.
"""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from edwin import __version__
from edwin.errors import StateError
from edwin.state import SESSION_SECRET, TOKEN

FORMAT = 1
DATABASE = "edwin.db"
CONTENTS = (DATABASE, SESSION_SECRET, TOKEN)

_MANIFEST = "manifest.json"
_PIECE_BYTES = 1024 * 1024


class Manifest(NamedTuple):
    """What a backup says of itself.

    Attributes:
        version: Of the Edwin that made it.
        created_at: When, in unix seconds.
        revision: Of the database's tables.
        digests: What is in it, each with the hex SHA-256 of its content.

    """

    version: str
    created_at: float
    revision: str
    digests: Mapping[str, str]


@contextmanager
def drafts(target: Path) -> Iterator[Path]:
    """Give a private folder beside *target*, that is gone afterwards.

    Raises:
        StateError: If there can be none.

    """
    try:
        folder = tempfile.TemporaryDirectory(
            dir=target.absolute().parent, prefix=f".{target.name}."
        )
    except OSError as error:
        raise _unwritable(target, error) from error
    with folder as name:
        yield Path(name)


def pack(folder: Path, target: Path) -> Manifest:
    """Make *target*, mode 0600, of what of :data:`CONTENTS` is in *folder*.

    Args:
        folder: One of :func:`drafts`, with the database in it.
        target: Comes into its place whole.

    Raises:
        StateError: If *target* cannot be written, or the database not be read.

    """
    paths = [folder / name for name in CONTENTS if (folder / name).exists()]
    draft = folder / "draft.tar"
    try:
        manifest = Manifest(
            __version__,
            time.time(),
            _revision(folder / DATABASE),
            {path.name: _digest(path) for path in paths},
        )
        head = orjson.dumps({"format": FORMAT, **manifest._asdict()})
        with _private(draft) as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                _add(tar, _MANIFEST, io.BytesIO(head), len(head), manifest.created_at)
                for path in paths:
                    with path.open("rb") as content:
                        size = path.stat().st_size
                        _add(tar, path.name, content, size, manifest.created_at)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except (OSError, sqlite3.Error) as error:
        raise _unwritable(target, error) from error
    return manifest


def unpack(source: Path, folder: Path) -> Manifest:
    """Put what the backup *source* holds into *folder*, each with mode 0600.

    All of it is read and found to be right before the first file comes into its place.

    Raises:
        StateError: If *source* is no backup, is damaged or of a later format, or if
            *folder* cannot be written.

    """
    try:
        with tarfile.open(source, "r:") as tar, drafts(folder / DATABASE) as place:
            manifest = _manifest(tar)
            for name, digest in manifest.digests.items():
                with _private(place / name) as file:
                    if _copy(_opened(tar, name), file) != digest:
                        raise StateError(
                            f"{source} is damaged: {name} is not as it was"
                        )
                    file.flush()
                    os.fsync(file.fileno())
            # The database last: without it there is nothing to start with.
            for name in sorted(manifest.digests, key=lambda name: name == DATABASE):
                (place / name).replace(folder / name)
    except (tarfile.TarError, KeyError, TypeError, ValueError, EOFError) as error:
        raise StateError(f"{source} is no backup of Edwin, or damaged") from error
    except OSError as error:
        raise StateError(f"{source} cannot be restored: {error}") from error
    return manifest


def _manifest(tar: tarfile.TarFile) -> Manifest:
    said: dict[str, Any] = orjson.loads(_opened(tar, _MANIFEST).read())
    if said["format"] != FORMAT:
        raise StateError("a later Edwin made this backup: restore it with that one")
    manifest = Manifest(*(said[name] for name in Manifest._fields))
    if DATABASE not in manifest.digests or not set(CONTENTS) >= set(manifest.digests):
        raise KeyError(DATABASE)
    return manifest


def _opened(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file


def _add(
    tar: tarfile.TarFile, name: str, content: IO[bytes], size: int, at: float
) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o600, int(at)
    tar.addfile(entry, content)


def _private(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy what is left of *source*, and return its digest."""
    found = hashlib.sha256()
    while piece := source.read(_PIECE_BYTES):
        found.update(piece)
        target.write(piece)
    return found.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _revision(database: Path) -> str:
    with closing(sqlite3.connect(database)) as connection:
        (found,) = connection.execute("SELECT version_num FROM alembic_version")
        return str(found[0])


def _unwritable(target: Path, error: Exception) -> StateError:
    reason = getattr(error, "strerror", None) or error
    return StateError(f"{target} cannot be written: {reason}")

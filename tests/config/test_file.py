"""Reading YAML: what is text, what is refused, and where the fault is said to be."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edwin.config.file import parse
from edwin.config.tree import find, plain
from edwin.errors import ConfigError

SNIPPET = (
    "{ gateway: { http: { endpoints: { chatCompletions: { enabled: true }, }, }, }, }"
)
ENABLED = {"gateway": {"http": {"endpoints": {"chatCompletions": {"enabled": True}}}}}


def read(text: str | bytes) -> object:
    content = text.encode() if isinstance(text, str) else text
    return plain(parse(content, "edwin.yaml", 1))


def refused(text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return caught.value.message


@pytest.mark.parametrize("switch", ["true", "false"])
@pytest.mark.parametrize("blank", ["", "  ", "\t", " \t "])
def test_config_reads_the_documented_snippet(switch, blank):
    """The documented snippet loads as it stands, indented, and with tabs."""
    enabled = {"enabled": switch == "true"}
    expected = {"gateway": {"http": {"endpoints": {"chatCompletions": enabled}}}}
    snippet = SNIPPET.replace("true", switch)
    assert read(snippet) == expected
    lines = snippet.replace("{ ", "{\n").replace("}, ", "},\n").split("\n")
    spread = "\n".join(blank * min(i, 4) + line for i, line in enumerate(lines))
    assert spread.count("\n") > 8
    assert read(spread) == expected
    assert read(spread.replace("\n", "\r\n")) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-12", -12),
        ("18789", 18789),
        ("0.5", 0.5),
        ("-1.25e3", -1250.0),
        ("1e6", 1e6),
        ("0123", "0123"),
        ("+1", "+1"),
        (".5", ".5"),
        ("1.", "1."),
        ("off", "off"),
        ("on", "on"),
        ("yes", "yes"),
        ("no", "no"),
        ("True", "True"),
        ("NULL", "NULL"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("0o17", "0o17"),
        ("1:30", "1:30"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1e999", "1e999"),
        ("9" * 5000, "9" * 5000),
        ("'1'", "1"),
        ('"true"', "true"),
        ("'null'", "null"),
        ("!!str 1", "1"),
        ("! true", "true"),
        ("|\n  1", "1"),
    ],
)
def test_config_resolves_words_and_numbers_only(text, value):
    """Bools are true and false, numbers are JSON's; all else is text."""
    found = read(f"key: {text}")["key"]
    assert (found, type(found)) == (value, type(value))


def test_config_keys_are_text():
    """A key is the text that stands there, whatever a value of that form would be."""
    assert read("50256: 1\ntrue: 2\n~: 3\nnull: 4") == {
        "50256": 1,
        "true": 2,
        "~": 3,
        "null": 4,
    }


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "~", "\ufeff"])
def test_config_reads_an_empty_file_as_an_empty_map(text):
    """A file without keys says nothing."""
    assert read(text) == {}


@pytest.mark.parametrize(
    ("text", "line", "path"),
    [
        ("{ gateway: {\n enabled:true } }", 2, "gateway.enabled"),
        ("{ a: { enabled:true, b: 1 } }", 1, "a.enabled"),
        ('{ a: { b:"x" } }', 1, "a.b"),
        ("{ gateway:{ port: 1 } }", 1, ""),
        ("a: 1\nb: {c:[1]}", 2, "b"),
        ("{ a: 1\n b: 2 }", 2, ""),
        ("{ a: 1,\n // on\n b: 2 }", 2, ""),
        ("{ // on\n a: 1 }", 1, ""),
        ("{ a: 1, // on\n}", 1, ""),
        ("{ a: true // on\n}", 1, "a"),
        ("{ a: true /* on */ }", 1, "a"),
        ("{ a: 1 } // on", 1, ""),
        ("[ 1, // one\n 2 ]", 1, "[1]"),
    ],
)
def test_config_advises_inside_braces(text, line, path):
    """A parse error inside braces says what JSON's writers get wrong."""
    message = refused(text)
    where = f"edwin.yaml:{line}: " + (f"{path}: " if path else "")
    assert message.startswith(where)
    assert bool(path) == (message.removeprefix("edwin.yaml:").count(": ") > 1)
    assert "comments start with '#'" in message
    assert "//" in text or "/*" in text or "a blank belongs after ':'" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n\tb: 1", "edwin.yaml:2: a: found character that cannot start any token;"
         " indent with blanks; tabs may indent only inside braces"),
        ("a: 1\na: 2\nb: 3\nb: 4", "edwin.yaml:2: a: stands in line 1 already;"
         " keep one of them\nedwin.yaml:4: b: stands in line 3 already;"
         " keep one of them"),
        ("{ a: { b: 1, b: 2 } }", "edwin.yaml:1: a.b: stands in line 1 already;"
         " keep one of them"),
        ("a:\n  <<: {b: 1}", "edwin.yaml:2: a.'<<': merge keys are not supported;"
         " write the keys out"),
        ("a: 1\nb: !x 2", "edwin.yaml:2: b: has a tag;"
         " quote a value that begins with '!'"),
        ("a: !!int '2'", "edwin.yaml:1: a: has a tag;"
         " quote a value that begins with '!'"),
        ("a: *b", "edwin.yaml:1: a: names no earlier anchor;"
         " quote a value that begins with '*'"),
        ("a: &a [*a]", "edwin.yaml:1: a[0]: names no earlier anchor;"
         " quote a value that begins with '*'"),
        ("? [a]\n: 1", "edwin.yaml:1: a key must be text; write key: value"),
        ("a: 1\n---\nb: 2", "edwin.yaml:2: a second document begins; keep one"),
        ("- a", "edwin.yaml:1: holds no keys with values; a blank belongs after ':',"
         " and comments start with '#'"),
        ("enabled:true", "edwin.yaml:1: holds no keys with values;"
         " a blank belongs after ':', and comments start with '#'"),
        ("c: d\na:b\n", "edwin.yaml:2: could not find expected ':';"
         " a blank belongs after ':', and comments start with '#'"),
        ("a: b: c", "edwin.yaml:1: mapping values are not allowed in this context;"
         " quote values that begin with a sign or hold ': '"),
        ("a: 'x\n\n", "edwin.yaml:1: a: found unexpected end of stream;"
         " quote values that begin with a sign or hold ': '"),
        ("a: @b", "edwin.yaml:1: a: found character that cannot start any token;"
         " quote values that begin with a sign or hold ': '"),
        ("a: 1\nb: \x07", "edwin.yaml:2: holds a control character; remove it"),
        (b"a: 1\nb: \xff", "edwin.yaml:2: is not UTF-8; save it as UTF-8"),
        (b"#" * (1 << 20) + b"#", "edwin.yaml: is larger than 1 MiB; shorten it"),
    ],
)  # fmt: skip
def test_config_refuses_with_line_and_advice(text, message):
    """What cannot be read is named with its line, its key, and what would be right."""
    assert refused(text) == message


@pytest.mark.parametrize(
    "text",
    [
        "{ auth: { token:hunter2secret } }",
        "{ auth: { token:hunter2secret, x: 1 }",
        "auth:\n  mode: token\n  token:hunter2secret\n",
        "auth: {token: *hunter2secret}",
        "auth: {token: !hunter2secret }",
        "token:hunter2secret",
    ],
)
def test_config_parse_errors_repeat_no_value(text):
    """A secret that was mistyped does not end up in a log."""
    assert "hunter2" not in refused(text)


LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 20)]
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        "a: " + "[" * 5000,
        "a: " + "{a: " * 900,
        "a: " + "[" * 40 + "]" * 40,
        "- " * 900,
        "a: [" + "x," * 30000 + "]",
    ],
    ids=["laughs", "brackets", "braces", "deep", "dashes", "wide"],
)
def test_config_reading_is_bounded(text):
    """No file makes the reader work without end."""
    message = refused(text)
    assert "too many values" in message or "maximum nesting depth" in message


def test_config_aliases_stand_for_their_anchor():
    """An alias is the anchored value, at the line of its own key."""
    tree = parse(b"a: &x {b: 1}\nc: *x\nd: *x", "edwin.yaml", 1)
    assert plain(tree) == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1}}
    node = find(tree, ("d",))
    assert node is not None
    assert node.place.line == 3


def test_config_places_are_those_of_the_keys():
    """A fault in a map is said to be where the map's key stands."""
    tree = parse(b"a:\n  b:\n    - c\n    -\n      d: 1", "edwin.yaml", 1)
    paths = [("a",), ("a", "b"), ("a", "b", 0), ("a", "b", 1, "d")]
    nodes = [find(tree, path) for path in paths]
    assert [node and node.place.line for node in nodes] == [1, 2, 3, 5]


def test_config_needs_the_c_parser():
    """Without PyYAML's C parser the error says what to install."""
    program = (
        "import sys; sys.modules['yaml._yaml'] = None\n"
        "from edwin.config.file import parse\n"
        "from edwin.errors import ConfigError\n"
        "try: parse(b'a: 1', 'edwin.yaml', 1)\n"
        "except ConfigError as error: print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        "edwin.yaml: cannot be read, because PyYAML has no C parser here;"
        " install a PyYAML that was built with libyaml\n"
    )


PIECES = st.sampled_from(
    [*"{}[]:,#&*!|>'\"%@`-?~ \n\t", ": ", "- ", "a", "gateway", "port", "1", "&a ",
     "*a", "<<", "---\n", "...", "//", "${", "$${", "}", "é", "\u2028", "\x07", "\r"]
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=60))
def test_config_any_text_is_read_or_refused(text):
    """No text raises anything but ConfigError, and every refusal names the file."""
    try:
        value = read(text.encode("utf-8", "surrogatepass"))
    except ConfigError as error:
        lines = error.message.split("\n")
        assert all(line.startswith("edwin.yaml:") for line in lines)
    else:
        assert isinstance(value, dict)

"""Messages as they are stored."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edwin.errors import InternalError
from edwin.store.bodies import digests, pack, unpack

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner),
    max_leaves=6,
)
DATA = TEXT.map("data:{}".format) | JSON
PART = JSON | st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.just("image_url"),
            "image_url": JSON | st.fixed_dictionaries({"url": DATA, "detail": JSON}),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("file"),
            "file": JSON | st.fixed_dictionaries({"file_data": DATA}),
        }
    ),
)


@settings(max_examples=150, deadline=None, database=None)
@given(content=JSON | st.lists(PART, max_size=4), extra=JSON)
def test_store_unpacks_what_it_packed(content, extra):
    """Whatever JSON a message is made of, it comes back equal."""
    message = {"role": "user", "content": content, "extra": extra}
    before = orjson.dumps(message)
    packed = pack(message)
    assert orjson.dumps(message) == before
    assert digests([packed.refs, None]) == set(packed.blobs)
    assert orjson.dumps(unpack(packed.body, packed.refs, packed.blobs)) == before


def test_store_takes_only_data_out():
    """An image given by an address stays in the message; one given as data does not."""

    def image(url):
        part = {"type": "image_url", "image_url": {"url": url}}
        return pack({"role": "user", "content": [part]})

    assert image("https://example.org/a.png").blobs == {}
    assert list(image("data:image/png;base64,AAAA").blobs.values()) == [
        b"data:image/png;base64,AAAA"
    ]


@pytest.mark.parametrize(
    "content",
    [
        "\ud800",
        1 << 64,
        {1: 2},
        [{"type": "image_url", "image_url": {"url": "data:\ud800"}}],
        [{"type": ["image_url"]}],
    ],
)
def test_store_refuses_what_cannot_be_kept(content):
    """A message that is no JSON is Edwin's own fault, and is reported as such."""
    with pytest.raises(InternalError):
        pack({"role": "user", "content": content})

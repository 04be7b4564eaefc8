"""What counts as structured output, and what is said of what does not."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from edwin.errors import InvalidRequest
from edwin.executor.structured import MAX_SCHEMA_BYTES, Form, wanted
from edwin.types import TurnFinished

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}


def asked(schema, **rest):
    """Return what a request with this *schema* wants."""
    inner = {"name": "place", "schema": schema} | rest
    form = wanted({"response_format": {"type": "json_schema", "json_schema": inner}})
    assert form is not None
    return form


def refused(schema):
    """Return the error that a request with this *schema* gets."""
    with pytest.raises(InvalidRequest) as caught:
        asked(schema)
    error = caught.value
    assert (error.status, error.code) == (400, "invalid_value")
    assert error.param == "response_format.json_schema.schema"
    return error.message


@pytest.mark.parametrize(
    "params",
    [{}, {"response_format": None}, {"response_format": {"type": "text"}}],
)
def test_structured_is_not_wanted(params):
    """Without a response_format, or with text, any answer will do."""
    assert wanted(params) is None


def test_structured_form_is_what_the_request_says():
    """Name, description, strictness and schema are the request's."""
    form = asked(CITY, description="A place.", strict=True)
    assert (form.name, form.description, form.strict) == ("place", "A place.", True)
    assert form.schema == CITY
    assert asked(CITY) == Form(CITY, "place")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"city":"Graz"}', None),
        (' \r\n\t{"city" : "Graz", "people": 300000}\n', None),
        ('{"city":"Graz","people":3.0}', None),
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("{city}", "it is not JSON: unexpected character, expected a string key, "
                   "line 1, column 2"),
        ('{"city":\n"Graz"', "it is not JSON: unexpected end of data, line 2, "
                             "column 7"),
        ('Sure: {"city":"Graz"}', "it is not JSON: unexpected character, expected a "
                                  "JSON value, line 1, column 1"),
        ('{"city":"Graz"}.', "it is not JSON: unexpected content after document, "
                             "line 1, column 16"),
        ('```json\n{"city":"Graz"}\n```', "it is not JSON: it stands in a code fence: "
         "unexpected character, expected a JSON value, line 1, column 1"),
        ('\ufeff{"city":"Graz"}', "it is not JSON: UTF-8 byte order mark (BOM) is not "
                                  "supported, line 1, column 1"),
        ('{"city":NaN}', "it is not JSON: unexpected character, expected a JSON value, "
                         "line 1, column 9"),
        ('{"people":"x","ü":1,"city":2}', 'people: "x" is not of type "integer"; '
         '["\\u00fc"]: may not be there; city: 2 is not of type "string"'),
        ("null", 'null is not of type "object"'),
        ("[" * 129 + "]" * 129, "it has more than 128 levels of nesting"),
    ],
)  # fmt: skip
def test_structured_fault(text, fault):
    """A text is a document by the schema, as it stands, or it is said why not."""
    assert asked(CITY).fault(text) == fault


def test_structured_tells_three_faults():
    """However much is wrong, three faults are told."""
    fault = asked({"items": {"type": "string"}}).fault(json.dumps(list(range(5000))))
    assert fault == "; ".join(f'[{n}]: {n} is not of type "string"' for n in range(3))


def test_structured_json_object():
    """json_object wants an object, whatever is in it."""
    form = wanted({"response_format": {"type": "json_object"}})
    assert form.fault('{"a": [1]}') is None
    assert form.fault("[]") == "it is not a JSON object"
    assert form.fault("a") is not None
    assert form.fault("```\n{}\n```") is not None
    assert "JSON object" in form.instructions


@pytest.mark.parametrize("inner", [{"name": "n"}, {"name": "n", "schema": None}, {}])
def test_structured_without_a_schema(inner):
    """A form without a schema wants any JSON."""
    form = wanted({"response_format": {"type": "json_schema", "json_schema": inner}})
    assert [form.fault(text) for text in ("{}", "3", '"a"')] == [None] * 3
    assert form.fault("a") is not None


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "strin"}, '"strin"'),
        ({"properties": {"a": {"pattern": "("}}}, '"(" is not a "regex"'),
        ({"items": [{"type": "string"}]}, "items"),
        ({"$ref": "https://elsewhere.example/x"}, "of 'https://elsewhere.example/x'"),
        ({"$ref": "#/$defs/none"}, "there is no such part"),
        ({"$ref": "#here", "$anchor": "here"}, "it does not begin with '#/'"),
        ({"$defs": {"a": {"$ref": "https://elsewhere.example/x"}}}, "another document"),
        ({"$dynamicRef": "#a"}, "'$dynamicRef' is not supported"),
        ({"properties": {"a": {"$id": "b"}}}, "'$id' is not supported"),
        ({"enum": ["x" * MAX_SCHEMA_BYTES]}, "more than 262144"),
        ({"properties": {str(n): {"pattern": f"a{n}"} for n in range(65)}}, "patterns"),
        ({"patternProperties": {f"a{n}": True for n in range(65)}}, "patterns"),
        ({"anyOf": [{"const": n} for n in range(10_000)]}, "more than 10000 parts"),
        ({"dependencies": {"a": {"anyOf": [True] * 10_000}}}, "more than 10000 parts"),
        ({"properties": {"a": {"pattern": "[\\p{L}\\p{N}]{1,1000}"}}}, "regex"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_structured_refuses_schemas(schema, why):
    """A schema that cannot be compiled, or costs too much, is the request's fault."""
    message = refused(schema)
    assert why in message
    assert len(message) < 400


def test_structured_refuses_references_that_multiply():
    """A small schema that means a large one is refused, before it costs anything."""
    parts = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    schema = {"$ref": "#/$defs/d0", "$defs": parts | {"d40": {"type": "null"}}}
    begun = time.process_time()
    assert "each '$ref' written out" in refused(schema)
    assert time.process_time() - begun < 1
    chain = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(2000)}
    assert "levels" in refused({"$ref": "#/$defs/d0", "$defs": chain | {"d2000": {}}})


def test_structured_takes_what_libraries_make():
    """A schema's own name and draft, and definitions under their old name, are fine."""
    form = asked(
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$id": "my place",
            "$ref": "#/definitions/Place",
            "definitions": {"Place": CITY},
        }
    )
    assert form.fault('{"city": "Graz"}') is None
    assert form.fault("{}") == '"city" is a required property'
    same = {str(n): {"pattern": "^[a-z]{1,64}$"} for n in range(200)}
    assert asked({"properties": same}).fault('{"7": "abc"}') is None


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        # Backtracks for ever, and would refer to itself twice at each level.
        ({"pattern": "^(?=a)(a|aa)+$"}, json.dumps("a" * 5000 + "b")),
        ({"anyOf": [{"type": "object", "properties": {"a": {"$ref": "#"}}}] * 2},
         '{"a":' * 120 + "1" + "}" * 120),
        ({"anyOf": [{"const": f"c{n}"} for n in range(9000)]},
         json.dumps([[n] for n in range(200_000)])),
        ({"items": {"type": "string"}}, json.dumps(["a"] * 200_000 + [1])),
    ],
    ids=["pattern", "recursion", "product", "long"],
)  # fmt: skip
def test_structured_costs_bounded_time(schema, text):
    """No schema and no answer keeps the loop from its work for long."""
    form = asked(schema)
    begun = time.process_time()
    assert form.fault(text) is not None
    assert time.process_time() - begun < 2


def test_structured_weighs_answer_against_schema():
    """An answer of very many values is not held against a very large schema."""
    large = asked({"items": {"anyOf": [{"const": n} for n in range(9000)]}})
    fault = large.fault(json.dumps([1] * 5000))
    assert fault == "it has 5001 values, too many to be checked against the schema"
    assert large.fault(json.dumps([1] * 1000)) is None
    assert asked({"items": {"const": 1}}).fault(json.dumps([1] * 5000)) is None


@pytest.mark.parametrize(
    ("turn", "counts"),
    [
        (TurnFinished("stop", message={"role": "assistant", "content": "x"}), True),
        (TurnFinished("stop", message={"role": "assistant", "content": ""}), True),
        (TurnFinished("length", message={"role": "assistant", "content": "x"}), False),
        (TurnFinished("content_filter", message={"role": "assistant"}), False),
        (TurnFinished("tool_calls", message={"role": "assistant"}), False),
        (TurnFinished("stop", message={"role": "assistant", "refusal": "No."}), False),
        (TurnFinished("stop", message={"role": "assistant", "refusal": None}), True),
    ],
)
def test_structured_counts_whole_answers_alone(turn, counts):
    """An answer that was cut off or filtered, calls and refusals need not fit."""
    assert asked(CITY).counts(turn) is counts


def test_structured_asks_again_with_the_fault():
    """The model reads its own answer, and what is wrong with it."""
    form = asked(CITY)
    answer, question = form.again("{}", form.fault("{}"))
    assert answer == {"role": "assistant", "content": "{}"}
    assert question["role"] == "user"
    assert '"city" is a required property' in question["content"]
    (question,) = form.again(" \n", form.fault(" \n"))
    assert question["role"] == "user" and "it is empty" in question["content"]


def test_structured_instructions_hold_the_schema():
    """A model whose provider has no response_format is told the schema itself."""
    form = asked(CITY, description="A place on earth.")
    head, _, schema = form.instructions.partition("\n")
    assert json.loads(schema) == CITY
    assert "place: A place on earth." in head


def test_structured_circles_end():
    """A schema that means nothing but itself is fitted by anything, at once."""
    circle = {"$ref": "#/$defs/b", "$defs": {"b": {"allOf": [{"$ref": "#"}]}}}
    assert asked(circle).fault("[1]") is None
    assert asked(circle | {"type": "string"}).fault("[1]") is not None


SIMPLE = st.one_of(
    st.just(True),
    st.just({}),
    st.sampled_from(
        ["null", "boolean", "integer", "number", "string", "array", "object"]
    ).map(lambda name: {"type": name}),
    st.integers(-3, 3).map(lambda n: {"minimum": n}),
    st.integers(-3, 3).map(lambda n: {"exclusiveMaximum": n}),
    st.integers(1, 3).map(lambda n: {"multipleOf": n}),
    st.integers(0, 2).map(lambda n: {"maxLength": n}),
    st.integers(0, 2).map(lambda n: {"minItems": n}),
    st.integers(0, 2).map(lambda n: {"maxProperties": n}),
    st.sampled_from([{"const": "a"}, {"enum": [1, "b", None]}, {"pattern": "^[ab]"}]),
    st.sampled_from([{"required": ["a"]}, {"dependentRequired": {"a": ["b"]}}]),
)
REFERENCES = st.sampled_from(["#/$defs/x", "#/$defs/y", "#"]).map(
    lambda name: {"$ref": name}
)
KEYS = st.sampled_from(["a", "b", "c/~", "d e"])


def larger(schemas, inner):
    """Return schemas made of *schemas*, and of *inner* for what a value holds."""
    several = st.lists(schemas, min_size=1, max_size=3)
    optional = {
        "properties": st.dictionaries(KEYS, inner, max_size=3),
        "additionalProperties": st.one_of(st.booleans(), inner),
        "items": inner,
        "prefixItems": st.lists(inner, min_size=1, max_size=2),
        "required": st.lists(KEYS, unique=True, max_size=2),
        "patternProperties": st.dictionaries(
            st.sampled_from(["^a", "b"]), inner, max_size=1
        ),
        "propertyNames": schemas,
        "contains": inner,
        "not": schemas,
        "if": schemas,
        "then": schemas,
        "else": schemas,
        **dict.fromkeys(("anyOf", "oneOf", "allOf"), several),
        "dependentSchemas": st.dictionaries(KEYS, schemas, max_size=2),
        "unevaluatedProperties": st.booleans(),
        "uniqueItems": st.booleans(),
        "type": st.sampled_from(["object", "array", ["object", "string", "integer"]]),
    }
    return st.sets(st.sampled_from(sorted(optional)), min_size=1, max_size=3).flatmap(
        lambda chosen: st.fixed_dictionaries({k: optional[k] for k in sorted(chosen)})
    )


# What refers to itself does so by way of what a value holds: in a circle without that,
# the slow library never comes to an end.
INNER = st.recursive(SIMPLE | REFERENCES, lambda s: larger(s, s), max_leaves=5)
SCHEMAS = st.recursive(SIMPLE, lambda s: larger(s, INNER), max_leaves=5)
DOCUMENTS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-4, 4),
        st.sampled_from([0.5, 1.0, "", "a", "b", "abc"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    root=SCHEMAS,
    x=SCHEMAS,
    y=SCHEMAS,
    document=DOCUMENTS,
    indent=st.sampled_from([None, 1]),
)
def test_structured_agrees_with_the_slow_library(root, x, y, document, indent):
    """A valid document has no fault, and any other has one, in a few short words."""
    schema = (root if isinstance(root, dict) else {}) | {"$defs": {"x": x, "y": y}}
    valid = Draft202012Validator(schema).is_valid(document)
    fault = asked(schema).fault(json.dumps(document, indent=indent))
    assert (fault is None) == valid, fault
    if fault is not None:
        assert 0 < len(fault) < 3 * 250

"""Places and rules that a document breaks, against the words that are given."""

from __future__ import annotations

import time

import pytest
from jsonschema import Draft202012Validator

from edwin.executor.misfits import Misfits, parts, referred

CAT = {
    "type": "object",
    "properties": {
        "kind": {"const": "cat"},
        "lives": {"type": "integer", "maximum": 9},
    },
    "required": ["kind", "lives"],
}
DOG = {
    "type": "object",
    "properties": {"kind": {"const": "dog"}, "good": {"type": "boolean"}},
    "required": ["kind", "good"],
}
PET = {"anyOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}]}
DEFS = {"$defs": {"cat": CAT, "dog": DOG}}
TREE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer"},
        "left": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "required": ["value"],
    "additionalProperties": False,
}


def found(schema, document):
    """Return all faults; the slow library agrees that the document has some."""
    assert not Draft202012Validator(schema).is_valid(document)
    return list(Misfits(schema).find(document))


@pytest.mark.parametrize(
    ("schema", "document", "faults"),
    [
        ({"type": "string"}, 3, ['3 is not of type "string"']),
        ({"enum": ["a", "b"]}, "c", ['"c" is not one of "a" or "b"']),
        # The type says it all.
        ({"type": "string", "enum": ["a"]}, 3, ['3 is not of type "string"']),
        ({"required": ["a", "b"]}, {}, ['"a" is a required property',
                                        '"b" is a required property']),
        (TREE, {"value": 1, "x": 2}, ["x: may not be there"]),
        (TREE, {"value": 1, "left": {"value": "v"}},
         ['left.value: "v" is not of type "integer"']),
        (TREE, {"value": 1, "left": 3}, ['left: 3 is not of types "object", "null"']),
        ({"items": {"minLength": 2}}, ["ab", "c"], ['[1]: "c" is shorter than 2 '
                                                    "characters"]),
        ({"prefixItems": [{"type": "null"}], "items": False}, [None, 1],
         ["[1]: may not be there"]),
        ({"additionalProperties": {"type": "null"}}, {"a b": 1},
         ['["a b"]: 1 is not of type "null"']),
        ({"allOf": [{"minimum": 2}, {"maximum": 0}]}, 1,
         ["1 is less than the minimum of 2", "1 is greater than the maximum of 0"]),
        (PET | DEFS, {"kind": "cat", "lives": 12},
         ["lives: 12 is greater than the maximum of 9"]),
        (PET | DEFS, {"kind": "dog"}, ['"good" is a required property']),
        (PET | DEFS, {"kind": "cow"},
         ['{"kind": "cow"} does not fit any of the forms it may have']),
        ({"oneOf": [{"minimum": 0}, {"maximum": 9}]}, 5,
         ["5 does not fit exactly one of the forms it may have"]),
        # What fits is not told of, whatever is wrong beside it.
        ({"properties": {"a": {"anyOf": [{"minimum": 0}, {"maximum": 9}]},
                         "b": {"type": "null"}}}, {"a": 5, "b": 1},
         ['b: 1 is not of type "null"']),
        ({"not": {"type": "null"}}, None, ["does not fit 'not' of the schema"]),
        ({"properties": {"a": {"if": {"minimum": 1}, "then": False}}}, {"a": 1},
         ["a: does not fit 'if' of the schema"]),
        ({"contains": {"const": 1}}, [2], ["does not fit 'contains' of the schema"]),
        ({"propertyNames": {"maxLength": 1}}, {"ab": 1},
         ["does not fit 'propertyNames' of the schema"]),
        ({"patternProperties": {"^x": {"type": "null"}}}, {"xy": 1},
         ["does not fit 'patternProperties' of the schema"]),
        ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"a": 1},
         ["does not fit 'dependentSchemas' of the schema"]),
        ({"$ref": "#/$defs/a~1b%20c~0d", "$defs": {"a/b c~d": {"type": "null"}}}, 1,
         ['1 is not of type "null"']),
        ({"properties": {"a/~ %é": {"$ref": "#/properties/b"},
                         "b": {"anyOf": [{"type": "null"}, {"minimum": 7}]}}},
         {"a/~ %é": 5, "b": 8}, [
             '["a/~ %\\u00e9"]: 5 is less than the minimum of 7']),
    ],
)  # fmt: skip
def test_misfits_are_told_by_place_and_rule(schema, document, faults):
    """Each fault has its place; of several forms, the one that was meant counts."""
    assert found(schema, document) == faults


def test_misfits_repeat_no_long_value():
    """What the model wrote is told in short pieces, keys and values alike."""
    secret = "s3cret" * 20
    schema = {"properties": {"a": {"maxLength": 3}}, "additionalProperties": False}
    document = {"a": secret, secret: secret}
    faults = found(schema, document)
    assert len(faults) == 2
    for fault in faults:
        assert len(fault) < 250
        assert secret[:50] not in fault


def test_misfits_in_a_circle():
    """A schema that refers to itself in one place is looked at once."""
    a = {"$ref": "#/$defs/b", "type": "string"}
    b = {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#"}]}
    schema = {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": a, "b": b}}
    assert list(Misfits(schema).find(1)) == ['1 is not of type "string"']


@pytest.mark.parametrize("depth", [1, 10, 100, 127])
def test_misfits_take_time_by_size_alone(depth):
    """Forms that refer to each other cost as much as the document is deep."""
    form = {"type": "object", "properties": {"a": {"$ref": "#"}}}
    schema = {"anyOf": [form, dict(form)]}
    document: object = 1
    for _ in range(depth):
        document = {"a": document}
    begun = time.process_time()
    assert list(Misfits(schema).find(document))
    assert time.process_time() - begun < 1


def test_misfits_of_deep_documents_end_somewhere():
    """What is very deep is told without its place, and no stack overflows."""
    document: object = {"value": "v"}
    for _ in range(127):
        document = {"value": 1, "left": document}
    (fault,) = Misfits(TREE).find(document)
    assert fault.endswith(("does not fit the schema", 'is not of type "integer"'))
    assert fault.startswith("left.left.")


def test_misfits_parts_are_what_the_validator_looks_at():
    """Definitions are no parts, nor is what only looks like a schema."""
    schema = {
        "$defs": {"a": {}},
        "const": {"not": {}},
        "not": {"type": "null"},
        "anyOf": [True, {"minimum": 1}],
        "properties": {"x/y": {"maximum": 1}, "not": False},
        "allOf": "none",
    }
    assert dict(parts(schema)) == {
        "/not": {"type": "null"},
        "/anyOf/0": True,
        "/anyOf/1": {"minimum": 1},
        "/properties/x~1y": {"maximum": 1},
        "/properties/not": False,
    }
    for end, part in parts(schema):
        assert referred(schema, f"#{end}") == part
    assert list(parts(True)) == []


@pytest.mark.parametrize(
    "reference", ["", "a", "#a", "edwin:x", "#/b", "#/a/2", "#/a/x", "#/c/0", 3, None]
)
def test_misfits_refuse_what_is_no_reference(reference):
    """A reference names a part of its own document that is there."""
    assert referred({"a": [1, 2], "c": 3}, "#/a/1") == 2
    with pytest.raises(LookupError):
        referred({"a": [1, 2], "c": 3}, reference)

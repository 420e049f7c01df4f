"""Canonical JSON and the hashes over it: one value, one text, one hash."""

import hashlib
import math

import pytest

from distillery.store.canonical import class_order_hash, digest, dumps, file_sha256

VALUE = {"b": [1, 2.5, None], "a": {"y": "ü", "x": True}}
TEXT = '{"a":{"x":true,"y":"ü"},"b":[1,2.5,null]}'


def test_the_order_of_keys_does_not_count():
    turned = {"a": {"x": True, "y": "ü"}, "b": [1, 2.5, None]}
    assert dumps(VALUE) == dumps(turned) == TEXT
    assert digest(VALUE) == digest(turned) == hashlib.sha256(TEXT.encode()).hexdigest()[:12]


def test_the_order_of_lists_and_the_types_of_values_count():
    values = [[1, 2], [2, 1], ["1", 2], [True, 2], [1.0, 2], {"1": 2}, [None], [], [[]]]
    assert len({digest(value) for value in values}) == len(values)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(number):
    with pytest.raises(ValueError, match="JSON"):
        dumps({"x": [number]})
    with pytest.raises(TypeError):
        dumps({"x": {1, 2}})


def test_a_class_order_is_names_and_their_order():
    order = class_order_hash(["cat", "dog"])
    assert order == class_order_hash(("cat", "dog")) and len(order) == 16
    assert order not in {class_order_hash(["dog", "cat"]), class_order_hash(["cat", "dog", "emu"])}
    assert class_order_hash(["a", "b,c"]) != class_order_hash(["a,b", "c"])


def test_a_file_is_hashed_as_it_is(tmp_path):
    (tmp_path / "file").write_bytes(b"abc\r\n\0")
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"abc\r\n\0").hexdigest()

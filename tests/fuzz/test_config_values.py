# SPDX-License-Identifier: Apache-2.0
"""Whatever stands behind ``-c`` and ``-o``: a configuration, or an error; nothing is executed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ppcls_ise
from ppcls_ise.config.overrides import get_config, parse_value
from ppcls_ise.errors import ConfigError
from tests.conftest import SYNTHETIC
from tests.fuzz.harness import fuzz, nothing_happens

pytestmark = pytest.mark.long

CODE = st.sampled_from(
    [
        "__import__('os').system('x')",
        "[__import__('os').system('x')]",
        "{1: open('x', 'w')}",
        "exec('1')",
        "(lambda: 0)()",
        "[x for x in (1,)]",
        "f'{exit()}'",
        "().__class__.__bases__[0]",
        "open('x','w')",
        "1/0",
    ]
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
PIECES = st.lists(
    st.sampled_from(
        [*"[]{}(),:='\"\\*-+./~ \n\t\0", "true", "null", "1e3", "0x", "__import__", "a"]
    )
    | st.text(max_size=3),
    max_size=12,
).map("".join)
KEYS = st.lists(
    st.sampled_from(
        "Global Arch Head Loss Train 0 1 -1 DataLoader Eval Query dataset sampler transform_ops ² "
        "ResizeImage NormalizeImage Optimizer lr name Backbone epochs Metric Clustering".split()
    )
    | st.text(max_size=4),
    min_size=1,
    max_size=6,
).map(".".join)


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()
    get_config(str(SYNTHETIC))  # what is imported late, is now


def is_plain(value) -> bool:
    if isinstance(value, dict):
        return all(is_plain(k) and is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


@fuzz
@given(text=PIECES | st.text() | CODE)
def test_any_value(text):
    try:
        with nothing_happens():
            value = parse_value(text)
    except ConfigError:
        assert text.strip()[0] in "[{"
    else:
        assert is_plain(value)


@fuzz
@given(value=PLAIN)
def test_a_literal_means_what_it_says(value):
    assert parse_value(repr(value)) == value
    if isinstance(value, float):
        assert math.copysign(1, parse_value(repr(value))) == math.copysign(1, value)


@fuzz
@given(key=KEYS, value=CODE | PIECES | PLAIN.map(repr))
def test_any_override(key, value):
    try:
        with nothing_happens():
            get_config(str(SYNTHETIC), [f"{key}={value}"])
    except ConfigError as error:
        assert len(str(error)) < 2000


def places(node, path=()):
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        yield (*path, str(key))
        if isinstance(value, dict | list):
            yield from places(value, (*path, str(key)))


@fuzz
@given(data=st.data())
def test_any_value_in_any_place(data):
    config = get_config(str(SYNTHETIC))
    place = data.draw(st.sampled_from(sorted(".".join(path) for path in places(config))))
    value = data.draw(PLAIN.map(repr) | CODE | st.sampled_from(["-1", "0", "[]", "{}", "''"]))
    try:
        with nothing_happens():
            get_config(str(SYNTHETIC), [f"{place}={value}"])
    except ConfigError:
        pass


@fuzz
@given(content=st.binary(max_size=60) | PIECES.map(str.encode) | PLAIN.map(repr).map(str.encode))
def test_any_yaml_file(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_bytes(content)
    with nothing_happens(), pytest.raises(ConfigError):
        get_config(str(path))


@pytest.mark.parametrize("tag", ["python/object/apply:os.system [x]", "python/name:os.system"])
def test_yaml_tags_of_python_are_refused(tmp_path, tag):
    path = tmp_path / "config.yaml"
    path.write_text(f"Global: !!{tag}\n")
    with nothing_happens(), pytest.raises(ConfigError, match="python"):
        get_config(str(path))


@pytest.mark.parametrize("act", [lambda: eval("1"), lambda: __import__("this_is_no_module")])
def test_the_watch_notices(act):
    with pytest.raises(AssertionError), nothing_happens():
        try:
            act()
        except ImportError:
            pass

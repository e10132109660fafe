# SPDX-License-Identifier: Apache-2.0
"""Values that a YAML file writes once: an anchor (``&size``) and its aliases (``*size``)."""

from collections.abc import Iterator
from typing import Any

import yaml

from ppcls_ise.errors import ConfigError, shown

# Keys from the root, indices as texts: ("Clustering", "transform_ops", "0").
Place = tuple[str, ...]

_DEPTH = 50
_PLACES = 100_000  # a few nested aliases can stand for billions


class Aliases:
    """Which places of a file are one value. PaddleClas's reader copies what aliases share, so an
    override has to be told all places.

    Args:
        path: a YAML file; merges (``<<: *defaults``) count as aliases of every key.

    Raises:
        ConfigError: an alias contains itself, or aliases of aliases multiply beyond sense.
        yaml.YAMLError, OSError: no YAML, or it cannot be read.
    """

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            root = yaml.compose(file, Loader=yaml.SafeLoader)
        by_node: dict[int, list[Place]] = {}
        for count, (node, place) in enumerate(_walk(root, ()) if root else ()):
            if len(place) > _DEPTH or count > _PLACES:
                raise ConfigError(
                    f"{shown(path)}: its aliases contain themselves, or stand for too much"
                )
            by_node.setdefault(id(node), []).append(place)
        self._places = {place: places for places in by_node.values() for place in places}

    def of(self, place: Place) -> Iterator[tuple[Place, Place]]:
        """The other places of the same value.

        A place that the file does not have (a new key) is looked up by the longest part of it that
        the file has, so that a new key below an alias is new below all of them.

        Yields:
            ``(part, rest)``: ``part`` is in the file, ``part + rest`` is the place.
        """
        for length in range(len(place), 0, -1):
            if places := self._places.get(place[:length]):
                yield from ((part, place[length:]) for part in places if part != place[:length])
                return


def _walk(node: yaml.Node, place: Place) -> Iterator[tuple[yaml.Node, Place]]:
    yield node, place
    items: list[tuple[str, Any]] = []
    if isinstance(node, yaml.MappingNode):
        yaml.constructor.SafeConstructor().flatten_mapping(node)  # resolves merges
        items = [(key.value, value) for key, value in node.value if isinstance(key.value, str)]
        items = list(dict(items).items())  # an own key wins over a merged one
    elif isinstance(node, yaml.SequenceNode):
        items = [(str(index), value) for index, value in enumerate(node.value)]
    for key, value in items:
        yield from _walk(value, (*place, key))

"""Layers of an onion in a configuration: tables with a `kind`, whose other keys that kind alone knows.

Which kinds there are is an argument (`Kinds`, as pydantic's context), for they live above this room: each has its
options in its own file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import PlainSerializer, PlainValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from gateway.config.fields import Name
from gateway.config.section import Section
from gateway.config.values import shown
from gateway.documents import Wanted


class LayerOptions(Section):
    """What a layer of any kind is told."""

    FILES: ClassVar[tuple[str, ...]] = ()
    """Keys that hold the path of a file, or arrays of them. A URL in its place is left alone."""
    PREFLIGHTS: ClassVar[bool] = False
    """Whether preflights (CORS) are for it, so that they must come to the route of the request that is to follow."""

    kind: str
    """What the layer does."""
    name: Name | None = None
    """Its name in logs and metrics, once in each list; its kind when absent. What a layer counts is kept under its
    name, so it goes on being counted when the layer is moved in its list. One without a name goes by its number among
    those of its kind in the list: when one is put before it or taken away there, each goes on with what another one has
    counted. Layers of different routes count apart, also under one name; those of a set count together for all that use
    it."""

    @classmethod
    def answers(cls, written: Mapping[str, Any]) -> bool:
        """Whether a layer that is written so answers every request itself, so that nothing need be inside it."""
        return False

    def secret_parameters(self) -> tuple[str, ...]:
        """The query parameters that hold what nobody is to see. Wherever its layer stands, the target is written down
        without them, also where another layer refuses the request before this one is asked."""
        return ()

    def documents(self) -> tuple[Wanted, ...]:
        """What it needs from a URL: fetched once for all workers."""
        return ()


Kinds = Mapping[str, type[LayerOptions]]


def _layer(value: Any, info: ValidationInfo) -> LayerOptions:
    kinds: Kinds = info.context or {}
    if isinstance(value, LayerOptions):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"expected a table with a kind, got {shown(value)}")
    kind = value.get("kind")
    if "kind" not in value:
        raise ValueError('a layer needs a kind, as in { kind = "request_id" }')
    if not isinstance(kind, str) or kind not in kinds:
        context = {"kind": kind, "known": sorted(kinds), "of": "middleware"}
        raise PydanticCustomError(UNKNOWN_KIND, "unknown kind", context)
    return kinds[kind].model_validate(value, context=info.context)


def _layer_or_set(value: Any, info: ValidationInfo) -> LayerOptions | str:
    return value if isinstance(value, str) else _layer(value, info)


def _written(layer: LayerOptions | str) -> Any:
    return layer if isinstance(layer, str) else layer.model_dump()


UNKNOWN_KIND = "unknown_kind"
# What stands for a layer in the JSON Schema until `dump.schema` puts all kinds there.
SCHEMA = {"$comment": "a layer"}

Layer = Annotated[LayerOptions, PlainValidator(_layer), PlainSerializer(_written), WithJsonSchema(SCHEMA)]
LayerOrSet = Annotated[
    LayerOptions | str,
    PlainValidator(_layer_or_set),
    PlainSerializer(_written),
    WithJsonSchema({"anyOf": [{"type": "string", "description": "The name of a set."}, SCHEMA]}),
]
Layers = tuple[LayerOrSet, ...]


class Standing(NamedTuple):
    """A layer in its place. identity: what is counted for it is kept under this, from one configuration to the next."""

    identity: str
    options: LayerOptions

    @property
    def name(self) -> str:
        return self.options.name or self.options.kind


def standing(layers: Iterable[LayerOptions], where: str) -> list[Standing]:
    """These layers in their place. One without a name is known by how many of its kind come before it."""
    known: dict[str, int] = {}
    found = []
    for options in layers:
        number = known[options.kind] = known.get(options.kind, 0) + 1
        found.append(Standing(f"{where}/{options.name or f'{options.kind}#{number}'}", options))
    return found


def tables(data: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Every layer in a document that was not checked yet, with its key path."""
    places: list[tuple[tuple[str | int, ...], Any]] = [((), data)]
    sets, routes = data.get("middleware_sets"), data.get("routes")
    if isinstance(sets, dict):
        places += [(("middleware_sets", name), one) for name, one in sets.items()]
    if isinstance(routes, list):
        places += [(("routes", index), one) for index, one in enumerate(routes)]
    for path, table in places:
        layers = table.get("middleware") if isinstance(table, dict) else None
        for index, layer in enumerate(layers if isinstance(layers, list) else ()):
            if isinstance(layer, dict):
                yield (*path, "middleware", index), layer

"""Checked parts of a configuration become the functions that they name."""

import functools
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from labelfx.config.annotations import Augment, Fields, Part
from labelfx.config.checks import find, rule_of
from labelfx.config.rooms import parameters
from labelfx.config.schema import METHODS, function


def augmentations(config: Mapping[str, Any]) -> Iterator[tuple[dict, str]]:
    """(a dict, the key of an augmentation in it), for the run's method, those of its phases, and the parts of these."""
    for method in [config["method"], *(phase["method"] for phase in config["phases"] if "method" in phase)]:
        yield from _augmentations(METHODS, method)


def _augmentations(part: Part, node: dict) -> Iterator[tuple[dict, str]]:
    takes = parameters(function(part, node["name"]))[1]
    for key in takes:
        if takes[key].annotation == Augment and key in node:
            yield node, key
        elif isinstance(rule := rule_of(takes[key]), Part) and isinstance(below := node.get(key), dict):
            yield from _augmentations(rule, below)


def one_line(part: Mapping[str, Any]) -> str:
    """A part's name and keys: `crop_flip (flip=True, padding=4)`."""
    keys = ", ".join(f"{key}={part[key]}" for key in sorted(part) if key != "name")
    return part["name"] + (f" ({keys})" if keys else "")


def build(part: Part, node: Mapping, **provided: Any) -> Any:
    """Makes a checked part: calls its builder with what the run provides, or binds the keywords of a function whose
    leading arguments come later (`Part.positional`)."""
    builder, argument = find(part, node["name"], part.where)
    positional, takes = parameters(builder)
    keywords = {key: _build_value(takes[key].annotation, node[key], provided) for key in takes}
    if part.positional:
        return functools.partial(builder, **keywords, **{n: provided[n] for n in positional if n in part.bound})
    if argument:
        return builder(argument, **keywords)
    return builder(*(provided[name] for name in positional), **keywords)


def _build_value(annotation: Any, value: Any, provided: Mapping[str, Any]) -> Any:
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Annotated and isinstance(arguments[-1], Part):
        return build(arguments[-1], value, **provided)
    if typing.get_origin(annotation) is Annotated and isinstance(arguments[-1], Fields) and arguments[0] is not dict:
        takes = parameters(arguments[-1].function)[1]
        return arguments[0](**{key: _build_value(takes[key].annotation, value[key], provided) for key in takes})
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return None if value is None else _build_value(arguments[0], value, provided)
    if typing.get_origin(annotation) is tuple:
        return tuple(_build_value(arguments[0], each, provided) for each in value)
    return value

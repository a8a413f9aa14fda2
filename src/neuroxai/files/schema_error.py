"""Pydantic's validation errors as one sentence: key, value, what was expected, what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from neuroxai.core.errors import suggestion

if TYPE_CHECKING:
    from pydantic import ValidationError

Location = list[int | str]
"""Keys and indices that lead to a value."""
Node = Mapping[str, Any]
"""A node of a JSON Schema."""

_FIRST = ("extra_forbidden", "invalid_key", "missing")
_LONGEST = 120
"""Characters of a value that an error message repeats."""
_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a mapping of keys to values",
}
_ITEMS = {
    "string": "names",
    "integer": "whole numbers",
    "number": "numbers",
    "boolean": "true or false values",
}


def describe_error(error: ValidationError, table: object, schema: Node) -> str:
    """Describe the most telling of a validation's errors in one sentence.

    An unknown key comes first: it is often the misspelling of one that is then missing.

    Parameters
    ----------
    error
        What pydantic raised.
    table
        The values that were validated.
    schema
        JSON Schema of the model that they were validated against.

    Returns
    -------
    str
        For example ``batch is 0, expected a whole number above 0``.
    """
    errors = error.errors(include_url=False)
    first = min(errors, key=lambda one: (*_FIRST, one["type"]).index(one["type"]))
    kind, place, value = first["type"], list(first["loc"]), first["input"]
    if kind == "missing" and isinstance(place[-1], int):
        # A list that is too short, reported as its missing items.
        kind, place = "too_short", place[:-1]
    if kind in _FIRST:
        return _describe_key(kind, place, table, schema)
    if place[-1:] == ["[key]"]:
        path, _ = _locate(place[:-2], table, schema)
        return f"{_dotted(path)} has the key {place[-2]!r}, expected text"
    path, node = _locate(place, table, schema)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _describe_tag(path, node, value)
    if kind != "value_error":
        return f"{_dotted(path)} is {_show(value)}, expected {_expected(node, schema)}"
    reason = str(first["ctx"]["error"])
    if "properties" in node:
        return f"{_dotted(path)}: {reason}" if path else reason
    return f"{_dotted(path)} is {_show(value)}, expected {reason}"


def _describe_tag(path: Location, node: Node, value: Any) -> str:
    """Describe a mapping whose key that chooses the kind is missing or unknown."""
    key: str = node["discriminator"]["propertyName"]
    known = node["discriminator"]["mapping"]
    if not isinstance(value, Mapping) or key not in value:
        return f"missing required key {_dotted([*path, key])!r}; {suggestion('', known)}"
    return f"{_dotted([*path, key])} is {_show(value[key])}; {suggestion(value[key], known)}"


def _describe_key(kind: str, place: Location, table: object, schema: Node) -> str:
    path, node = _locate(place[:-1], table, schema)
    key = _dotted([*path, str(place[-1])])
    known: Node = node.get("properties", {})
    if kind != "missing":
        return f"unknown key {key!r}; {suggestion(place[-1], known)}"
    examples = _resolve(known[str(place[-1])], schema).get("examples")
    example = f', for example "{place[-1]}": {json.dumps(examples[0])}' if examples else ""
    return f"missing required key {key!r}; add it{example}"


def _locate(place: Location, table: object, schema: Node) -> tuple[Location, Node]:
    """Return the path to a value in ``table``, and the node of the schema that describes it.

    Pydantic adds the names of a union's branches to a location; the path is without them.
    """
    path: Location = []
    node = schema
    value: Any = table
    for part in place:
        if isinstance(value, Mapping):
            known = part in value
        else:
            known = isinstance(part, int) and isinstance(value, Sequence) and part < len(value)
        if known:
            value, node = value[part], _child(node, part, schema)
            node = _branch(node, value, schema)
            path.append(part)
    return path, node


def _branch(node: Node, value: Any, schema: Node) -> Node:
    """Return the branch of a union that a value chooses by its discriminating key."""
    chosen = node.get("discriminator", {})
    if not chosen or not isinstance(value, Mapping):
        return node
    reference = chosen["mapping"].get(value.get(chosen["propertyName"]))
    return _resolve({"$ref": reference}, schema) if reference else node


def _child(node: Node, part: int | str, schema: Node) -> Node:
    if isinstance(part, int):
        fixed: Sequence[Node] = node.get("prefixItems", ())
        found = fixed[part] if part < len(fixed) else node.get("items")
    else:
        found = node.get("properties", {}).get(part, node.get("additionalProperties"))
    return _resolve(found, schema) if isinstance(found, Mapping) else {}


def _resolve(node: Node, schema: Node) -> Node:
    """Follow a reference; of an optional value take the branch that is not null."""
    if "$ref" in node:
        target = schema["$defs"][str(node["$ref"]).rpartition("/")[2]]
        return {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    for branch in node.get("anyOf", ()):
        if branch.get("type") != "null":
            return {**_resolve(branch, schema), "optional": True}
    return node


def _expected(node: Node, schema: Node) -> str:
    """Return what a node of a schema allows, in words."""
    if "const" in node or "enum" in node:
        *others, last = [repr(value) for value in node.get("enum", [node.get("const")])]
        words = f"{', '.join(others)} or {last}" if others else last
    elif node.get("type") == "array":
        words = _expected_list(node, schema)
    elif node.get("type") in ("integer", "number"):
        words = f"{_TYPES[node['type']]}{_range(node)}"
    elif node.get("minLength"):
        words = "text that is not empty"
    else:
        words = _TYPES.get(node.get("type", ""), "text, a finite number, true, false or null")
    return f"{words}, or null" if node.get("optional") else words


def _expected_list(node: Node, schema: Node) -> str:
    fixed = node.get("prefixItems", ())
    item = _resolve(fixed[0] if fixed else node.get("items", {}), schema)
    items = _ITEMS.get(item.get("type", ""), "values")
    least = node.get("minItems", 0)
    if least == node.get("maxItems"):
        return f"a list of {least} {items}{_range(item)}"
    return f"a list of {items}{_range(item)}" + (", not empty" if least else "")


def _range(node: Node) -> str:
    """Return the range of a number, to follow the name of its type."""
    low, high = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    if low is None and above is None:
        return ""
    start = f" above {above:.15g}" if low is None else f" from {low:.15g}"
    if high is None and below is None:
        return start if low is None else f"{start} up"
    end = f"below {below:.15g}" if high is None else f"{high:.15g}"
    if low is None:
        return f"{start} and {end if high is None else f'at most {end}'}"
    return f"{start} to {end}"


def _dotted(path: Location) -> str:
    """Return a path as it is written with ``--set``: ``data.phantom.train[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".") or "the content"


def _show(value: object) -> str:
    shown = repr(list(value) if isinstance(value, tuple) else value)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"

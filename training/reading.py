"""Plain values, as YAML gives them, as dataclasses: what does not fit is refused by its place and name."""

import dataclasses
import difflib
import re
import types
import typing
from typing import Any

from contracts.errors import VerisynthError


class ParamsError(VerisynthError):
    """A key or value of params.yaml that cannot be used."""


def read(kind: Any, value: Any, where: str) -> Any:
    """`value` as the type `kind`: a dataclass, a list or dict of a type, a plain type, or a union with None.

    A union of dataclasses is told apart by the key `kind`, which each of them holds as a class attribute.
    Dataclasses refuse contradictions in `__post_init__` with a `ParamsError`.

    Raises:
        ParamsError: naming the place `where`, the value, and what is valid.
    """
    if isinstance(kind, types.UnionType):
        return _read_union(kind, value, where)
    origin = typing.get_origin(kind)
    if origin is list:
        if not isinstance(value, list):
            raise ParamsError(f"{where}: {value!r} must be a list")
        return [read(typing.get_args(kind)[0], item, f"{where}[{index}]") for index, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise ParamsError(f"{where}: {value!r} must be a mapping")
        for key in value:
            if not isinstance(key, str):
                raise ParamsError(f"{where}: the name {key!r} must be text; put it in quotes")
        return {key: read(typing.get_args(kind)[1], item, f"{where}: {key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(typing.cast(type, kind), value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ParamsError(f"{where}: {value!r} must be of type {kind.__name__}")
    return value


def _read_union(kind: types.UnionType, value: Any, where: str) -> Any:
    members = [member for member in typing.get_args(kind) if member is not type(None)]
    if value is None and type(None) in typing.get_args(kind):
        return None
    if len(members) == 1:
        return read(members[0], value, where)
    kinds = {member.kind: member for member in members}
    if not isinstance(value, dict) or "kind" not in value:
        raise ParamsError(f"{where}: needs `kind`, one of {', '.join(kinds)}")
    one_of(f"{where}: kind", value["kind"], tuple(kinds))
    return read(kinds[value["kind"]], {key: item for key, item in value.items() if key != "kind"}, where)


def _read_dataclass(kind: type, value: Any, where: str) -> Any:
    fields = {item.name: item for item in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    if not isinstance(value, dict):
        raise ParamsError(f"{where}: {value!r} must be a mapping with the keys {', '.join(fields)}")
    for key in value:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean `{near[0]}`? " if near else ""
            raise ParamsError(f"{where}: unknown key `{key}`; {hint}valid keys: {', '.join(fields)}")
    missing = [
        name
        for name, item in fields.items()
        if name not in value and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ParamsError(f"{where}: missing key `{missing[0]}`; valid keys: {', '.join(fields)}")
    arguments = {key: read(hints[key], item, f"{where}: {key}") for key, item in value.items()}
    try:
        return kind(**arguments)
    except ParamsError as error:
        if str(error).startswith(where):
            raise
        raise ParamsError(f"{where}: {error}") from error


def one_of(name: str, value: object, valid: tuple[object, ...]) -> None:
    """Refuse a value that is not among the valid ones."""
    if value not in valid:
        raise ParamsError(f"{name}: {value!r} is unknown; valid: {', '.join(map(str, valid))}")


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a number that is too small."""
    if value < least:
        raise ParamsError(f"{name} {value} must be at least {least}")


def share(name: str, value: float) -> None:
    """Refuse a number outside [0, 1]."""
    if not 0 <= value <= 1:
        raise ParamsError(f"{name} {value} must lie in [0, 1]")


def pattern(name: str, value: str | None) -> None:
    """Refuse a text that is no regular expression with a group."""
    if value is None:
        return
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ParamsError(f"{name} {value!r} is no regular expression: {error}") from error
    if groups < 1:
        raise ParamsError(f"{name} {value!r} needs a group in parentheses: the patient")

"""A valid instance of any struct of the contract, also of those that are yet to come."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from msgspec import inspect as mi

__all__ = ["sample"]

T = TypeVar("T")

_TEXTS = ("a", "control", "<= 0.5", "0123456789abcdef")


def sample(event_type: type[T]) -> T:
    """An instance with every field set, optional ones too; always the same."""
    return msgspec.convert(_value(mi.type_info(event_type)), event_type)


def _value(info: mi.Type) -> Any:
    match info:
        case mi.Metadata(type=inner):
            return _value(inner)
        case mi.StructType():
            fields = {field.encode_name: _value(field.type) for field in info.fields}
            return fields | ({info.tag_field: info.tag} if info.tag_field else {})
        case mi.UnionType(types=types):
            return _value(next(t for t in types if not isinstance(t, mi.NoneType)))
        case mi.ListType(item_type=item, min_length=length):
            return [_value(item)] * max(1, length or 0)
        case mi.DictType(key_type=key, value_type=value):
            return {_value(key): _value(value)}
        case _:
            return _scalar(info)


def _scalar(info: mi.Type) -> Any:
    match info:
        case mi.StrType(pattern=pattern, min_length=length):
            texts = (text * max(1, length or 0) for text in _TEXTS)
            return next(text for text in texts if pattern is None or re.search(pattern, text))
        case mi.BoolType():
            return True
        case mi.IntType(ge=ge, gt=gt):
            return ge if ge is not None else (gt or 0) + 1
        case mi.FloatType(ge=ge, gt=gt, lt=lt):
            return (gt + (lt if lt is not None else gt + 1)) / 2 if gt is not None else ge or 0.0
        case mi.EnumType(cls=cls):
            return next(iter(cls)).value
        case mi.LiteralType(values=values):
            return values[0]
        case mi.BytesType():
            return b""
        case mi.DateTimeType():
            return "2026-01-02T03:04:05.678Z"
        case _:
            message = f"no sample for {info}: add a case to tests/support/samples.py"
            raise NotImplementedError(message)

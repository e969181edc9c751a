"""Messages: msgpack with numpy arrays as `openpi-client` writes them, read without running or trusting anything.

An array is a map of `__ndarray__`, `data` (raw bytes), `dtype` (numpy's string) and `shape`; a numpy scalar one of
`__npgeneric__`, `data` and `dtype`. Map keys of both are bytes.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any, NoReturn

import msgpack
import numpy as np

from ractd.errors import RactdError

NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
DTYPES = {name: np.dtype(name) for name in map("".join, product(("", "<", ">", "|", "="), NUMBERS))}
"""Types an array may have, by their names: booleans, integers and floats; no objects, structures, text, times."""
MAX_ITEMS = 1024
"""Most entries of one map or list: an observation is a handful of named arrays."""
MAX_DIMS = 8


class BadMessage(RactdError):
    """A message that is not a request, in a sentence for the one who sent it."""


def pack(message: dict[str, Any]) -> bytes:
    """Return the bytes of a message; raises `TypeError` for values that are neither msgpack's nor numeric arrays."""
    return msgpack.packb(message, default=_array_to_map)  # type: ignore[no-any-return]


def unpack(data: bytes) -> dict[str, Any]:
    """Return the dict in a message, its arrays as read-only views of `data`.

    Raises `BadMessage` for anything else than one complete msgpack map of plain values and numeric arrays.
    """
    try:
        message = msgpack.unpackb(
            data,
            object_hook=_array_of_map,
            ext_hook=_no_extension,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            strict_map_key=True,
        )
    except BadMessage:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise BadMessage(
            f"the message is not msgpack as openpi-client writes it: {error or type(error).__name__}"
        ) from None
    if not isinstance(message, dict):
        raise BadMessage(f"the message is one {type(message).__name__}, expected a dict")
    return message


def _array_to_map(value: Any) -> dict[bytes, Any]:
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.str not in DTYPES:
        raise TypeError(f"a {type(value).__name__} can't be sent")
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}


def _array_of_map(item: dict[Any, Any]) -> Any:
    if b"__ndarray__" in item:
        dtype, data, shape = _dtype(item), item.get(b"data"), item.get(b"shape")
        if not isinstance(data, bytes):
            raise BadMessage(f"data of an array is {type(data).__name__}, expected bytes")
        if not isinstance(shape, list) or len(shape) > MAX_DIMS or not all(type(n) is int and n >= 0 for n in shape):
            raise BadMessage(f"shape of an array is {_short(shape)}, expected at most {MAX_DIMS} sizes")
        if math.prod(shape) * dtype.itemsize != len(data):
            raise BadMessage(f"an array of shape {shape} and type {dtype.str} came with {len(data)} bytes of data")
        return np.ndarray(shape, dtype, data)
    if b"__npgeneric__" in item:
        dtype, data = _dtype(item), item.get(b"data")
        if not isinstance(data, bool | int | float):
            raise BadMessage(f"data of a number is {type(data).__name__}, expected a number")
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                return dtype.type(data)
        except (OverflowError, ValueError):
            raise BadMessage(f"{_short(data)} is no number of type {dtype.str}") from None
    return item


def _dtype(item: dict[Any, Any]) -> np.dtype[Any]:
    name = item.get(b"dtype")
    dtype = DTYPES.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise BadMessage(f"an array's type is {_short(name)}, expected booleans, integers or floats, like '<f4'")
    return dtype


def _no_extension(code: int, data: bytes) -> NoReturn:
    raise BadMessage(f"the message has a msgpack extension (type {code}), expected none")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

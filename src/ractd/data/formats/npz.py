"""NumPy archives with D4RL's keys, read as a stream so that a float64 file needs no second copy in memory."""

from __future__ import annotations

import tokenize
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from ractd.data.fields import DAMAGE, METADATA, Array, Field, Source, source_of
from ractd.data.ranges import BLOCK_ROWS
from ractd.errors import RactdError


def open_npz(path: Path) -> Source:
    """List what an `.npz` holds from its arrays' headers; raises RactdError if it is no whole archive."""
    fields: dict[str, Field] = {}
    found: dict[str, Any] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                key = member.removesuffix(".npy")
                with archive.open(member) as stream:
                    shape, fortran, dtype = _header(stream)
                    field = Field(shape, dtype, _blocks(path, member, shape, dtype, fortran))
                    if key not in METADATA:
                        fields[key] = field
                    else:  # an array of objects is a pickle, which is never opened
                        found[key] = _text(stream, dtype) if shape == () and dtype.kind in "US" else field
    except PermissionError as error:
        raise RactdError(f"{path}: not readable by this user") from error
    except (*DAMAGE, TypeError, tokenize.TokenError) as error:
        message = f"{path}: not a whole .npz archive ({error}); save it with numpy.savez or copy it again"
        raise RactdError(message) from error
    return source_of(path, None, fields, found)


def _text(stream: IO[bytes], dtype: np.dtype[Any]) -> str:
    text: str | bytes = np.frombuffer(stream.read(), dtype)[0] if dtype.itemsize else ""
    return text if isinstance(text, str) else text.decode("utf-8", "replace")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"an array of shape {shape}")
    return shape, fortran, dtype


def _blocks(path: Path, member: str, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool) -> Any:
    def blocks() -> Iterator[Array]:
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            _header(stream)
            if fortran and len(shape) > 1:
                # Column by column on disk: rows can't be streamed.
                yield np.frombuffer(stream.read(), dtype).reshape(shape, order="F")
                return
            row = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
            for start in range(0, shape[0], BLOCK_ROWS):
                rows = min(BLOCK_ROWS, shape[0] - start)
                data = stream.read(rows * row)
                yield np.frombuffer(data, dtype).reshape(-1, *shape[1:])
            # The archive's checksum is compared at the end of the member only.
            stream.read(1)

    return blocks

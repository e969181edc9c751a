"""Why an HDF5 file or one of its fields can't be read, each cause in words of its own. Reads no data."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ractd.errors import RactdError

# Numbers that the HDF Group has registered; those of hdf5plugin.
FILTERS = {
    307: "bzip2",
    32000: "LZF",
    32001: "Blosc",
    32004: "LZ4",
    32008: "bitshuffle",
    32013: "ZFP",
    32015: "Zstandard",
    32017: "SZ",
    32018: "FCIDECOMP",
    32024: "SZ3",
    32026: "Blosc2",
    32028: "SPERR",
}


def open_file(path: Path) -> h5py.File:
    """Open an HDF5 file for reading; raises RactdError with the reason if it can't be."""
    try:
        return h5py.File(path, "r")
    except IsADirectoryError as error:
        raise RactdError(f"{path}: is a folder, expected an HDF5 file") from error
    except PermissionError as error:
        raise RactdError(f"{path}: not readable by this user") from error
    except (OSError, RuntimeError, KeyError) as error:
        raise RactdError(f"{path}: {_complaint(path, error)}") from error


@contextmanager
def listed(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file open for looking at what it holds; raises RactdError with the reason where that fails."""
    with open_file(path) as file:
        try:
            yield file
        except (OSError, RuntimeError, KeyError, TypeError) as error:
            raise RactdError(f"{path}: {_complaint(path, error)}") from error


def _complaint(path: Path, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, BlockingIOError) or "unable to lock file" in reason:
        return "another process is writing this HDF5 file; wait until it has closed it, or read a copy"
    if "already open for" in reason:
        return (
            "the HDF5 file is marked as open for writing: a process still writes it, or was stopped before it closed the "
            f"file; wait for it, or if it is gone take the mark away with `h5clear -s {path}` (of the HDF5 tools), which "
            "keeps what had reached the disk"
        )
    size = path.stat().st_size
    if size == 0:
        return "the file is empty"
    with open(path, "rb") as file:
        signature = file.read(8)
    if signature != b"\x89HDF\r\n\x1a\n":
        return f"not an HDF5 file (it starts with {signature!r}); expected D4RL's layout in HDF5"
    return f"the HDF5 file is damaged or cut off ({size:,} bytes; {reason}); copy or download it again"


def find(file: h5py.File, key: str) -> Any:
    """Return the object of a name, None where the name leads nowhere."""
    try:
        return file[key]
    except (KeyError, OSError, RuntimeError):
        return None


def link_fault(file: h5py.File, key: str) -> str:
    """Say why a name leads nowhere, as the rest of a sentence that begins with it."""
    try:
        link = file.get(key, getlink=True)
    except (KeyError, OSError, RuntimeError):
        link = None
    if isinstance(link, h5py.ExternalLink):
        nothing = (
            f"{link.filename!r}, which has nothing by that name; store the data itself here, or link to what is there"
        )
        return f"is a link to {link.path!r} of {_fault_elsewhere(file, link.filename, lambda _: nothing)}"
    if isinstance(link, h5py.SoftLink):
        return f"is a link to {link.path!r}, where this file has nothing; store the data itself under this name"
    return "is listed but not there; the file is damaged, copy it again"


def fault(item: Any) -> str:
    """Say why an object is no array that can be read, as the rest of a sentence that begins with its name; or ""."""
    if isinstance(item, h5py.Group):
        inside = ", ".join(repr(name) for name in list(item)[:8]) or "nothing"
        return f"is a group that holds {inside}, expected one array; store it as such, outside any group"
    if not isinstance(item, h5py.Dataset):
        return "is a named type, expected an array"
    try:
        _ = item.dtype
    except TypeError:
        return "has a type that NumPy has none for, expected numbers"
    return _filter_fault(item) or (_virtual_fault(item) if item.is_virtual else "")


def unwritten(dataset: h5py.Dataset) -> str:
    """Say how much of an array was never written, as the rest of a sentence; HDF5 reads it as its fill value."""
    if dataset.is_virtual or dataset.external or not dataset.size:
        return ""
    if dataset.chunks is None:
        return "" if dataset.id.get_storage_size() else f"was never written, and is read as {dataset.fillvalue}"
    count = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    missing = count - dataset.id.get_num_chunks()
    return (
        f"was never written in {missing:,} of its {count:,} chunks, which are read as {dataset.fillvalue}"
        if missing
        else ""
    )


def _filter_fault(dataset: h5py.Dataset) -> str:
    properties = dataset.id.get_create_plist()
    for position in range(properties.get_nfilters()):
        number, _, _, name = properties.get_filter(position)
        if _available(number) or not _applied(dataset, position):
            continue
        known = FILTERS.get(number, "") or name.decode("utf-8", "replace")
        what = f"is compressed by the HDF5 filter {number}" + (f" ({known})" if known else "")
        advice = "run `pip install hdf5plugin`" if number in FILTERS else "install that filter"
        return f"{what}, which is not installed; {advice}, or store the data with gzip"
    return ""


def _available(number: int) -> bool:
    if not h5py.h5z.filter_avail(number) and number in FILTERS:
        try:
            import hdf5plugin  # noqa: F401  (importing it registers its filters)
        except ImportError:
            return False
    return bool(h5py.h5z.filter_avail(number))


def _applied(dataset: h5py.Dataset, position: int) -> bool:
    # A writer that lacks an optional filter leaves it out, chunk by chunk.
    chunks = range(dataset.id.get_num_chunks())
    return any(not dataset.id.get_chunk_info(number).filter_mask >> position & 1 for number in chunks)


def _virtual_fault(dataset: h5py.Dataset, above: tuple[str, ...] = ()) -> str:
    """Say which part of a virtual dataset is missing: HDF5 itself fills such rows with zeros and says nothing."""
    if dataset.name in above or not dataset.shape:
        return ""
    mapped = np.zeros(dataset.shape[0], np.bool_)
    count, growing = 0, False
    for part in dataset.virtual_sources():
        try:
            (first, *_), (last, *_) = part.vspace.get_select_bounds()
            points = part.vspace.get_select_npoints()
        except RuntimeError:
            first, last, points, growing = 0, dataset.shape[0] - 1, 0, True
        if growing and "%b" in part.file_name + part.dset_name:
            # A series of files or datasets: the rows end where it does.
            continue
        mapped[first : last + 1] = True
        count += points
        why = _source_fault(dataset.file, part, points, (*above, dataset.name))
        if why:
            return f"is virtual, and its rows {first:,} to {last:,} are {part.dset_name!r} of {why}"
    gaps = np.flatnonzero(~mapped)
    if len(gaps) and not growing:
        return f"is virtual, and {len(gaps):,} of its rows, the first {gaps[0]:,}, are mapped to no file; map them"
    if count < dataset.size and not growing:
        return f"is virtual, and maps {count:,} of its {dataset.size:,} numbers only; map them all"
    return ""


def _source_fault(file: h5py.File, part: Any, points: int, above: tuple[str, ...]) -> str:
    if part.file_name == ".":
        return _part_in(file, "this file", part, points, above)
    name = part.file_name
    return _fault_elsewhere(file, name, lambda other: _part_in(other, repr(name), part, points, ()))


def _part_in(file: h5py.File, where: str, part: Any, points: int, above: tuple[str, ...]) -> str:
    source = find(file, part.dset_name)
    if not isinstance(source, h5py.Dataset):
        return f"{where}, which has no such array; write it there, or map these rows to another"
    why = _filter_fault(source) or (_virtual_fault(source, above) if source.is_virtual else "")
    if why:
        return f"{where}, which {why}"
    if not _reaches(source, part.src_space, points):
        return f"{where}, which has {source.shape} there, less than is mapped; write the rest, or map fewer rows"
    return ""


def _reaches(source: h5py.Dataset, selection: Any, points: int) -> bool:
    if source.size < points:
        return False
    if selection.get_select_type() != h5py.h5s.SEL_HYPERSLABS:
        return True
    try:
        last = selection.get_select_bounds()[1]
    except RuntimeError:
        return True
    return all(end < size for end, size in zip(last, source.shape, strict=True))


def _fault_elsewhere(file: h5py.File, name: str, fault_in: Callable[[h5py.File], str]) -> str:
    path = _part_path(file, name)
    if path is None:
        return f"{name!r}, a file that is missing; put it beside {file.filename}, or store its data there"
    try:
        with listed(path) as other:
            return fault_in(other)
    except RactdError as error:
        return f"{name!r}, which can't be read ({error})"


def _part_path(file: h5py.File, name: str) -> Path | None:
    """Find another file where HDF5 looks for it."""
    own, named = Path(file.filename), ("HDF5_VDS_PREFIX", "HDF5_EXT_PREFIX")
    prefixes = [prefix for name in named for prefix in os.environ.get(name, "").split(os.pathsep) if prefix]
    folders = [*map(Path, prefixes), own.parent, Path(), own.resolve().parent]
    tried = [Path(name)] if Path(name).is_absolute() else []
    tried += [folder / Path(name).name if tried else folder / name for folder in folders]
    return next((path for path in tried if path.is_file()), None)

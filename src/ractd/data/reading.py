"""From a source to a dataset: its fields read in blocks, its ends and rewards settled, every fault a finding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ractd.data.dataset import OfflineDataset
from ractd.data.end_fields import MARKS, SUCCESSES, names_of_ends, rows_after_ends, settle_ends
from ractd.data.fields import (
    CARRIED,
    DAMAGE,
    FLAGS,
    FORMS,
    GOALS,
    MATRICES,
    NEXT,
    Array,
    Field,
    Source,
    check_layout,
    field_of,
    layout_of,
)
from ractd.data.findings import Finding, error, has_errors, located, rows_have, stop_at_errors, warning
from ractd.data.rewards import settle_rewards
from ractd.errors import RactdError


def load(source: Source) -> OfflineDataset:
    """Read a source; raises RactdError with the first thing that is wrong and the number of others."""
    dataset, findings = read(source)
    stop_at_errors(findings)
    assert dataset is not None
    return dataset


def read(source: Source) -> tuple[OfflineDataset | None, list[Finding]]:
    """Read a source and return the dataset, None if its layout does not allow one, with everything found on the way.

    A dataset with numbers that are not finite is returned, for whoever goes on looking; the findings say so.
    """
    findings: list[Finding] = []
    return _read(source, findings), located(findings, source.where)


def _read(source: Source, findings: list[Finding]) -> OfflineDataset | None:
    names = names_of_ends(source.fields)
    renamed = {ours: replace(source.fields[name], stored_as=name) for ours, name in names.items()}
    if MARKS in renamed:
        renamed[MARKS] = _as_marks(renamed[MARKS], source)
    source = replace(source, fields={**source.fields, **renamed})
    findings += [*source.notes, *check_layout(source, names)]
    arrays: dict[str, Array] = {}
    sound = not has_errors(findings)
    for name in source.names:
        if name in source.fields and not any(layout_of(source, name)):
            try:
                arrays[name], fault = read_field(source, name)
                findings += [error(fault)] if fault else []
            except RactdError as unreadable:
                findings.append(error(str(unreadable).removeprefix(f"{source.where}: ")))
                sound = False
    if not sound:
        return None
    observations = arrays["observations"]
    terminals, timeouts = settle_ends(
        names, len(observations), arrays.get("terminals"), arrays.get("timeouts"), arrays.pop(MARKS, None)
    )
    arrays["terminals"] = terminals
    arrays["timeouts"] = _implied_timeouts(terminals, source.episode_limit) if timeouts is None else timeouts
    if has_errors(findings):
        return _dataset(source, arrays, None)
    kept = ~rows_after_ends(observations, terminals, arrays["timeouts"])
    final, doubts = read_next_observations(source, observations, terminals | arrays["timeouts"], kept)
    if not kept.all():
        rows = np.flatnonzero(~kept)
        findings.append(
            warning(
                f"{len(rows):,} terminals, the first in row {rows[0]:,}, stand right after another on the same way, as near a "
                "goal; an episode ends at the first of them, and the others are left out"
            )
        )
        # The row before those left out ends its episode already: its own terminal is the first of the run.
        arrays = {name: array[kept] for name, array in arrays.items()}
    dataset, sentence = settle_rewards(_dataset(source, arrays, final))
    findings += map(warning, [*doubts, sentence] if sentence else doubts)
    return dataset


def source_of_dataset(dataset: OfflineDataset) -> Source:
    """Return a dataset in memory as a source, whose fields are its arrays."""
    names = [name for name in (*FORMS, SUCCESSES) if getattr(dataset, name) is not None]
    fields = {name: field_of(getattr(dataset, name)) for name in names if name != "rewards" or dataset.has_rewards}
    if dataset.goals is not None:
        fields[GOALS] = field_of(dataset.goals)
    return Source(where=dataset.where, fields=fields, **{name: getattr(dataset, name) for name in CARRIED})


def _dataset(source: Source, arrays: Mapping[str, Array], final: Array | None) -> OfflineDataset:
    fields: dict[str, Any] = {"rewards": np.zeros(len(arrays["observations"]), np.float32)}
    fields |= {name: array for name, array in arrays.items() if name in FORMS}
    return OfflineDataset(
        **fields,
        **{name: getattr(source, name) for name in CARRIED},
        source=source.where,
        goals=arrays.get(GOALS),
        successes=arrays.get(SUCCESSES),
        final_observations=final,
        has_rewards="rewards" in arrays,
    )


def read_next_observations(
    source: Source, observations: Array, ends: Array, kept: Array
) -> tuple[Array | None, list[str]]:
    """Return the observation after the last action of each episode that is kept, [E, O], None where it isn't known, and doubts.

    Next observations that at most ends are the next episode's first one were made by shifting: they are no final ones. Inside
    an episode they are the next row's observation, or the episode ended there unmarked.

    Args:
        source: what has them, or not.
        observations: [N, O], of all its rows.
        ends: [N], True where an episode ends.
        kept: [N], False for rows that are left out.
    """
    stored = source.fields.get(NEXT)
    if stored is None or stored.shape != observations.shape or stored.dtype.kind not in "fiu":
        return None, []
    rows, ended = np.flatnonzero(kept), ends[kept]
    ended[-1] = True
    last, first = rows[ended], rows[np.flatnonzero(ended)[:-1] + 1]
    inside = ~ends
    inside[-1] = False
    final = np.full((len(last), observations.shape[1]), np.nan, np.float32)
    broken: list[Array] = []
    at = 0
    try:
        for block in stored.blocks():
            some = slice(*np.searchsorted(last, (at, at + len(block))))
            with np.errstate(over="ignore"):
                final[some] = block[last[some] - at]
            row = at + np.flatnonzero(inside[at : at + len(block)])
            after = observations[row + 1]
            gap = np.abs(after - block[row - at]) > 1e-3 * (1 + np.abs(after))
            broken.append(row[gap.any(axis=1)])
            at += len(block)
    except (*DAMAGE, RactdError):
        return None, [f"field {NEXT!r} can't be read from row {at} on; it isn't used"]
    doubts = []
    unmarked = np.concatenate(broken)
    if len(unmarked):
        doubts.append(
            f"{rows_have(unmarked)} no end, yet the next row's observation isn't their {NEXT!r}; an episode ends there "
            "unmarked, set 'timeouts' (or 'terminals')"
        )
    final[~np.isfinite(final).all(axis=1)] = np.nan
    shifted = (final[:-1] == observations[first]).all(axis=1)
    if not len(shifted) or shifted.mean() <= 0.5:
        return final, doubts
    doubts.append(
        f"field {NEXT!r} has the next episode's first observation at {shifted.sum():,} of {len(last):,} ends, so it was made "
        "by shifting 'observations'; what episodes ended with is taken as unknown"
    )
    return None, doubts


def read_field(source: Source, name: str) -> tuple[Array, str]:
    """Read one field in blocks as float32 (bool for flags), with a sentence where numbers are not finite.

    Raises:
        RactdError: where it can't be read.
    """
    stored = source.fields[name]
    called = stored.stored_as or name
    dtype = np.dtype(np.bool_ if name in FLAGS else np.float32)
    rows, width = stored.shape[0], stored.shape[1] if name in MATRICES else 1
    keep = stored.array is not None and stored.array.dtype == dtype and stored.array.flags.c_contiguous
    try:
        out = stored.array.reshape(rows, width) if keep and stored.array is not None else np.empty((rows, width), dtype)
    except MemoryError as fault:
        size = rows * width * dtype.itemsize / 2**30
        what = f"field {called!r} takes {size:,.1f} GiB as {dtype}, more memory than there is"
        raise RactdError(f"{what}; keep fewer episodes, or train where it fits") from fault
    at, bad, first = 0, 0, ""
    try:
        for block in stored.blocks():
            block = np.asarray(block).reshape(-1, width)
            part = out[at : at + len(block)]
            if not keep:
                with np.errstate(over="ignore"):
                    part[:] = block
            odd = ~np.isfinite(block if name in FLAGS else part)
            if odd.any() and not first:
                row, column = np.argwhere(odd)[0]
                value = block[row, column]
                kind = "NaN" if np.isnan(value) else "too large for float32" if np.isfinite(value) else "infinite"
                first = f"row {at + row}" + (f", dimension {column}" if name in MATRICES else "") + f" is {kind}"
            bad += int(odd.sum())
            at += len(block)
    except DAMAGE as fault:
        reason = (str(fault).strip().splitlines() or [type(fault).__name__])[0]
        what = f"field {called!r} can't be read from row {at} on ({reason})"
        raise RactdError(f"{what}; the file is damaged or cut off, copy it again") from fault
    if at != rows:
        raise RactdError(f"field {called!r} ends at row {at} of {rows}; the file is cut off")
    out = out if name in MATRICES else out.reshape(rows)
    if not bad:
        return out, ""
    numbers, what = ("numbers", f"the first, {first}") if bad > 1 else ("number", first)
    return out, f"field {called!r} holds {bad:,} {numbers} not finite in float32; {what}; drop or repair those episodes"


def _implied_timeouts(terminals: Array, limit: int | None) -> Array:
    if limit is None:
        return np.zeros(len(terminals), np.bool_)
    rows = np.arange(len(terminals))
    first = np.maximum.accumulate(np.where(np.r_[True, terminals[:-1]], rows, 0))
    timeouts: Array = ((rows - first) % limit == limit - 1) & ~terminals
    return timeouts


def _as_marks(stored: Field, source: Source) -> Field:
    """Return a field with the row after each episode's last one as one with a flag a row; any other stays as it is."""
    if stored.stored_as.lower() != "episode_ends" or stored.dtype.kind not in "iu" or len(stored.shape) != 1:
        return stored
    others = (source.fields[name].shape for name in FORMS if name in source.fields)
    rows = next((shape[0] for shape in others if shape), stored.shape[0])

    def blocks() -> Iterator[Array]:
        counts = np.concatenate([np.zeros(0, stored.dtype), *stored.blocks()])
        if len(counts) == rows and np.isin(counts, (0, 1)).all():
            yield counts != 0  # flags by that name
            return
        ends = counts.astype(np.int64)
        if not len(ends) or ends[0] < 1 or ends[-1] > rows or (np.diff(ends) < 1).any():
            raise RactdError(
                f"field {stored.stored_as!r} should hold rising row numbers from 1 to {rows:,}, the row after each episode's "
                "last one; save 'terminals' and 'timeouts' (bool, one a row) instead"
            )
        marks = np.zeros(rows, np.bool_)
        marks[ends - 1] = True
        yield marks

    return Field((rows,), np.dtype(np.bool_), blocks, stored_as=stored.stored_as)

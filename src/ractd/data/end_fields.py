"""Which fields of a file say where episodes end, and why: names that other tools have, read where their meaning is clear."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from ractd.data.dataset import Bools

SUCCESSES, MARKS = "successes", "episode ends"
"""Our own names for success flags, and for marks of every episode's last row whatever ended it."""
MEANINGS: dict[str, tuple[str, ...]] = {
    "terminals": ("terminals", "terminal", "terminations", "terminated", "is_terminal"),
    "timeouts": ("timeouts", "timeout", "truncations", "truncation", "truncated", "is_truncated"),
    SUCCESSES: ("successes", "success", "is_success", "infos/is_success", "infos/success"),
    MARKS: ("is_last", "episode_terminals", "episode_ends", "dones", "done"),
}
"""What files call them: ours first, D4RL's; Gymnasium's; RLDS' is_terminal and is_last; d3rlpy's episode_terminals; the
replay buffers' episode_ends."""
MIXED = ("dones", "done")
"""Marks that environments gave before Gymnasium told a time limit from an end of its own."""
SAMPLED = 50_000
"""Steps that tell how far one goes."""
FAR = 4
"""Times the largest usual step that a reset has to go to be told from one."""
NESTED = tuple(name for names in MEANINGS.values() for name in names if "/" in name)


def names_of_ends(present: Collection[str]) -> dict[str, str]:
    """Return the names in a file by our own, of those that it has."""
    by_lower = {name.lower(): name for name in present}
    found = {}
    for ours, names in MEANINGS.items():
        there = [by_lower[name] for name in names if name in by_lower]
        if there:
            found[ours] = there[0]
    return found


def advice_without_terminals(names: Mapping[str, str]) -> str | None:
    """Return why ends are not clear without terminals and what to do, None where they are."""
    marks = names.get(MARKS)
    if marks is not None and marks.lower() in MIXED and "timeouts" not in names:
        return (
            f"{marks!r} says that an episode ended, but not whether the environment ended it or a time limit did; save the "
            "one in 'terminals' and the other in 'timeouts' (bool, one a row)"
        )
    if marks is None and not {"timeouts", SUCCESSES} <= names.keys():
        return "add it (bool of shape (N,))"
    return None


def settle_ends(
    names: Mapping[str, str], rows: int, terminals: Bools | None, timeouts: Bools | None, marks: Bools | None
) -> tuple[Bools, Bools | None]:
    """Return terminals and timeouts [N], the latter None where nothing says them; `names` is `names_of_ends` of the file."""
    if terminals is None:
        mixed = marks is not None and names[MARKS].lower() in MIXED
        terminals = marks & ~timeouts if mixed else np.zeros(rows, np.bool_)  # type: ignore[operator]
    if marks is not None:
        timeouts = (marks if timeouts is None else marks | timeouts) & ~terminals
    return terminals, timeouts


def rows_after_ends(observations: NDArray[np.float32], terminals: Bools, timeouts: Bools) -> Bools:
    """Return which rows [N] still are of an episode that a terminal before them ended, as every row near a goal in D4RL's antmaze.

    Such a row is a terminal right after another, one step away from it and not the first of an episode. A step is told from a
    reset by the dimension in which the resets at timeouts go farthest, in units of the largest usual step. Where none goes far,
    or nothing is known to be a reset, no row is.
    """
    none = np.zeros(len(terminals), np.bool_)
    inside = np.flatnonzero(~(terminals | timeouts)[:-1])
    resets = np.flatnonzero(timeouts[:-1])
    after = np.flatnonzero(terminals[1:] & terminals[:-1] & ~timeouts[:-1]) + 1
    if not (len(after) and len(inside) and len(resets)):
        return none

    def steps(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.asarray(np.abs(observations[rows + 1] - observations[rows]))

    usual = np.quantile(steps(inside[:: max(1, len(inside) // SAMPLED)]), 0.99, axis=0)
    far = np.median(steps(resets[:: max(1, len(resets) // SAMPLED)]), axis=0)
    dimension = int(np.argmax(far / np.maximum(usual, np.finfo(np.float32).tiny)))
    if far[dimension] < FAR * usual[dimension]:
        return none
    near = none.copy()
    near[after] = steps(after - 1)[:, dimension] <= 2 * usual[dimension]
    starts = np.r_[True, (terminals | timeouts)[:-1]]
    # A run of terminals is one end only if its first row was reached by a step: else these are episodes of one row.
    first_of_run = np.maximum.accumulate(np.where(near, 0, np.arange(len(terminals))))
    out: Bools = near & ~starts[first_of_run]
    return out

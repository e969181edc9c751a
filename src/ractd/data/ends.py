"""What an episode's end means: a failure, a success, or a cut that says nothing about what would have come.

A failure (a fall) leaves nothing to gain and is penalised (paper, Appendix B.2). After a success nothing is needed either, and it
is never penalised. A cut is a time limit or the end of a file. Whoever knows best says which it is: the file's success
flags, the user's `--ends`, the environment, and else the data themselves.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ractd.data.dataset import OfflineDataset

Kind = Literal["failure", "success", "cut", "unclear"]
KINDS: tuple[Kind, ...] = ("failure", "success", "cut", "unclear")
"""`unclear` is an end by the environment of which nobody says what it means: no value from then on, and no penalty."""

FALLS = re.compile(r"(Hopper|Walker2d|Ant|Humanoid|Inverted(Double)?Pendulum)-v\d+")
"""Gymnasium's robots whose environment ends an episode when they fall, and for nothing else."""
BONUS_QUANTILE, PENALTY_QUANTILE = 0.99, 0.01
"""Of the other rows' rewards: a typical reward at terminals beyond these is a bonus, or a penalty."""
MOSTLY = 0.75
"""Share of pairs in which one kind of episode has the larger return, from which on that tells them apart."""
FEWEST = 3
"""Episodes of each kind that a comparison needs."""


@dataclass(frozen=True, eq=False)
class EpisodeEnds:
    """How each episode of a dataset ends."""

    kinds: NDArray[np.int8]
    """Position in `KINDS` of each episode's end, [E]."""
    source: str
    """Who says what the terminals mean, as half a sentence; empty where there is none."""

    def are(self, kind: Kind) -> NDArray[np.bool_]:
        """Return which episodes end so, [E]."""
        found: NDArray[np.bool_] = self.kinds == KINDS.index(kind)
        return found

    @property
    def counts(self) -> dict[Kind, int]:
        """Return the number of episodes by the kind of their end, of the kinds that occur."""
        found = Counter(self.kinds.tolist())
        return {kind: found[i] for i, kind in enumerate(KINDS) if found[i]}


def episode_ends(dataset: OfflineDataset) -> EpisodeEnds:
    """Return how each episode ends; in order of trust: success flags, `terminals_mean`, the environment, the data."""
    last = dataset.episode_ends - 1
    terminal = dataset.terminals[last]
    kinds = np.full(len(last), KINDS.index("cut"), np.int8)
    succeeded = np.zeros(len(last), np.bool_)
    kind: Kind = "failure"
    if dataset.successes is not None and dataset.successes.any():
        source, succeeded = "the success flags say so", dataset.successes[last]
    elif dataset.terminals_mean is not None:
        kind, source = dataset.terminals_mean, "as was said with --ends"
    elif FALLS.fullmatch(dataset.env_id or ""):
        source = f"{dataset.env_id} ends an episode when its robot falls"
    else:
        kind, source = kind_by_data(dataset)
    kinds[terminal] = KINDS.index(kind)
    kinds[succeeded] = KINDS.index("success")
    return EpisodeEnds(kinds, source if terminal.any() or succeeded.any() else "")


def kind_by_data(dataset: OfflineDataset) -> tuple[Kind, str]:
    """Return what terminals seem to mean by rewards and returns alone, and why; `unclear` where these don't agree.

    Two things are looked at: the typical reward on terminal rows among those of the other rows, and the returns of the
    episodes that end so against the rest (by the share of pairs, the Mann-Whitney statistic).
    """
    last = dataset.episode_ends - 1
    terminal = dataset.terminals[last]
    if not terminal.any():
        return "unclear", ""
    lengths = dataset.episode_lengths
    longest = int(lengths.max())
    if terminal.sum() >= FEWEST and longest > 1 and (lengths[terminal] == longest).all():
        return "cut", f"all of them come after exactly {longest:,} steps, as a time limit's do"
    verdicts = [found for found in (kind_by_rewards(dataset), kind_by_returns(dataset, terminal)) if found]
    if not verdicts:
        return "unclear", "neither rewards nor returns tell"
    if len({kind for kind, _ in verdicts}) > 1:
        return "unclear", f"the data contradict themselves: {' but '.join(why for _, why in verdicts)}"
    return verdicts[0][0], " and ".join(why for _, why in verdicts)


def kind_by_rewards(dataset: OfflineDataset) -> tuple[Kind, str] | None:
    """Return what the rewards of terminal rows say, beside those of the other rows, and how; None where they say nothing."""
    others = dataset.rewards[~dataset.terminals]
    if not len(others) or not dataset.terminals.any():
        return None
    typical = float(np.median(dataset.rewards[dataset.terminals]))
    low, high = (float(np.quantile(others, q)) for q in (PENALTY_QUANTILE, BONUS_QUANTILE))
    if typical > high:
        return "success", f"terminal rows are paid {typical:.4g}, more than nearly all others"
    if typical < low:
        return "failure", f"terminal rows are paid {typical:.4g}, less than nearly all others"
    return None


def kind_by_returns(dataset: OfflineDataset, terminal: NDArray[np.bool_]) -> tuple[Kind, str] | None:
    """Return what the returns of episodes that `terminal` [E] ended say, beside the others', and how; None for nothing."""
    if min(terminal.sum(), (~terminal).sum()) < FEWEST:
        return None
    returns = dataset.episode_returns()
    ended, rest = returns[terminal], np.sort(returns[~terminal])
    below, up_to = (np.searchsorted(rest, ended, side=side) for side in ("left", "right"))
    share = float(
        (below + up_to).mean() / (2 * len(rest))
    )  # of pairs in which the ended episode has more; ties are halves
    if share < 1 - MOSTLY:
        return "failure", f"episodes that end so have less than the others in {1 - share:.0%} of pairs"
    if share > MOSTLY:
        return "success", f"episodes that end so have more than the others in {share:.0%} of pairs"
    return None

"""What is doubtful about what ends are taken to mean, and about returns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ractd.data.dataset import OfflineDataset
from ractd.data.ends import FEWEST, reward_verdict
from ractd.data.fields import Finding
from ractd.data.returns import resolved_penalty
from ractd.data.rewards import is_maze

LARGEST_RETURN = 1e30
"""Of an episode: squared errors of larger ones overflow once they are scaled."""


def told_of_ends(data: OfflineDataset, penalty: float) -> str:
    """Return in a sentence how episodes end, who says so, and what a failure costs."""
    ends, parts = data.ends, []
    for kind, count in ends.counts.items():
        episodes = f"{count:,} episode{'s' if count > 1 else ''}"
        verb = "" if count > 1 else "s"
        if kind == "failure":
            spread = float(data.episode_returns().std())
            share = f", {abs(penalty) / spread:.2g} of the returns' standard deviation" if spread and penalty else ""
            cost = f"{penalty:+g} at each{share}" if penalty else "no penalty"
            parts.append(f"{episodes} end{verb} by a failure: {cost}")
        elif kind == "success":
            parts.append(f"{episodes} end{verb} by a success: no penalty")
        elif kind == "unclear":
            parts.append(f"{episodes} end{verb} by a terminal that may be either: no penalty")
        else:
            parts.append(f"{episodes} {'are' if count > 1 else 'is'} cut")
    return "; ".join(parts) + (f" ({ends.source})" if ends.source else "")


def check_ends(data: OfflineDataset, where: str) -> Iterator[Finding]:
    """Yield what is doubtful about what the terminals are taken to mean."""
    ends, lengths = data.ends, data.episode_lengths
    terminal = data.terminals[data.episode_ends - 1]
    count = int(terminal.sum())
    say = "say what they are with --ends failure or --ends success"
    if ends.are("unclear").any():
        yield Finding(
            "warning",
            f"{where}: whether the {count:,} terminals are failures or successes can't be told ({ends.source}), so no penalty is "
            f"applied; {say}",
        )
    elif count and ends.are("cut")[terminal].any():
        yield Finding(
            "warning",
            f"{where}: the {count:,} terminals are taken for a time limit: {ends.source}; mark them in 'timeouts', or {say}",
        )
    elif count:
        at_limit = terminal & (lengths == lengths.max())
        if at_limit.sum() >= FEWEST and at_limit.sum() < count:
            yield Finding(
                "warning",
                f"{where}: {at_limit.sum():,} of {count:,} terminals come after exactly {lengths.max():,} steps, the most "
                "there are; if a time limit ended those episodes, mark them in 'timeouts' instead",
            )
        paid = reward_verdict(data)
        if paid is not None and not ends.are(paid[0])[terminal].any():
            taken = "failures" if ends.are("failure").any() else "successes"
            yield Finding(
                "warning", f"{where}: terminals are taken for {taken} ({ends.source}), and yet {paid[1]}; {say}"
            )


def check_returns(data: OfflineDataset, where: str, asked: float | None) -> Iterator[Finding]:
    """Yield returns that can't be computed with, don't differ, or spread less than a failure costs: as `asked`, or by default."""
    if not data.has_rewards:
        return
    episodes = np.add.reduceat(np.abs(data.rewards), data.episode_starts, dtype=np.float64)
    if episodes.max() > LARGEST_RETURN:
        yield Finding(
            "error",
            f"{where}: episode {episodes.argmax():,} has rewards of {episodes.max():.3g} in all, more than float32 can be trained "
            f"with ({LARGEST_RETURN:g}); scale the rewards down",
        )
        return
    returns = data.episode_returns()
    spread = float(returns.std())
    paid_at_goals = is_maze(data.env_id)
    if data.num_episodes > 1 and spread <= 1e-6 * np.abs(returns).max() and not paid_at_goals:
        yield Finding(
            "error",
            f"{where}: all {data.num_episodes:,} episodes have the same return, {returns[0]:g}, so rewards don't tell which "
            "is better; give rewards that do, imitate with --reward-weight 0, or learn how soon rewards come; either with "
            "--accept equal-returns",
            "equal-returns",
        )
    penalty = resolved_penalty(data, asked)
    if data.num_episodes > 1 and data.ends.are("failure").any() and abs(penalty) > spread:
        yield Finding(
            "warning",
            f"{where}: a failure costs {abs(penalty):g}, more than the returns' spread of {spread:.3g}, so returns "
            "will mostly say whether an episode failed; --return-model.termination-penalty sets another",
        )

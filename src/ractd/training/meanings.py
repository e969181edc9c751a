"""What a metric is called where people read it, and what it means that it rises or falls: that of the whole training room."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Meaning:
    """A metric, or a stage, in plain words."""

    title: str
    text: str = ""
    """A line on what rising or falling means."""
    aside: bool = False
    """Shown only when it is asked for: it says how training runs, not what it lowers."""


MEANINGS = {
    "loss": Meaning("Loss", "What the optimiser lowers. It says how training goes, not how good the policy is."),
    "gradient_norm": Meaning(
        "Size of the gradient", "Before clipping. A lasting rise says that the learning rate is too high.", True
    ),
    "learning_rate": Meaning("Learning rate", "Rises for the warm-up, then falls to zero.", True),
    "samples_per_second": Meaning("Samples a second", "A fall says that the machine had something else to do.", True),
    "return_mse": Meaning(
        "Error of the estimate",
        "Squared, on the data that it learns from. It should fall; for returns, 1 is no better than always saying the mean.",
    ),
    "td_error": Meaning(
        "Temporal difference",
        "Squared, between a value and the rewards with the value after them. It grows with what values have to tell apart.",
    ),
    "validation_mse": Meaning(
        "Error on held-out episodes",
        "Where it rises again the model learns single episodes by heart; of returns-to-go the weights of the lowest are kept.",
    ),
    "confirmed_return": Meaning(
        "Confirmed return",
        "Mean return of a checkpoint that looked best, played again at length. Higher is better.",
        True,
    ),
    "confirmed_return_se": Meaning("Standard error of the confirmed return", "", True),
    "watch_out_of_bounds": Meaning(
        "Watch: out of bounds",
        "Share of action entries beyond the data's range. More than 0.1 looks like collapse.",
        True,
    ),
    "watch_teacher_distance": Meaning(
        "Watch: distance to the teacher",
        "From one-step samples to the nearest of the teacher's, in distances among those. More than 3 looks like collapse.",
        True,
    ),
    "watch_promise": Meaning(
        "Watch: promised return",
        "Its estimate beside the data's largest return. Above 1 it promises what was never seen.",
        True,
    ),
}
"""By name, as it is logged; in a stage of several networks after the name of its update and a slash."""

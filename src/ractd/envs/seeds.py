"""What environment seeds are for: an episode that scores a policy is none that made its data, and none that it was chosen by.

Each purpose has a range of its own, `SPAN` seeds from its first on. EnvPool's seeds are int32: all of them are below 2^31.
"""

SPAN = 100_000_000

FINAL = 0
"""Final evaluations."""
CHECKPOINT = SPAN
"""Evaluations during training."""
CONFIRMATION = 2 * SPAN
"""Those that confirm a best checkpoint: the best of many short evaluations is often one that was lucky."""
DATA = 10 * SPAN
"""Episodes of datasets that are made or collected."""
BEHAVIOR = 11 * SPAN
"""Episodes by which the policies of a collected dataset are chosen."""


def environment_seed(seed: int, purpose: int = FINAL) -> int:
    """Return the seed of the first environment that a run or a dataset has for a purpose: 1,000 from that of the next `seed`."""
    return purpose + 1_000 * seed % SPAN

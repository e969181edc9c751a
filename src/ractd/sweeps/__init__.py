"""Many `ractd` commands as one: run side by side, retried, continued, and compared over their seeds.

`run_trials(trials, logs)` is the engine; `ractd sweep` builds its trials from datasets, settings and seeds.
"""

from ractd.sweeps.trials import Outcome, Trial, run_trials

__all__ = ["Outcome", "Trial", "run_trials"]

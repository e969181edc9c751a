"""Training what a sequence needs to become actions."""

from __future__ import annotations

from ractd.training.loop import averaged_copy
from ractd.training.run import Run


def train_decoder(run: Run) -> None:
    """Train what the run's sequences need to become actions, a planner's inverse dynamics, where they need anything."""
    if run.sequence.decoder_stage is None:
        return
    run.seed_weights(run.sequence.decoder_stage)
    learnt = run.sequence.learnt_decoder(run.samples)
    average = averaged_copy(learnt.network)
    run.train(run.stage(run.sequence.decoder_stage, learnt.objective, average, learnt.optimization))
    run.sequence.use_decoder(average)

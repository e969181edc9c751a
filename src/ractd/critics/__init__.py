"""What sequences are worth: one object with one call, `value`. A kind of critic is a file and a line in `CRITICS`."""

from __future__ import annotations

from ractd.critics.critic import Critic, CriticPart, critic_class, differentiated, pessimistic, without_gradient

__all__ = ["Critic", "CriticPart", "critic_class", "differentiated", "pessimistic", "without_gradient"]

"""What x is: the sequences that a network makes, and what they stand for. A kind is a file and a line in `settings.SEQUENCES`."""

from __future__ import annotations

from ractd.sequences.sequence import Samples, Sequence, SequencePart, sequence_class

__all__ = ["Samples", "Sequence", "SequencePart", "sequence_class"]

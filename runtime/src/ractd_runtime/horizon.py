"""Receding horizon: execute m actions of a sequence, then the next sequence's, counted from its own observation."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class RecedingHorizon:
    """The running sequence `[..., c, A]` and the tick it was observed at; one tick is one executed action.

    Action k of a sequence belongs to the k-th tick after its observation, so a sequence that arrives late is entered
    where it belongs by then.
    """

    def __init__(self, execute: int) -> None:
        self.execute = execute
        """Actions to execute before the next sequence is asked for (m)."""
        self.tick = 0
        """Actions given out."""
        self.held = 0
        """Actions given out again because the sequence had ended."""
        self._chunk: Floats | None = None
        self._origin = 0

    @property
    def empty(self) -> bool:
        """True where there is no running sequence."""
        return self._chunk is None

    @property
    def age(self) -> int:
        """Ticks since the running sequence was observed."""
        return self.tick - self._origin

    @property
    def due(self) -> bool:
        """True where it is time to plan again."""
        return self._chunk is None or self.age >= self.execute

    @property
    def dry(self) -> bool:
        """True where the running sequence has no action for this tick."""
        return self._chunk is None or self.age >= self._chunk.shape[-2]

    @property
    def last(self) -> bool:
        """True where this tick's action is the running sequence's last."""
        return self._chunk is not None and self.age == self._chunk.shape[-2] - 1

    def adopt(self, chunk: Floats, origin: int) -> None:
        """Go on with a sequence that was observed at tick `origin`."""
        self._chunk, self._origin = chunk, origin

    def next(self) -> Floats:
        """Return this tick's action `[..., A]` and go to the next; past the end the last action is held and counted."""
        assert self._chunk is not None, "there is no sequence yet"
        last = self._chunk.shape[-2] - 1
        self.held += self.age > last
        action: Floats = self._chunk[..., min(self.age, last), :]
        self.tick += 1
        return action

    def clear(self) -> None:
        """Forget the running sequence."""
        self._chunk = None


class Worker:
    """One thread that does one thing at a time; it dies with the program."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self._finished = Event()
        self._result: Any = None
        self._error: BaseException | None = None
        self.busy = False
        """True from `start` until `take`."""
        Thread(target=self._loop, name="ractd-runtime", daemon=True).start()

    def _loop(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                self._result, self._error = job(), None
            except BaseException as error:  # it belongs to whoever asks for the result
                self._result, self._error = None, error
            del job  # or the idle thread keeps the engine of a policy that is gone
            self._finished.set()

    def start(self, job: Callable[[], Any]) -> None:
        """Begin a job; there must be none under way."""
        assert not self.busy
        self.busy = True
        self._finished.clear()
        self._jobs.put(job)

    def wait(self, seconds: float | None) -> bool:
        """Wait at most so long for the job; True once it is finished."""
        return self._finished.wait(seconds)

    def take(self) -> Any:
        """Return the finished job's result, or raise its error."""
        self._finished.wait()
        self.busy = False
        if self._error is not None:
            raise self._error
        return self._result

    def drop(self) -> None:
        """Wait for the job under way, if there is one, and forget how it ended."""
        if self.busy:
            self._finished.wait()
            self.busy = False


class History:
    """The last h observations as a policy takes them; the first is repeated until there are as many."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._rows: NDArray[Any] | None = None

    def add(self, observation: NDArray[Any]) -> NDArray[Any]:
        """Return `[O]` for h = 1, else `[h, O]`, oldest first."""
        if self.length == 1:
            return observation
        if self._rows is None:
            self._rows = np.repeat(observation[None], self.length, 0)
        else:
            self._rows = np.concatenate([self._rows[1:], observation[None]])
        return self._rows

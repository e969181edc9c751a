"""The policy on the robot: observation in, action out, in microseconds and on time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ractd_runtime.contract import Contract
from ractd_runtime.engines import Buffers, Engine, make_buffers, open_engine
from ractd_runtime.errors import RactdError
from ractd_runtime.horizon import RecedingHorizon, Worker
from ractd_runtime.observation import ObservationCheck
from ractd_runtime.past import Past

Floats = NDArray[np.float32]
MAX_BUFFERS = 64
"""Batch sizes whose buffers are kept, as many as a server's batches have. Making them anew costs a small network a tenth
of its time, padding to powers of two costs it a fifth; keeping all costs 1 MB (91 MB for OpenVINO's U-Net)."""
WARM_UP = 5
"""Runs at load: the first ones allocate."""


class Policy:
    """An exported policy with the interface of `ractd.Policy`.

    `act` and `act_chunk` take one observation `[O]`, a batch `[B, O]`, or histories `[h, O]`, `[B, h, O]` where h > 1.
    Same seed, same actions: noise comes from the policy's own generator, see `reset`. Not for several threads at once.
    """

    def __init__(
        self, contract: Contract, engine: Engine, *, execute: int | None = None, background: bool = False
    ) -> None:
        execute = contract.execute if execute is None else execute
        if not 1 <= execute <= contract.horizon:
            raise RactdError(f"execute is {execute}, expected 1 to {contract.horizon}, the policy's horizon")
        self.contract = contract
        self.late = 0
        """Calls of `act` since `reset` whose model missed the deadline."""
        self.queue = RecedingHorizon(execute)
        self._engine, self._background = engine, background
        self._buffers: dict[int, Buffers] = {}
        self._check = ObservationCheck(contract)
        self._past_steps = contract.past_steps
        self._worker: Worker | None = None
        self._origin, self._key = 0, (0, True)
        self._generator = np.random.default_rng(0)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        threads: int = 1,
        spin: bool = False,
        execute: int | None = None,
        background: bool = False,
    ) -> Policy:
        """Open what `ractd export` wrote, and run it a few times so that the first call is as fast as the others.

        `threads` compute (one is the steadiest for small networks), `spin` keeps them awake between calls at the price of a
        core. `execute` is how many actions of a sequence are executed (by default the contract's advice); `background`
        computes the next sequence in a thread of its own while the rest of the running one is executed.

        Raises `RactdError` for a missing, damaged, changed or newer file.
        """
        if threads < 1:
            raise RactdError(f"threads is {threads}, expected at least 1")
        contract = Contract.read(directory)
        policy = cls(contract, open_engine(contract, threads, spin), execute=execute, background=background)
        try:
            buffers = policy._buffers_of(1)
            for _ in range(WARM_UP):
                buffers.run()
        except Exception as error:
            raise RactdError(f"{contract.path}: doesn't fit its graph ({str(error).strip()[:300]})") from None
        return policy

    @property
    def held(self) -> int:
        """Actions since `reset` that were repeated because the sequence had ended before the model answered."""
        return self.queue.held

    @property
    def out_of_range(self) -> int:
        """Calls since `reset` whose observation was warned about, or would have been again."""
        return self._check.count

    def reset(self, seed: int = 0) -> Self:
        """Begin an episode: restart the noise from a seed, forget the running sequence and what was counted.

        Raises `RactdError` for a seed below 0.
        """
        if seed < 0:
            raise RactdError(f"seed is {seed}, expected 0 or more")
        self._settle()
        self._generator = np.random.default_rng(seed)
        self.queue = RecedingHorizon(self.queue.execute)
        self._check.reset()
        self.late = 0
        return self

    def draw_noise(self, batch: int) -> Floats:
        """Return the standard normal draws of one call, [B, draws, N, c, A]; draws is 0 for a graph without noise."""
        return self._generator.standard_normal((batch, *self.contract.noise_shape), np.float32)

    def sample(self, observations: Floats, noise: Floats, past: Past | None = None) -> Floats:
        """Return action sequences [B, c, A] for observations [B, h, O] and noise [B, draws, N, c, A]: a pure function of them.

        Raises:
            RactdError: The actions are not finite, or the policy needs to know the past and it isn't given.
        """
        self._settle()
        buffers = self._buffers_of(len(observations))
        np.copyto(buffers.inputs["observation"], observations)
        if "noise" in buffers.inputs:
            np.copyto(buffers.inputs["noise"], noise)
        if self._past_steps:
            _tell_past(buffers, past)
        return _run(buffers)

    def act_chunk(self, observation: Any, *, past_actions: Any = None, past_rewards: Any = None) -> Floats:
        """Return the next c actions, [c, A] or [B, c, A], computed now.

        `past_actions` [t, A] and `past_rewards` [t] ([B, t, A] and [B, t] for a batch) are those of all t steps of the
        episode so far. Only a policy whose contract names them needs them; others ignore them.

        Raises:
            RactdError: The observation or the past is wrong or missing. Of a doubtful observation it warns, as the contract
                says.
        """
        self._settle()
        array, single = self._check.array(observation)
        past = self._past(array, single, past_actions, past_rewards) if self._past_steps else None
        actions = self._prepare(array, past)()
        return actions[0] if single else actions  # type: ignore[no-any-return]

    def act(
        self, observation: Any, deadline_ms: float | None = None, *, past_actions: Any = None, past_rewards: Any = None
    ) -> Floats:
        """Return the action to execute now, `[A]` or `[B, A]`.

        m actions of a sequence are executed before the next is computed. With a deadline, `act` returns by then: where the
        model is late, with the running sequence's next action (counted in `late`), or, where it has ended, with its last one
        (counted in `held`); the model's answer is used as soon as it is there, from the action that is due by then. Only the
        first call waits however long it takes. `past_actions` and `past_rewards` as for `act_chunk`. Raises `RactdError` as
        `act_chunk` does.
        """
        start = time.perf_counter()
        array, single = self._check.array(observation)
        queue = self.queue
        if self._key != (len(array), single):  # other rows: their sequence is none of the running one's
            self._settle()
            queue.clear()
            self._key = len(array), single
        past = self._past(array, single, past_actions, past_rewards) if self._past_steps else None
        if deadline_ms is None and not self._background:
            self._collect()
            if queue.due:
                self._settle()
                queue.adopt(self._prepare(array, past)(), queue.tick)
        else:
            self._plan(array, past, math.inf if deadline_ms is None else start + deadline_ms / 1e3)
        action = queue.next()
        # A copy: callers keep actions, and a view would keep the whole sequence.
        return action[0].copy() if single else action.copy()

    def _plan(self, array: NDArray[Any], past: Past | None, deadline: float) -> None:
        """Bring the queue up to date by the deadline, with the model in a thread of its own."""
        queue, background = self.queue, self._background
        worker = self._worker = self._worker or Worker()
        self._collect()
        # The running sequence's last action is the last chance to have the next one when it ends.
        if (queue.due or (background and queue.last)) and not worker.busy:
            self._origin = queue.tick
            worker.start(self._prepare(array, past))
        if worker.busy and (queue.dry or not background):
            remaining = None if deadline == math.inf else max(0.0, deadline - time.perf_counter())
            if not worker.wait(remaining):
                self.late += 1
                if queue.empty:
                    worker.wait(None)
            self._collect()

    def _collect(self) -> None:
        """Adopt the sequence that the worker has finished, if it has."""
        if self._worker is not None and self._worker.busy and self._worker.wait(0):
            self.queue.adopt(self._worker.take(), self._origin)

    def _settle(self) -> None:
        """Let a computation that is under way end unused: its buffers are needed."""
        if self._worker is not None:
            self._worker.drop()

    def _past(self, array: NDArray[Any], single: bool, past_actions: Any, past_rewards: Any) -> Past:
        batch = None if single else len(array)
        return Past.of(past_actions, past_rewards, self._past_steps, self.contract.action_dim, batch)

    def _prepare(self, array: NDArray[Any], past: Past | None) -> Callable[[], Floats]:
        """Check observations [B, h, O], fill the buffers, and return what computes their sequences."""
        buffers = self._buffers_of(len(array))
        observation = buffers.inputs["observation"]
        np.copyto(observation, array, casting="same_kind")
        self._check(observation)
        if self._past_steps:
            _tell_past(buffers, past)
        noise = buffers.inputs.get("noise")
        if noise is not None:
            self._generator.standard_normal(dtype=np.float32, out=noise)
        return lambda: _run(buffers)

    def _buffers_of(self, batch: int) -> Buffers:
        buffers = self._buffers.pop(batch, None) or make_buffers(self._engine, self.contract, batch)
        if len(self._buffers) >= MAX_BUFFERS:
            self._buffers.pop(next(iter(self._buffers)))
        self._buffers[batch] = buffers  # the last is the one that was used last
        return buffers


def _tell_past(buffers: Buffers, past: Past | None) -> None:
    if past is None:
        raise RactdError("the policy needs to know the past of its episodes, and it was not given")
    for name, values in past.inputs().items():
        if name in buffers.inputs:
            np.copyto(buffers.inputs[name], values)


def _run(buffers: Buffers) -> Floats:
    buffers.run()
    # A sum is finite if and only if everything in it is: actions are clipped, so it can't overflow.
    if not math.isfinite(np.add.reduce(buffers.actions, axis=None)):
        raise RactdError(
            "the policy gave NaN or infinite actions; the observation or the graph is not what it was made for"
        )
    return buffers.actions.copy()

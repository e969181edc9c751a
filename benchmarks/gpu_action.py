"""Milliseconds of an action on a GPU, by every engine that PyTorch has: a section of `gpu.py`.

A call is from an observation in host memory to actions in host memory, so that the device is done when it ends; its noise is
drawn in it. Networks have the weights that they begin training with: what an action costs does not depend on them.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from gpu_sections import Keep, Memory, Work, attempt, sentence
from inference import latencies, observations, untrained
from numpy.typing import NDArray
from torch import Tensor, nn

from ractd.diffusion.edm import sigma_schedule
from ractd.diffusion.samplers import few_step, heun, to_clean
from ractd.diffusion.settings import Diffusion
from ractd.export.graph import PolicyGraph
from ractd.policies import Policy
from ractd.runs.latency import time_in_turns

GOAL = 142.0
"""The paper's ratio of the 80-bin teacher to one step, on the same network."""
NO_GRAPHS = "skipped: CUDA graphs need a CUDA device"
BATCHES, FEW_BATCHES = (1, 32, 256), (1, 4)
"""Of an action, and of one that is tried."""
TURNS, COMPILED_TURNS = 0.1, 0.03
"""Of the section's time, for each batch size: the turns of engines and teachers, and those of what is compiled."""

Sample = Callable[[Tensor, Tensor], Tensor]
"""`Policy.sample`: raw observations `[B, h, O]` and noise `[draws, B, c, A]` to raw actions `[B, c, A]`."""


def with_fixed_levels(graph: PolicyGraph) -> Sample:
    """`Policy.sample` with its noise levels on the device beforehand: a CUDA graph may hold no copy from the host.

    It is for one step of a student and for Heun's bins of a teacher.
    """
    policy, sampling, sequence = graph.policy, graph.policy.sampling, graph.policy.sequence
    diffusion = cast(Diffusion, sampling.schedule)
    levels = torch.tensor([diffusion.sigma_max]) if sampling.jumps else sigma_schedule(diffusion, sampling.steps)
    sigmas = levels.to(policy.device)

    def sample(observations: Tensor, noise: Tensor) -> Tensor:
        condition, model = sequence.condition(observations), policy.model()
        if sampling.jumps:
            x = few_step(to_clean(model), noise, sigmas, condition)
        else:
            x = heun(model, sigmas[0] * noise[0], sigmas, condition)
        return sequence.to_actions(x, observations)

    return sample


class InBfloat16(nn.Module):
    """A denoiser with weights and arithmetic in bfloat16, between sequences in float32."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser.bfloat16()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return cast(Tensor, self.denoiser(x.bfloat16(), condition.bfloat16())).float()


def in_bfloat16(graph: PolicyGraph) -> PolicyGraph:
    """A copy whose denoisers compute in bfloat16."""
    graph = copy.deepcopy(graph)
    graph.policy.evaluated = nn.ModuleList(map(InBfloat16, graph.policy.evaluated))
    return graph


class Replayed:
    """A sampling captured as one CUDA graph: an action is two copies and one launch."""

    def __init__(self, sample: Sample, observation: Tensor, noise: Tensor) -> None:
        self.observation, self.noise = observation.clone(), noise.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries choose and allocate what a capture may not
            for _ in range(2):
                sample(self.observation, self.noise)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.actions = sample(self.observation, self.noise)

    def __call__(self, observation: Tensor, noise: Tensor) -> Tensor:
        self.observation.copy_(observation)
        self.noise.copy_(noise)
        self.graph.replay()
        return self.actions


class Action:
    """One call from an observation in host memory to actions in host memory, its noise drawn in between."""

    def __init__(self, policy: Policy, batch: int) -> None:
        self.policy, self.batch, self.device = policy, batch, policy.device
        shape = (batch, policy.sequence.history, policy.sequence.observation_dim)
        self.observation = torch.from_numpy(observations(policy, batch)).view(shape)

    def inputs(self) -> tuple[Tensor, Tensor]:
        """An observation and noise on the device."""
        return self.observation.to(self.device), self.policy.draw_noise(self.batch)

    def call(self, sample: Sample) -> Callable[[], NDArray[np.float32]]:
        """What is timed."""

        @torch.inference_mode()
        def act() -> NDArray[np.float32]:
            return sample(*self.inputs()).cpu().numpy()

        return act

    def actions(self, sample: Sample) -> NDArray[np.float32]:
        """Actions of always the same noise."""
        self.policy.reset(0)
        return self.call(sample)()


def action(work: Work, keep: Keep, seconds: float) -> None:
    """Time one step and the teacher of all bins on the same network; last what is compiled, which may take long."""
    keep("goal", GOAL)
    keep("teacher_bins", work.config.diffusion.bins)
    student, teacher = (untrained(work.config, jumps, folded=False).to(work.device) for jumps in (True, False))
    folded, batches = copy.deepcopy(student).fold(), FEW_BATCHES if work.tiny else BATCHES
    for batch in batches:
        beside = teacher if batch == 1 else None
        attempt(keep, f"batch {batch}", partial(engines, work, student, folded, beside, batch, TURNS * seconds))
    mode, backend = ("default", "aot_eager") if work.tiny else ("reduce-overhead", "inductor")
    keep("torch.compile", {"mode": mode, "backend": backend})
    for batch in batches:
        measure = partial(compiled, student, folded, batch, mode, backend, COMPILED_TURNS * seconds)
        attempt(keep, f"torch.compile, batch {batch}", measure)


def graphs(work: Work, action: Action, samples: Mapping[str, Sample], said: dict[str, str]) -> dict[str, Sample]:
    """Capture each of them, from the inputs of an action; `said` gets one sentence where that can't be."""
    captured: dict[str, Sample] = {}
    for name, sample in samples.items():
        if work.device == "cpu":
            said[name] = NO_GRAPHS
            continue
        try:
            with torch.inference_mode():
                captured[name] = Replayed(sample, *action.inputs())
        except Exception as error:
            said[name] = sentence(error)
    return captured


def engines(
    work: Work, student: Policy, folded: Policy, teacher: Policy | None, batch: int, seconds: float
) -> dict[str, Any]:
    """Time the student's engines in turns, with the teacher's where there is one; ratios are of the same turns."""
    memory, said = Memory(work), dict[str, str]()
    calls: dict[str, Callable[[], object]] = {}
    differences: dict[str, float] = {}

    def add(action: Action, samples: Mapping[str, Sample], right: Sample) -> None:
        actions = action.actions(right)
        for name, sample in samples.items():
            calls[name] = action.call(sample)
            differences[name] = float(np.abs(action.actions(sample) - actions).max())

    graph, of_student = PolicyGraph(folded), Action(student, batch)
    fixed, low = with_fixed_levels(graph), with_fixed_levels(in_bfloat16(graph))
    captured = graphs(work, of_student, {"CUDA graph": fixed, "CUDA graph, bf16": low}, said)
    uncaptured = {"eager": student.sample, "folded": folded.sample, "fixed levels": fixed, "fixed levels, bf16": low}
    add(of_student, uncaptured | captured, student.sample)
    pairs = {}
    if teacher is not None:
        of_teacher, fixed = Action(teacher, batch), with_fixed_levels(PolicyGraph(teacher))
        captured = graphs(work, of_teacher, {"teacher, CUDA graph": fixed}, said)
        add(of_teacher, {"teacher": teacher.sample, "teacher, fixed levels": fixed} | captured, teacher.sample)
        pairs = {"eager": "teacher", "folded": "teacher", "fixed levels": "teacher, fixed levels"}
        pairs["CUDA graph"] = "teacher, CUDA graph"
    times, load = time_in_turns(calls, seconds)
    medians = {name: statistics.median(each) for name, each in times.items()}
    return {
        "evaluations": student.evaluations,
        "teacher_evaluations": None if teacher is None else teacher.evaluations,
        "ms": {name: latencies(each, batch) for name, each in times.items()},
        "ratio": {
            fast: medians[slow] / medians[fast] for fast, slow in pairs.items() if {fast, slow} <= medians.keys()
        },
        "largest_difference_from_eager": differences,
        "not_captured": said,
        "load": load.to_dict(),
        **memory.peak(),
    }


def compiled(student: Policy, folded: Policy, batch: int, mode: str, backend: str, seconds: float) -> dict[str, Any]:
    """Compile the folded student for one batch size and time it in turns with what it was made of."""
    torch._dynamo.reset()
    action, fixed = Action(student, batch), with_fixed_levels(PolicyGraph(folded))
    made = torch.compile(fixed, backend=backend, mode=None if mode == "default" else mode, dynamic=False)
    start = time.perf_counter()
    found = action.actions(made)
    began = time.perf_counter() - start
    times, load = time_in_turns({"fixed levels": action.call(fixed), "compiled": action.call(made)}, seconds)
    return {
        "compile_seconds": began,
        "ms": {name: latencies(each, batch) for name, each in times.items()},
        "largest_difference_from_eager": float(np.abs(found - action.actions(student.sample)).max()),
        "load": load.to_dict(),
    }

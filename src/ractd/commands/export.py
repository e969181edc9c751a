"""`ractd export`. Heavy imports wait until it runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ractd.commands.consoles import out, say
from ractd.commands.parsing import read


@dataclass
class Export:
    """Write a policy as one graph that runs without PyTorch, with its contract, verified before it appears.

    Open it with ractd_runtime.Policy.load(DIR). Needs the extra 'export': pip install "ractd[export]".
    """

    source: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run or policy directory."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="DIR")]
    """Directory of the graph and its policy.json."""
    format: Literal["onnx", "openvino", "pt2"] = "onnx"
    """ONNX Runtime (fastest for MLPs), OpenVINO (fastest for U-Nets on CPUs), or torch.export's archive for C++."""
    sampler: str | None = None
    """Way of sampling, of those that 'ractd eval' knows; by default the policy's own."""
    steps: int | None = None
    """Sampling steps: 1 is one network evaluation for a student."""
    candidates: int | None = None
    """Sequences drawn for each observation, of which the return model's favourite is given."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Of the weights: fp16 halves the file, int8 is faster for MLPs; both change the actions a little."""
    policy: str | None = None
    """Which of the run's policies, by default its main one."""
    check_episodes: int = 0
    """Also score PyTorch and the graph for so many episodes."""
    dataset: str | None = None
    """The data that the policy was trained on, where it is not where it was."""

    def run(self) -> None:
        from ractd.export import export_policy
        from ractd.export.report import summary

        exported = export_policy(
            self.source,
            self.out,
            policy=self.policy,
            format=self.format,
            precision=self.precision,
            sampler=self.sampler,
            steps=self.steps,
            candidates=self.candidates,
            dataset=self.dataset,
            check_episodes=self.check_episodes,
            console=out,
        )
        say(summary(exported))


parse = partial(read, Export, "export")

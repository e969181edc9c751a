"""The paper's tables and figures by name: title, datasets, columns, and the comparisons that the paper makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ractd.report.plots import Figure
from ractd.reproduce import experiments, paper
from ractd.reproduce.claims import ALIKE_SHARE, MORE, TIMES, Claim
from ractd.reproduce.diversity import CELLS, DRAWS, STATES
from ractd.reproduce.experiments import (
    AGNOSTIC_DIFFUSION,
    AGNOSTIC_STUDENT,
    AWARE_DIFFUSION,
    AWARE_STUDENT,
    DATA,
    Rows,
    weight_name,
)
from ractd.reproduce.figures import histograms, training_curves
from ractd.reproduce.layout import (
    KEPT,
    LATE,
    METHOD,
    NFE,
    PAPER_NFE,
    PAPER_SCORE,
    PAPER_TIME,
    QUANTILES,
    SCORE,
    SEEDS,
    SPREAD,
    SWING,
    TIME,
    UPPER,
    Column,
    Grid,
    listing,
    matrix,
)
from ractd.reproduce.lines import Line
from ractd.reproduce.paper import BOTH_PLAIN, REWARD_IN_BOTH, REWARD_IN_STUDENT, REWARD_IN_TEACHER


@dataclass(frozen=True)
class Experiment:
    """A table or a figure."""

    title: str
    rows: Rows
    datasets: tuple[str, ...]
    """D4RL's names of the paper's own."""
    claims: tuple[Claim, ...]
    columns: tuple[Column, ...] = ()
    """Of a listing."""
    reference: str = "RACTD"
    """The method that times are compared with."""
    layout: Callable[[Sequence[Column], Sequence[Line], str, str], list[Grid]] = listing
    """`(columns, lines, reference, unit) -> what is shown`."""
    figures: Callable[[str, str, Sequence[Line], str], list[Figure]] | None = None
    """`(name, dataset, the dataset's lines, unit) -> figures`."""
    remark: str = ""
    """What a reader has to know."""


def _better(first: str, *others: str, datasets: Sequence[str] = ()) -> list[Claim]:
    return [Claim(first, MORE, other, datasets=tuple(datasets)) for other in others]


def _slower(first: str, *others: str) -> list[Claim]:
    return [Claim(first, TIMES, other, "ms") for other in others]


def _versions(names: Iterable[str], version: str) -> tuple[str, ...]:
    return tuple(f"{name}-{version}" for name in names)


_NOT_HALFCHEETAH = tuple(name for name in paper.MUJOCO if not name.startswith("halfcheetah"))
_CELLS = (
    *_better(REWARD_IN_STUDENT, BOTH_PLAIN, REWARD_IN_TEACHER, REWARD_IN_BOTH),
    *_better(REWARD_IN_TEACHER, BOTH_PLAIN),
    *_better(REWARD_IN_BOTH, BOTH_PLAIN),
)
_HOPPER = ("hopper-medium-replay-v2",)
_TIMES = (METHOD, PAPER_TIME, TIME, PAPER_NFE, NFE, PAPER_SCORE, SCORE, SEEDS)
_SCORES = (METHOD, PAPER_SCORE, SCORE, SEEDS)

_HEUN = "Heun's method takes two evaluations a step and one for the last: of 80 bins 157; the paper counts bins."
_TIMES_REMARK = (
    "Times are medians at batch 1, ours on this machine, the paper's on a V100: compare the ratios in brackets, which are to the "
    "one-step RACTD."
)

EXPERIMENTS: dict[str, Experiment] = {
    "table1": Experiment(
        "Table 1: offline RL on Gym-MuJoCo",
        experiments.table1,
        _versions(paper.MUJOCO, "v2"),
        (
            *_better("RACTD", "EDM teacher", "plain student"),
            *_better("RACTD", "Diffuser"),
            *_better("RACTD", "Consistency AC", datasets=_NOT_HALFCHEETAH),
        ),
        layout=matrix,
    ),
    "table2": Experiment(
        "Table 2: long-horizon planning in Maze2D, open loop",
        experiments.table2,
        _versions(paper.MAZES, "v1"),
        (
            *_better("RACTD", "CTD (plain student)", "Diffuser", "IQL", "CQL", "MPPI"),
            *_slower("Diffuser", "RACTD"),
            *_slower("EDM teacher", "RACTD"),
        ),
        columns=_TIMES,
        remark="CTD is consistency trajectory distillation without reward; the paper's RACTD on the medium maze is Table 11's. "
        + _TIMES_REMARK,
    ),
    "table3": Experiment(
        "Table 3: wall time and NFE per action",
        experiments.table3,
        _HOPPER,
        (
            *_slower("EDM teacher", "DDPM", "DDIM", "RACTD"),
            *_slower("DDPM", "RACTD"),
            *_slower("DDIM", "RACTD"),
            *_better("EDM teacher", "RACTD", "DDIM", "DDPM"),
            *_better("RACTD", "DDIM", "DDPM", "Diffuser"),
            *_better("DDIM", "DDPM"),
        ),
        columns=_TIMES,
        remark=f"{_HEUN} {_TIMES_REMARK}",
    ),
    "table4": Experiment(
        "Table 4: where the reward comes in",
        experiments.table4,
        _HOPPER,
        _CELLS,
        columns=_SCORES,
    ),
    "table5": Experiment(
        "Table 5: sampling steps of the student",
        experiments.table5,
        _HOPPER,
        (
            *(claim for steps in (2, 3, 4) for claim in _better(f"RACTD, {steps} steps", "RACTD, 1 step")),
            *(claim for steps in (2, 3, 4) for claim in _slower(f"RACTD, {steps} steps", "RACTD, 1 step")),
        ),
        columns=_TIMES,
        reference="RACTD, 1 step",
        remark="Steps denoise and add noise again, as in the paper; jumps follow the PF-ODE without new noise. "
        + _TIMES_REMARK,
    ),
    "table10": Experiment(
        "Table 10: where the reward comes in, walker2d-medium",
        experiments.table10,
        ("walker2d-medium-v2",),
        _CELLS,
        columns=_SCORES,
    ),
    "table11": Experiment(
        "Table 11: fast samplers in Maze2D, open loop",
        experiments.table11,
        _versions(paper.MAZES, "v1"),
        (
            *_better("RACTD", "CTD (plain student)", "DDIM, 1 step"),
            *_better("RACTD", "EDM teacher", datasets=("maze2d-umaze", "maze2d-medium")),
            *_better("EDM teacher", "RACTD", datasets=("maze2d-large",)),
            *_better("EDM teacher", "CTD (plain student)"),
            *_better("DDPM, 100 steps", "DDIM, 10 steps"),
            *_better("DDIM, 10 steps", "DDIM, 1 step"),
        ),
        columns=_TIMES,
        remark=f"{_HEUN} {_TIMES_REMARK}",
    ),
    "table12": Experiment(
        "Table 12: mode selection against diversity, measured",
        experiments.table12,
        ("hopper-medium-expert-v2", "hopper-medium-replay-v2"),
        (
            *(
                Claim(agnostic, MORE, aware, quantity)
                for quantity in ("spread", "kept")
                for agnostic, aware in (
                    (AGNOSTIC_DIFFUSION, AWARE_DIFFUSION),
                    (AGNOSTIC_STUDENT, AWARE_STUDENT),
                    (AGNOSTIC_DIFFUSION, AWARE_STUDENT),
                    (AGNOSTIC_STUDENT, AWARE_DIFFUSION),
                )
            ),
            *_better(AWARE_DIFFUSION, AGNOSTIC_DIFFUSION),
            *_better(AWARE_STUDENT, AGNOSTIC_STUDENT),
            *_slower(AGNOSTIC_DIFFUSION, AGNOSTIC_STUDENT),
            *_slower(AWARE_DIFFUSION, AWARE_STUDENT),
        ),
        columns=(METHOD, SPREAD, KEPT, SCORE, QUANTILES, TIME, NFE, SEEDS),
        reference=AWARE_STUDENT,
        remark=f"Of {DRAWS} samples at each of {STATES} logged states. Spread: standard deviation over samples, in scaled units, "
        f"mean over the entries of a sequence. Teacher's modes kept: share of {CELLS} k-means clusters of the reward-agnostic "
        f"teacher's samples that a sample falls into; always the same sequence has {1 / CELLS:.3f}, and the teacher's line is of "
        "another draw of it. " + _TIMES_REMARK,
    ),
    "figure3": Experiment(
        "Figure 3: episode returns of data, teacher, plain student and RACTD",
        experiments.figure3,
        ("hopper-medium-expert-v2",),
        (
            Claim("teacher", ALIKE_SHARE, DATA, "upper"),
            Claim("plain student", ALIKE_SHARE, "teacher", "upper"),
            Claim("RACTD", MORE, "teacher", "upper"),
            Claim("RACTD", MORE, "plain student", "upper"),
            *_better("RACTD", "teacher", "plain student"),
        ),
        columns=(METHOD, SCORE, QUANTILES, UPPER, SEEDS),
        figures=histograms,
        remark="The better mode: returns above the value that splits the data's returns into two groups with the least squares.",
    ),
    "figure4": Experiment(
        "Figure 4: the reward weight, scores during training",
        experiments.figure4,
        _HOPPER,
        (
            Claim(weight_name(0.5), MORE, weight_name(0.3), "late"),
            Claim(weight_name(0.7), MORE, weight_name(0.5), "late"),
            Claim(weight_name(1.5), MORE, weight_name(0.7), "swing"),
        ),
        columns=(METHOD, SCORE, LATE, SWING, SEEDS),
        figures=training_curves,
        remark="Our weights are for returns in units of their standard deviation; the paper does not state its scale. Late: the "
        "evaluations in the second half of training; swing: how far they are from their mean. ± of a single seed's are over these "
        "evaluations.",
    ),
}
"""By the names that the command line knows."""

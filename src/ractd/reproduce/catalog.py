"""The paper's tables and figures by name: datasets, where our numbers come from, columns, the paper's comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ractd.diffusion.samplers import TEACHER
from ractd.reproduce import paper
from ractd.reproduce.claims import Claim
from ractd.reproduce.figures import histograms, training_curves
from ractd.reproduce.lines import Line, Measured
from ractd.reproduce.measures import CELLS, DRAWS, STATES, with_better_mode, with_curve, with_diversity
from ractd.reproduce.paper import BOTH_PLAIN, REWARD_IN_BOTH, REWARD_IN_STUDENT, REWARD_IN_TEACHER
from ractd.reproduce.runs import BASE, DATA, DDPM, REWARD_AWARE, DatasetRuns, Ours

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Experiment:
    """A table or a figure."""

    title: str
    datasets: tuple[str, ...]
    """D4RL's names of the paper's own."""
    ours: Mapping[str, Ours]
    """Where our numbers come from, by the table's name for the method."""
    claims: tuple[Claim, ...]
    columns: tuple[str, ...] = ()
    """Names in `tables.COLUMNS`; empty for a matrix of methods and datasets."""
    reference: str = "RACTD"
    """The method that times are compared with."""
    add: Callable[[Measured, DatasetRuns, int], Measured] | None = None
    """Adds what only this table measures, to what a seed gave."""
    draw: Callable[[str, Sequence[Line], str], Figure | None] | None = None
    """`(dataset, the dataset's lines, unit) -> figure`."""
    remark: str = ""
    """What a reader has to know."""


def _better(first: str, *others: str, datasets: Sequence[str] = ()) -> list[Claim]:
    return [Claim(first, other, datasets=tuple(datasets)) for other in others]


def _slower(first: str, *others: str) -> list[Claim]:
    return [Claim(first, other, "ms") for other in others]


def _versions(names: Iterable[str], version: str) -> tuple[str, ...]:
    return tuple(f"{name}-{version}" for name in names)


_PLAIN, _RACTD, _TEACHER = Ours(BASE, "plain student"), Ours(BASE, "RACTD"), Ours(BASE, "teacher")
_AWARE_PLAIN, _AWARE_RACTD, _AWARE_TEACHER = (Ours(REWARD_AWARE, ours.variant) for ours in (_PLAIN, _RACTD, _TEACHER))


def _student(steps: int, sampler: str = "consistency") -> Ours:
    return Ours(BASE, policy="student", sampler=sampler, steps=steps)


def _ddpm(sampler: str, steps: int) -> Ours:
    return Ours(DDPM, policy="teacher", sampler=sampler, steps=steps)


def weight_name(weight: float) -> str:
    """Return what Figure 4 calls a weight."""
    return f"reward weight {weight:g}"


# Of a teacher's schedule: 15 evaluations, as many as Table 3's DDPM and DDIM take.
_BINS = {sampler: 9 if sampler == "heun" else 16 for sampler in TEACHER}
_OTHER_SAMPLERS = {
    f"teacher, {sampler}, {bins} bins": Ours(BASE, policy="teacher", sampler=sampler, steps=bins)
    for sampler, bins in _BINS.items()
}
_FOUR_CELLS = {
    BOTH_PLAIN: _PLAIN,
    REWARD_IN_STUDENT: _RACTD,
    REWARD_IN_TEACHER: _AWARE_PLAIN,
    REWARD_IN_BOTH: _AWARE_RACTD,
    "the unconditioned teacher itself": _TEACHER,
    "the reward-aware teacher itself": _AWARE_TEACHER,
}
_AGNOSTIC_DIFFUSION = "reward-agnostic diffusion (teacher)"
_AWARE_DIFFUSION = "reward-aware diffusion (teacher)"
_AGNOSTIC_STUDENT = "reward-agnostic consistency distillation (plain student)"
_AWARE_STUDENT = "reward-aware consistency distillation (RACTD)"
_DATA = "behaviour data"
_NOT_HALFCHEETAH = tuple(name for name in paper.MUJOCO if not name.startswith("halfcheetah"))
_CELLS = (
    *_better(REWARD_IN_STUDENT, BOTH_PLAIN, REWARD_IN_TEACHER, REWARD_IN_BOTH),
    *_better(REWARD_IN_TEACHER, BOTH_PLAIN),
    *_better(REWARD_IN_BOTH, BOTH_PLAIN),
)
_HOPPER = ("hopper-medium-replay-v2",)
_TIMES = ("method", "paper time", "time", "paper nfe", "nfe", "paper score", "score", "last", "seeds")
_SCORES = ("method", "paper score", "score", "last", "training", "seeds")

_HEUN = "Heun's method takes two evaluations a step and one for the last: of 80 bins 157; the paper counts bins."
_TIMES_REMARK = (
    "Times are medians at batch 1, ours on this machine, the paper's on a V100: compare the ratios in brackets, which are to the "
    "one-step RACTD."
)

EXPERIMENTS: dict[str, Experiment] = {
    "table1": Experiment(
        "Table 1: offline RL on Gym-MuJoCo",
        _versions(paper.MUJOCO, "v2"),
        {"RACTD": _RACTD, "EDM teacher": _TEACHER, "plain student": _PLAIN},
        (
            *_better("RACTD", "EDM teacher", "plain student", "Diffuser"),
            *_better("RACTD", "Consistency AC", datasets=_NOT_HALFCHEETAH),
        ),
    ),
    "table2": Experiment(
        "Table 2: long-horizon planning in Maze2D, open loop",
        _versions(paper.MAZES, "v1"),
        {"CTD (plain student)": _PLAIN, "RACTD": _RACTD, "EDM teacher": _TEACHER},
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
        _HOPPER,
        {
            "DDPM": _ddpm("ddpm", 15),
            "DDIM": _ddpm("ddim", 15),
            "EDM teacher": _TEACHER,
            "RACTD": _RACTD,
            "plain student": _PLAIN,
            **_OTHER_SAMPLERS,
        },
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
        _HOPPER,
        _FOUR_CELLS,
        _CELLS,
        columns=_SCORES,
    ),
    "table5": Experiment(
        "Table 5: sampling steps of the student",
        _HOPPER,
        {
            "RACTD, 1 step": _RACTD,
            "RACTD, 2 steps": Ours(BASE, "RACTD, 2 steps"),
            "RACTD, 3 steps": _student(3),
            "RACTD, 4 steps": Ours(BASE, "RACTD, 4 steps"),
            **{f"RACTD, {steps} jumps": _student(steps, "jumps") for steps in (2, 3, 4)},
        },
        tuple(Claim(f"RACTD, {n} steps", "RACTD, 1 step", of) for of in ("score", "ms") for n in (2, 3, 4)),
        columns=_TIMES,
        reference="RACTD, 1 step",
        remark="Steps denoise and add noise again, as in the paper; jumps follow the PF-ODE without new noise. "
        + _TIMES_REMARK,
    ),
    "table10": Experiment(
        "Table 10: where the reward comes in, walker2d-medium",
        ("walker2d-medium-v2",),
        _FOUR_CELLS,
        _CELLS,
        columns=_SCORES,
    ),
    "table11": Experiment(
        "Table 11: fast samplers in Maze2D, open loop",
        _versions(paper.MAZES, "v1"),
        {
            "DDPM, 100 steps": _ddpm("ddpm", 100),
            "DDIM, 10 steps": _ddpm("ddim", 10),
            "DDIM, 1 step": _ddpm("ddim", 1),
            "EDM teacher": _TEACHER,
            "CTD (plain student)": _PLAIN,
            "RACTD": _RACTD,
        },
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
        ("hopper-medium-expert-v2", "hopper-medium-replay-v2"),
        {
            _AGNOSTIC_DIFFUSION: _TEACHER,
            _AWARE_DIFFUSION: _AWARE_TEACHER,
            _AGNOSTIC_STUDENT: _PLAIN,
            _AWARE_STUDENT: _RACTD,
        },
        (
            *(
                Claim(agnostic, aware, quantity)
                for quantity in ("spread", "kept")
                for agnostic, aware in (
                    (_AGNOSTIC_DIFFUSION, _AWARE_DIFFUSION),
                    (_AGNOSTIC_STUDENT, _AWARE_STUDENT),
                    (_AGNOSTIC_DIFFUSION, _AWARE_STUDENT),
                    (_AGNOSTIC_STUDENT, _AWARE_DIFFUSION),
                )
            ),
            *_better(_AWARE_DIFFUSION, _AGNOSTIC_DIFFUSION),
            *_better(_AWARE_STUDENT, _AGNOSTIC_STUDENT),
            *_slower(_AGNOSTIC_DIFFUSION, _AGNOSTIC_STUDENT),
            *_slower(_AWARE_DIFFUSION, _AWARE_STUDENT),
        ),
        add=with_diversity,
        columns=("method", "spread", "kept", "score", "last", "quantiles", "time", "nfe", "seeds"),
        reference=_AWARE_STUDENT,
        remark=f"Of {DRAWS} samples at each of {STATES} logged states. Spread: standard deviation over samples, in scaled units, "
        f"mean over the entries of a sequence. Teacher's modes kept: share of {CELLS} k-means clusters of the reward-agnostic "
        f"teacher's samples that a sample falls into; always the same sequence has {1 / CELLS:.3f}, and the teacher's line is of "
        "another draw of it. " + _TIMES_REMARK,
    ),
    "figure3": Experiment(
        "Figure 3: episode returns of data, teacher, plain student and RACTD",
        ("hopper-medium-expert-v2",),
        {_DATA: Ours(DATA), "teacher": _TEACHER, "plain student": _PLAIN, "RACTD": _RACTD},
        (
            Claim("teacher", _DATA, "upper", alike=0.1),
            Claim("plain student", "teacher", "upper", alike=0.1),
            Claim("RACTD", "teacher", "upper"),
            Claim("RACTD", "plain student", "upper"),
            *_better("RACTD", "teacher", "plain student"),
        ),
        columns=("method", "score", "last", "quantiles", "upper", "seeds"),
        add=with_better_mode,
        draw=histograms,
        remark="The better mode: returns above the value that splits the data's returns into two groups with the least squares.",
    ),
    "figure4": Experiment(
        "Figure 4: the reward weight, scores during training",
        _HOPPER,
        {
            weight_name(0): _PLAIN,
            **{
                weight_name(w): Ours(f"-w{w:g}", policy="student", sampler="consistency", steps=1)
                for w in paper.FIGURE_4_WEIGHTS
            },
            "the preset's reward weight": _RACTD,
        },
        (
            Claim(weight_name(0.5), weight_name(0.3), "late"),
            Claim(weight_name(0.7), weight_name(0.5), "late"),
            Claim(weight_name(1.5), weight_name(0.7), "swing"),
        ),
        columns=("method", "score", "last", "late", "swing", "seeds"),
        add=with_curve,
        draw=training_curves,
        remark="Our weights are for returns in units of their standard deviation; the paper does not state its scale. Late: the "
        "evaluations in the second half of training; swing: how far they are from their mean. ± of a single seed's are over these "
        "evaluations.",
    ),
}
"""By the names that the command line knows."""

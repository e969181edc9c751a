"""What each table of the paper needs: one function a table, from a dataset to the lines that are wanted of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ractd.diffusion.samplers import TEACHER
from ractd.reproduce import paper
from ractd.reproduce.diversity import kept, sequences, spread
from ractd.reproduce.lines import Floats, Measured
from ractd.reproduce.paper import BOTH_PLAIN, NOTHING, REWARD_IN_BOTH, REWARD_IN_STUDENT, REWARD_IN_TEACHER, Published
from ractd.reproduce.runs import Place, Reading, Run, base, ddpm, evaluation, reward_aware, row, weighted, with_curve
from ractd.runs.evaluation import policy_directory

BINS_OF_15, HEUN_BINS_OF_15 = 16, 9
"""Of a teacher's schedule: 15 evaluations, as many as Table 3's DDPM and DDIM take."""
DDPM_STEPS, DDIM_STEPS = 15, 15
"""Of Table 3."""


@dataclass(frozen=True)
class Wanted:
    """A line of a table before anything is run."""

    method: str
    published: Published = NOTHING
    readings: Mapping[int, Reading] = field(default_factory=dict)
    """By seed; empty for methods that nobody trains here."""


Rows = Callable[[Place], list[Wanted]]


def _each_seed(place: Place, read: Callable[[int], Reading]) -> dict[int, Reading]:
    return {seed: read(seed) for seed in place.seeds}


def _rows(place: Place, table: paper.Numbers, ours: Mapping[str, Callable[[int], Reading]]) -> list[Wanted]:
    """Return a line for each method of the paper's table, in its order, and for those of ours that it doesn't have."""
    methods = dict.fromkeys([*next(iter(table.values())), *ours])
    lines = [
        Wanted(
            method,
            paper.published(table, place.name, method),
            _each_seed(place, ours[method]) if method in ours else {},
        )
        for method in methods
    ]
    return [line for line in lines if line.readings or line.published != NOTHING]


def table1(place: Place) -> list[Wanted]:
    """Scores on Gym-MuJoCo, RACTD beside what others published, and beside its own teacher and plain student."""
    return _rows(
        place,
        paper.TABLE_1,
        {
            "RACTD": lambda seed: row(base(place, seed), "student"),
            "EDM teacher": lambda seed: row(base(place, seed), "teacher"),
            "plain student": lambda seed: row(base(place, seed), "plain"),
        },
    )


def table2(place: Place) -> list[Wanted]:
    """Planning in mazes, open loop; CTD is consistency trajectory distillation without reward."""
    return _rows(
        place,
        paper.TABLE_2,
        {
            "CTD (plain student)": lambda seed: row(base(place, seed), "plain"),
            "RACTD": lambda seed: row(base(place, seed), "student"),
            "EDM teacher": lambda seed: row(base(place, seed), "teacher"),
        },
    )


def table3(place: Place) -> list[Wanted]:
    """Time and NFE per action: the paper's samplers, and the teacher's others at 15 evaluations."""

    def of_teacher(sampler: str, bins: int) -> Callable[[int], Reading]:
        return lambda seed: evaluation(base(place, seed), "teacher", sampler, bins)

    bins = {sampler: HEUN_BINS_OF_15 if sampler == "heun" else BINS_OF_15 for sampler in TEACHER}
    ours: dict[str, Callable[[int], Reading]] = {
        "DDPM": lambda seed: evaluation(ddpm(place, seed), "teacher", "ddpm", DDPM_STEPS),
        "DDIM": lambda seed: evaluation(ddpm(place, seed), "teacher", "ddim", DDIM_STEPS),
        "EDM teacher": lambda seed: row(base(place, seed), "teacher"),
        "RACTD": lambda seed: row(base(place, seed), "student"),
        "plain student": lambda seed: row(base(place, seed), "plain"),
    }
    others = {f"teacher, {name}, {count} bins": of_teacher(name, count) for name, count in bins.items()}
    return _rows(place, paper.TABLE_3, ours | others)


def _four_cells(place: Place, table: paper.Numbers) -> list[Wanted]:
    return _rows(
        place,
        table,
        {
            BOTH_PLAIN: lambda seed: row(base(place, seed), "plain"),
            REWARD_IN_STUDENT: lambda seed: row(base(place, seed), "student"),
            REWARD_IN_TEACHER: lambda seed: row(reward_aware(place, seed), "plain"),
            REWARD_IN_BOTH: lambda seed: row(reward_aware(place, seed), "student"),
            "the unconditioned teacher itself": lambda seed: row(base(place, seed), "teacher"),
            "the reward-aware teacher itself": lambda seed: row(reward_aware(place, seed), "teacher"),
        },
    )


def table4(place: Place) -> list[Wanted]:
    """The reward in the teacher, in the student, in both, in none."""
    return _four_cells(place, paper.TABLE_4)


def table10(place: Place) -> list[Wanted]:
    """Table 4 on walker2d-medium."""
    return _four_cells(place, paper.TABLE_10)


def table5(place: Place) -> list[Wanted]:
    """One to four steps of the student: denoise and add noise again, as in the paper; and jumps along the PF-ODE."""
    ours: dict[str, Callable[[int], Reading]] = {
        "RACTD, 1 step": lambda seed: row(base(place, seed), "student"),
        "RACTD, 2 steps": lambda seed: row(base(place, seed), "student", steps=2),
        "RACTD, 3 steps": lambda seed: evaluation(base(place, seed), "student", steps=3),
        "RACTD, 4 steps": lambda seed: row(base(place, seed), "student", steps=4),
    }

    def jumping(steps: int) -> Callable[[int], Reading]:
        return lambda seed: evaluation(base(place, seed), "student", "jumps", steps)

    return _rows(place, paper.TABLE_5, ours | {f"RACTD, {steps} jumps": jumping(steps) for steps in (2, 3, 4)})


def table11(place: Place) -> list[Wanted]:
    """Fast samplers in mazes: a DDPM teacher's, the EDM teacher's, and one step."""
    return _rows(
        place,
        paper.TABLE_11,
        {
            "DDPM, 100 steps": lambda seed: evaluation(ddpm(place, seed), "teacher", "ddpm", 100),
            "DDIM, 10 steps": lambda seed: evaluation(ddpm(place, seed), "teacher", "ddim", 10),
            "DDIM, 1 step": lambda seed: evaluation(ddpm(place, seed), "teacher", "ddim", 1),
            "EDM teacher": lambda seed: row(base(place, seed), "teacher"),
            "CTD (plain student)": lambda seed: row(base(place, seed), "plain"),
            "RACTD": lambda seed: row(base(place, seed), "student"),
        },
    )


AGNOSTIC_DIFFUSION = "reward-agnostic diffusion (teacher)"
AWARE_DIFFUSION = "reward-aware diffusion (teacher)"
AGNOSTIC_STUDENT = "reward-agnostic consistency distillation (plain student)"
AWARE_STUDENT = "reward-aware consistency distillation (RACTD)"


def _diverse(run: Run, policy: str, teacher: Run) -> Reading:
    """Add to a row how diverse the policy is, beside the teacher of another run."""
    reading = row(run, policy)

    def read() -> Measured:
        measured, dataset = reading.read(), run.place.dataset
        teacher.check()
        # Other noise than the reference's, so that the teacher's own line says what two draws have in common.
        x = sequences(
            policy_directory(run.directory, run.plain() if policy == "plain" else policy), dataset, run.seed, 1
        )
        reference = sequences(policy_directory(teacher.directory, "teacher"), dataset, run.seed, 0)
        return replace(measured, samples=measured.samples | {"spread": spread(x), "kept": kept(reference, x)})

    return Reading((*reading.trials, teacher.trial()), read)


def table12(place: Place) -> list[Wanted]:
    """Mode selection against diversity: spread and share of the teacher's modes at the same states, return distribution."""

    def of(run: Callable[[Place, int], Run], policy: str) -> dict[int, Reading]:
        return _each_seed(place, lambda seed: _diverse(run(place, seed), policy, base(place, seed)))

    return [
        Wanted(AGNOSTIC_DIFFUSION, readings=of(base, "teacher")),
        Wanted(AWARE_DIFFUSION, readings=of(reward_aware, "teacher")),
        Wanted(AGNOSTIC_STUDENT, readings=of(base, "plain")),
        Wanted(AWARE_STUDENT, readings=of(base, "student")),
    ]


DATA = "behaviour data"


def better_mode(returns: Floats) -> float:
    """Return the return that best splits returns [E] into two groups: least squares around each group's mean."""
    x = np.sort(returns)
    if x[0] == x[-1]:
        return float(x[-1])
    below = np.arange(1, len(x))
    total = np.cumsum(x)[:-1]
    between = (total / below - (x.sum() - total) / (len(x) - below)) ** 2 * below * (len(x) - below)
    cut = int(between.argmax())
    return float((x[cut] + x[cut + 1]) / 2)


def figure3(place: Place) -> list[Wanted]:
    """Return distributions of data, teacher, plain student and RACTD."""
    returns = place.dataset.episode_returns().astype(np.float64)
    split = better_mode(returns)

    def with_mode(reading: Reading) -> Reading:
        def read() -> Measured:
            measured = reading.read()
            upper = (measured.samples["return"] > split).astype(np.float64)
            return replace(measured, samples=measured.samples | {"upper": upper})

        return Reading(reading.trials, read)

    data = Measured({"score": place.score(returns), "return": returns}, "", fixed=True)
    lines = [Wanted(DATA, readings=_each_seed(place, lambda seed: with_mode(Reading((), lambda: data))))]
    for label, policy in (("teacher", "teacher"), ("plain student", "plain"), ("RACTD", "student")):
        by_seed = {seed: with_mode(row(base(place, seed), policy)) for seed in place.seeds}
        lines.append(Wanted(label, readings=by_seed))
    return lines


def weight_name(weight: float) -> str:
    """Return what Figure 4 calls a weight."""
    return f"reward weight {weight:g}"


def figure4(place: Place) -> list[Wanted]:
    """Scores during training for the paper's reward weights, for none, and for RACTD's own."""

    def of(weight: float) -> dict[int, Reading]:
        def reading(seed: int) -> Reading:
            run = weighted(place, seed, weight)
            return with_curve(evaluation(run), run, "student")

        return _each_seed(place, reading)

    def of_base(policy: str) -> dict[int, Reading]:
        def reading(seed: int) -> Reading:
            run = base(place, seed)
            return with_curve(row(run, policy), run, run.plain() if policy == "plain" else policy)

        return _each_seed(place, reading)

    own = "auto" if place.preset == "cpu" else "Table 9's"
    return [
        Wanted(weight_name(0), readings=of_base("plain")),
        *(Wanted(weight_name(weight), readings=of(weight)) for weight in paper.FIGURE_4_WEIGHTS),
        Wanted(f"reward weight {own}", readings=of_base("student")),
    ]

"""Every default of the method in one place: frozen dataclasses, and the paper's tables as named presets.

Importing this module imports neither torch nor numpy. A preset is a whole `Config`; the command line starts from the one
that `--preset` names and replaces what the user types.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from ractd.errors import RactdError

TerminalsMean = Literal["failure", "success"]
"""What a user can say that the terminals of data are."""


@dataclass(frozen=True)
class MLP:
    """Residual MLP denoiser: the CPU default (ours; the paper has the U-Net only)."""

    width: int = 256
    """Width of every hidden layer."""
    blocks: int = 3
    """Residual blocks, one hidden layer each."""
    embed_dim: int = 64
    """Size of the time embedding."""


@dataclass(frozen=True)
class UNet:
    """1-D temporal U-Net with FiLM conditioning (paper, Appendix A, Tables 6 and 7)."""

    down_dims: tuple[int, ...] = (512, 1024, 2048)
    """Channels of each level; every level but the last halves the horizon."""
    embed_dim: int = 128
    """Size of the time embedding (`diffusion_step_embed_dim` in the tables)."""
    kernel_size: int = 5
    """Kernel of the temporal convolutions."""
    groups: int = 8
    """Groups of the group normalisation."""


Network = MLP | UNet


@dataclass(frozen=True)
class Diffusion:
    """The noise schedule (EDM; paper, section 2.2 and Appendix B.1)."""

    sigma_min: float = 0.02
    """Smallest noise level: time 0 of the method."""
    sigma_max: float = 80.0
    """Largest noise level T."""
    rho: float = 7.0
    """Warp of the schedule: larger puts more bins at low noise."""
    bins: int = 80
    """Discretisation bins (B.1)."""
    sigma_data: float = 0.5
    """Scale of the data that the preconditioning assumes."""
    p_mean: float = -1.2
    """Mean of ln sigma in the DSM loss (EDM)."""
    p_std: float = 1.2
    """Standard deviation of ln sigma in the DSM loss (EDM)."""


@dataclass(frozen=True)
class DDPM:
    """The discrete variance-preserving schedule of a DDPM teacher (Ho et al., 2020; the paper's comparison, Tables 3 and 11)."""

    timesteps: int = 100
    """Noise levels T that it is trained on, and its steps when it samples by default."""
    betas: Literal["cosine", "linear"] = "cosine"
    """How noise grows from level to level: `cosine` (Nichol and Dhariwal, 2021) or `linear` (Ho et al., rescaled to T)."""
    clip: float = 1.0
    """The clean estimate is kept within this magnitude while sampling; the data is within 1."""


@dataclass(frozen=True)
class Optimization:
    """How one stage is optimised."""

    steps: int
    """Optimiser steps."""
    batch_size: int = 256
    """Samples per step, over all processes."""
    learning_rate: float = 3e-4
    """Peak learning rate of AdamW, reached after the warm-up and then decayed along a cosine to zero."""
    warmup_steps: int = 500
    """Steps of linear warm-up."""
    weight_decay: float = 1e-5
    """Decoupled weight decay."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    ema: float = 0.999
    """Decay of the weights' moving average, which is what gets used; 0 uses the weights themselves."""


@dataclass(frozen=True)
class ReturnModel:
    """The return-to-go model R(s, a) (paper, section 3.3, Table 8 and B.2)."""

    layers: tuple[int, ...] = (32, 64, 128, 256)
    """Widths of the Linear + Mish layers (Table 8)."""
    members: int = 1
    """Networks of these layers whose mean is the return model; their errors differ, what they learnt does not. 0 for none, as of
    data without rewards: students are plain then, and nothing is ranked or estimated."""
    gamma: float | None = None
    """Discount; by default the paper's for hopper, walker2d and halfcheetah (B.2), else 0.99."""
    termination_penalty: float | None = None
    """Added to the reward where an episode ends by a failure (B.2), never at a success or a time limit; 0 switches it off. By
    default the paper's -100 for rewards of 1 to 10 a step, and at the scale of others."""
    action_noise: float = 0.0
    """Standard deviation of noise added to the scaled actions (a planner's: states) it is trained on: a smoother model
    misleads the student less."""
    validation_share: float = 0.05
    """Share of the episodes held out to measure the model's error."""
    optimization: Optimization = field(
        default_factory=lambda: Optimization(steps=6_000, batch_size=512, learning_rate=1e-3)
    )
    """How it is trained."""


TeacherLoss = Literal["pseudo-huber", "square"]
Parametrization = Literal["edm", "ddpm"]


@dataclass(frozen=True)
class Teacher:
    """The diffusion teacher (eq. 4)."""

    network: Network = field(default_factory=MLP)
    """The denoiser's backbone."""
    loss: TeacherLoss = "pseudo-huber"
    """Distance of eq. 4: the paper's, which fits conditional medians, or `square` (EDM's), which fits conditional means and
    so keeps unequal modes in their shares. A DDPM teacher always has the squared error of its noise."""
    parametrization: Parametrization = "edm"
    """`edm`, the paper's teacher, or `ddpm`, which predicts the noise and is there to compare with: it has no student."""
    ddpm: DDPM = field(default_factory=DDPM)
    """Noise schedule of a DDPM teacher."""
    reward_weight: float | Literal["auto"] = 0.0
    """Weight of the reward on the teacher's denoised estimates, for returns in units of their standard deviation; `auto` holds
    its gradient at `reward_share` of the data gradient there; 0 is the paper's teacher, which knows no reward (Table 4)."""
    reward_share: float = 0.2
    """What `auto` aims at. Chosen on two modes, as in the paper's Figure 3: 0.1 moves few samples, 0.3 many out of the data."""
    bound_weight: float = 1.0
    """Penalty on denoised estimates outside the bounds, where there is a reward."""
    optimization: Optimization = field(
        default_factory=lambda: Optimization(steps=20_000, batch_size=128, learning_rate=5e-4)
    )
    """How it is trained."""


@dataclass(frozen=True)
class Plan:
    """What a planner has besides: sequences of states, and the inverse dynamics that finds the actions (paper, section 4.2)."""

    points: int = 0
    """0, the paper's: x is the states themselves. K: x is the K control points of a spline through them, so that
    plans are smooth, begin where they should, and small networks can make them (ours, for CPUs)."""
    dynamics_layers: tuple[int, ...] = (64,)
    """Widths of the Linear + ReLU layers of the inverse dynamics."""
    optimization: Optimization = field(
        default_factory=lambda: Optimization(steps=10_000, batch_size=512, learning_rate=1e-3)
    )
    """How the inverse dynamics is trained: long, since open loop its errors add up."""


Anchor = Literal["dsm", "ctm", "ode"]


@dataclass(frozen=True)
class Student:
    """The one-step student (eq. 5 to 9)."""

    network: Network | None = None
    """The student's backbone; by default the teacher's."""
    ctm_weight: float = 1.0
    """alpha of eq. 9."""
    dsm_weight: float = 1.0
    """beta of eq. 9."""
    reward_weight: float | Literal["auto"] | None = None
    """sigma of eq. 9, for returns in units of their standard deviation; `auto` holds the reward gradient on the one-step
    sample at `reward_share` of the data gradient there; 0 is plain distillation. None, as in the paper's presets, is the paper's
    (Table 9) where the data is one of D4RL's sets or says that it rebuilds one, else `auto`."""
    reward_share: float = 0.05
    """What `auto` aims at: one value for all datasets (benchmarks/README.md says how it was chosen)."""
    pessimism: float = 0.0
    """Standard deviations between the return model's members by which the reward stays below their mean; it needs two of them."""
    normalize_returns: bool = True
    """Divide the return estimate by the dataset's standard deviation of returns-to-go; False keeps the units of the rewards."""
    bound_weight: float = 1.0
    """Penalty on actions outside the bounds, which the return model never sees."""
    ctm_share: float = 1.0
    """Share of the batch that the CTM loss sees: it costs twice what the other two together do."""
    ode_steps: int = 1
    """The teacher's solver goes at most so many bins from t to u (eq. 6)."""
    anchor: Anchor = "dsm"
    """What holds the one-step sample: `dsm` (eq. 7 over all noise levels), `ctm` (eq. 7 on g(x, t, t)), `ode` (the
    teacher's few-step sample from the same noise)."""
    optimization: Optimization = field(default_factory=lambda: Optimization(steps=6_000, batch_size=128))
    """How it is trained; its EMA is the stop-gradient copy of eq. 5 and 6 and the policy."""


@dataclass(frozen=True)
class Evaluation:
    """How policies are scored in an environment."""

    episodes: int = 100
    """Episodes of the final evaluation of each policy."""
    execute: int | None = None
    """Actions of each sequence that are executed before the next is sampled; 1 is closed loop. By default 1 for action
    sequences (paper, 4.1), and all of them for plans: open loop (paper, 4.2)."""
    select: Literal["online", "last"] = "online"
    """`online` keeps the student's best checkpoint by evaluations during training (the paper's protocol), `last` the last.
    One that is better than the best so far is scored again, on other `episodes`, and counts by those."""
    checkpoints: int = 16
    """Evaluations during the student's training for `online`."""
    checkpoint_episodes: int = 20
    """Episodes of each of those; their seeds are never those of the final evaluation."""


@dataclass(frozen=True)
class Config:
    """One run: what is trained, how, and how it is judged."""

    horizon: int = 4
    """Actions predicted at once (c). The paper's is 16; in closed loop only the first is executed, so a CPU preset takes 4."""
    history: int = 1
    """Observations the policy sees (h)."""
    action_range: tuple[float, ...] | None = None
    """The robot's own range of actions: LOW HIGH for every dimension, or LOW HIGH of the first, LOW HIGH of the second and so on.
    Logged actions outside it are clipped. By default the range of the data."""
    seed: int = 0
    """Seeds weights, batches, noise and environments."""
    diffusion: Diffusion = field(default_factory=Diffusion)
    return_model: ReturnModel = field(default_factory=ReturnModel)
    plan: Plan | None = None
    """What makes a planner: sequences are the states on the way to a goal, and R is the goal reward."""
    teacher: Teacher = field(default_factory=Teacher)
    student: Student = field(default_factory=Student)
    evaluation: Evaluation = field(default_factory=Evaluation)


def _unet_preset(horizon: int, network: UNet) -> Config:
    optimization = Optimization(steps=200_000, batch_size=256, learning_rate=1e-4, warmup_steps=1_000, ema=0.9999)
    return Config(
        horizon=horizon,
        return_model=ReturnModel(optimization=Optimization(steps=50_000, batch_size=1024, learning_rate=1e-3)),
        teacher=Teacher(network=network, optimization=optimization),
        student=Student(optimization=replace(optimization, steps=100_000)),
    )


_GOAL_REWARD = ReturnModel(
    gamma=1.0,
    action_noise=0.05,
    optimization=Optimization(steps=6_000, batch_size=512, learning_rate=2e-3),
)


def _planner(config: Config, plan: Plan) -> Config:
    return replace(config, return_model=_GOAL_REWARD, plan=plan)


def _cpu_planner(horizon: int) -> Config:
    config = _planner(
        Config(
            horizon=horizon,
            teacher=Teacher(
                network=MLP(width=384, blocks=3),
                optimization=Optimization(steps=25_000, batch_size=256, learning_rate=1e-3),
            ),
            student=Student(ctm_share=0.25, optimization=Optimization(steps=3_000)),
            evaluation=Evaluation(checkpoints=8),
        ),
        Plan(points=horizon // 8),
    )
    # R judges every state of every sample's plan: a small one.
    return replace(config, return_model=replace(_GOAL_REWARD, layers=(64, 64)))


MOST_STEPS = 1000
"""Steps that a sampler takes at most."""
FEWEST_POINTS = 3
"""With its start a cubic spline has four control points."""
_AT_LEAST_ONE = (1, 2**31 - 1)
_POSITIVE = (1e-12, 1e12)
_NOT_NEGATIVE = (0.0, 1e12)
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(
        ("horizon", "history", "steps", "batch_size", "width", "blocks", "groups", "kernel_size"), _AT_LEAST_ONE
    ),
    **dict.fromkeys(("layers", "down_dims", "ode_steps", "episodes", "execute", "checkpoints"), _AT_LEAST_ONE),
    **dict.fromkeys(("observation_dim", "action_dim", "return_layers", "candidates"), _AT_LEAST_ONE),
    "return_std": _POSITIVE,
    **dict.fromkeys(("state_dim", "members", "return_members"), (0, 2**31 - 1)),
    "points": (0, 2**31 - 1),
    "dynamics_layers": _AT_LEAST_ONE,
    "checkpoint_episodes": _AT_LEAST_ONE,
    "embed_dim": (4, 2**31 - 1),
    "bins": (3, MOST_STEPS),
    "timesteps": (1, 10_000),
    "clip": _POSITIVE,
    "seed": (0, 2**31 - 1),
    **dict.fromkeys(
        ("sigma_min", "sigma_max", "rho", "sigma_data", "p_std", "learning_rate", "max_grad_norm"), _POSITIVE
    ),
    **dict.fromkeys(
        ("weight_decay", "warmup_steps", "ctm_weight", "dsm_weight", "reward_weight", "reward_share", "action_noise"),
        _NOT_NEGATIVE,
    ),
    "action_range": (-1e30, 1e30),
    "bound_weight": _NOT_NEGATIVE,
    "pessimism": _NOT_NEGATIVE,
    "gamma": (0.0, 1.0),
    "termination_penalty": (-1e12, 1e12),
    "validation_share": (0.0, 0.5),
    "ctm_share": (1e-6, 1.0),
    "ema": (0.0, 0.999999),
}


def check(config: Any, prefix: str = "") -> None:
    """Raise `RactdError` naming the first option out of its range."""
    for f in fields(config):
        value, option = getattr(config, f.name), f"--{prefix}{f.name}".replace("_", "-")
        if is_dataclass(value):
            check(value, f"{prefix}{f.name}.")
        low, high = _RANGES.get(f.name, (-math.inf, math.inf))
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, (int, float)) and not low <= number <= high:
                raise RactdError(f"{option} is {number}, expected a number from {low:g} to {high:g}")
    if isinstance(config, MLP | UNet) and config.embed_dim % 2:
        raise RactdError(f"--{prefix}embed-dim is {config.embed_dim}, expected an even number")
    if isinstance(config, UNet) and config.kernel_size % 2 == 0:
        raise RactdError(f"--{prefix}kernel-size is {config.kernel_size}, expected an odd number")
    if isinstance(config, Diffusion) and config.sigma_min >= config.sigma_max:
        raise RactdError(
            f"--diffusion.sigma-min is {config.sigma_min}, expected less than sigma-max, {config.sigma_max}"
        )
    if isinstance(config, Teacher) and config.parametrization == "ddpm" and config.reward_weight != 0:
        raise RactdError(
            f"--{prefix}reward-weight is {config.reward_weight}, expected 0 for a DDPM teacher: only an EDM teacher "
            "can be made reward-aware"
        )
    if isinstance(config, Config) and config.action_range is not None:
        bounds = config.action_range
        if (
            not bounds
            or len(bounds) % 2
            or any(low >= high for low, high in zip(bounds[::2], bounds[1::2], strict=True))
        ):
            raise RactdError(
                f"--action-range is {' '.join(f'{bound:g}' for bound in bounds) or 'empty'}, expected LOW HIGH, once or for each "
                "dimension, with LOW below HIGH"
            )
    if isinstance(config, Config) and config.plan is not None and config.plan.points:
        points, most = config.plan.points, config.horizon - 1
        if not FEWEST_POINTS <= points <= most:
            raise RactdError(
                f"--plan.points is {points}, expected {FEWEST_POINTS} to {most} for the horizon {config.horizon}, "
                "or 0 for none"
            )
    if isinstance(config, Config) and config.student.pessimism and config.return_model.members < 2:
        raise RactdError(
            f"--student.pessimism is {config.student.pessimism}, expected 0 for a return model of one network, "
            "which disagrees with nobody; use --student.pessimism 0, or --return-model.members 2 or more"
        )
    if isinstance(config, Config) and config.return_model.members == 0:
        weights = {"student": config.student.reward_weight, "teacher": config.teacher.reward_weight}
        for stage, weight in weights.items():
            if weight != 0:
                raise RactdError(f"--{stage}.reward-weight is {weight}, expected 0 without a return model")
        if config.plan is not None:
            raise RactdError("--return-model.members is 0, expected at least 1: a planner needs its goal reward")
    if isinstance(config, Config) and (config.evaluation.execute or 1) > config.horizon:
        raise RactdError(
            f"--evaluation.execute is {config.evaluation.execute}, expected at most the horizon, {config.horizon}"
        )


# Ours, for CPUs: three wider, smoother, farther-sighted return models rank actions better than the paper's one, and where they
# disagree the student is not paid, so that it bears a larger share; CTM on a quarter of a batch twice as large costs the same and
# fits the one-step sample better (benchmarks/README.md).
_CPU_RETURN = ReturnModel(layers=(256, 256), members=3, gamma=0.997, action_noise=0.3)
_CPU_STUDENT = Student(
    reward_weight="auto", reward_share=0.075, pessimism=2.0, ctm_share=0.25, optimization=Optimization(steps=4_000)
)
PRESETS: dict[str, Config] = {
    "cpu": Config(return_model=_CPU_RETURN, student=_CPU_STUDENT),
    # The whole pipeline in minutes: half the steps, a third of the episodes.
    "demo": Config(
        return_model=replace(_CPU_RETURN, optimization=replace(_CPU_RETURN.optimization, steps=3_000)),
        teacher=Teacher(optimization=Optimization(steps=8_000, batch_size=128, learning_rate=5e-4)),
        student=replace(_CPU_STUDENT, optimization=Optimization(steps=2_000)),
        evaluation=Evaluation(episodes=30, checkpoints=4, checkpoint_episodes=10),
    ),
    "mujoco": _unet_preset(16, UNet(down_dims=(512, 1024, 2048), embed_dim=128)),  # Table 7
    "maze2d-umaze": _planner(_unet_preset(128, UNet(down_dims=(256, 512, 1024), embed_dim=256)), Plan()),  # Table 6
    "maze2d-medium": _planner(_unet_preset(256, UNet(down_dims=(512, 1024, 2048), embed_dim=256)), Plan()),  # Table 6
    "maze2d-large": _planner(
        _unet_preset(384, UNet(down_dims=(256, 512, 1024, 2048), embed_dim=256)), Plan()
    ),  # Table 6
    # The same horizons for CPUs, on the residual MLP.
    "maze2d-umaze-cpu": _cpu_planner(128),
    "maze2d-medium-cpu": _cpu_planner(256),
    "maze2d-large-cpu": _cpu_planner(384),
}


def penalty_of(config: Config) -> float:
    """Return the penalty of a failure, of a configuration that was resolved for a dataset."""
    penalty = config.return_model.termination_penalty
    assert penalty is not None, "resolve() has not been called"
    return penalty


NETWORKS: dict[str, Network] = {
    "cpu-small": MLP(width=128, blocks=2),
    **{name: config.teacher.network for name, config in PRESETS.items() if name != "demo"},
}

# Table 9: reward weights; those of CTM and DSM are 1 throughout. The paper doesn't say on which scale of returns: here they are for
# normalised ones.
TABLE_9: dict[str, float] = {
    "hopper-medium-replay": 1.0,
    "hopper-medium": 3.0,
    "hopper-medium-expert": 0.0,
    "walker2d-medium-replay": 1.0,
    "walker2d-medium": 0.4,
    "walker2d-medium-expert": 0.2,
    "halfcheetah-medium-replay": 1.0,
    "halfcheetah-medium": 0.5,
    "halfcheetah-medium-expert": 0.0,
}

# Appendix B.2: the discount of each environment.
GAMMA: dict[str, float] = {"hopper": 0.997, "walker2d": 0.99, "halfcheetah": 0.9}
DEFAULT_GAMMA = 0.99

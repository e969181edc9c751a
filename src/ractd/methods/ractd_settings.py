"""Every default of RACTD in one place: frozen dataclasses, and the paper's tables as named presets.

A preset is a whole `Config`; the command line starts from the one
that `--preset` names and replaces what the user types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Literal

from msgspec import Meta

from ractd.critics.settings import ReturnModel
from ractd.diffusion.settings import DDPM, Diffusion
from ractd.networks import Network
from ractd.networks.mlp import MLP
from ractd.networks.unet import UNet
from ractd.sequences.settings import ActionsSettings, SequenceSettings, StatesSettings
from ractd.settings import Count, Evaluation, NotNegative, Optimization, PositiveShare, Settings

Distance = Literal["pseudo-huber", "square"]
Parametrization = Literal["edm", "ddpm"]


@dataclass(frozen=True)
class Teacher:
    """The diffusion teacher (eq. 4)."""

    network: Network = field(default_factory=MLP)
    """The denoiser's backbone."""
    loss: Distance = "pseudo-huber"
    """Distance of eq. 4: the paper's, which fits conditional medians, or `square` (EDM's), which fits conditional means and
    so keeps unequal modes in their shares. A DDPM teacher always has the squared error of its noise."""
    parametrization: Parametrization = "edm"
    """`edm`, the paper's teacher, or `ddpm`, which predicts the noise and is there to compare with: it has no student."""
    ddpm: DDPM = field(default_factory=DDPM)
    """Noise schedule of a DDPM teacher."""
    reward_weight: NotNegative | Literal["auto"] = 0.0
    """Weight of the reward on the teacher's denoised estimates, for returns in units of their standard deviation; `auto` holds
    its gradient at `reward_share` of the data gradient there; 0 is the paper's teacher, which knows no reward (Table 4)."""
    reward_share: NotNegative = 0.2
    """What `auto` aims at. Chosen on two modes, as in the paper's Figure 3: 0.1 moves few samples, 0.3 many out of the data."""
    bound_weight: NotNegative = 1.0
    """Penalty on denoised estimates outside the bounds, where there is a reward."""
    optimization: Optimization = field(
        default_factory=lambda: Optimization(steps=20_000, batch_size=128, learning_rate=5e-4)
    )
    """How it is trained."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield each field that can't stand beside the others, and what is expected of it."""
        if not self.network.denoises:
            yield "network", "a network that denoises"
        if self.parametrization == "ddpm" and self.reward_weight != 0:
            yield "reward_weight", "0 for a DDPM teacher: only an EDM teacher can be made reward-aware"


Anchor = Literal["dsm", "ode"]


@dataclass(frozen=True)
class Following:
    """How action values follow the student, where `return_model.kind` is `q`."""

    n_step: Count = 10
    """Logged rewards that are summed before the value of the student's own action."""
    tau: PositiveShare = 0.005
    """How far the target network moves towards the trained one in a step."""
    distance_penalty: NotNegative = 0.3
    """What the value of a next action loses by its squared distance to the logged one, in rewards of about 1 a step."""
    every: Count = 2
    """The student is trained in one of so many steps, the values in each."""


@dataclass(frozen=True)
class Student:
    """The one-step student (eq. 5 to 9)."""

    network: Network | None = None
    """The student's backbone; by default the teacher's."""
    distilled: bool = True
    """Start from a teacher's weights, and follow its trajectories (eq. 5). Without, no teacher is trained: the student starts
    from scratch, and eq. 5 has no weight."""
    loss: Distance = "pseudo-huber"
    """Distance of eq. 7: the paper's, or `square`, which the mean of the data minimises."""
    share: PositiveShare | Literal["auto"] = 1.0
    """Share of the transitions that eq. 7 holds it to: those of the best episodes. The paper's is 1, all of them; `auto` takes a
    quarter, but at least 50,000, and all of data without rewards."""
    advantage_temperature: NotNegative = 0.0
    """How much more eq. 7 counts transitions that are better than others in such states, `exp(temperature A / std A)`, of a critic
    of kind `iql`. 0 counts all alike."""
    ctm_weight: NotNegative = 1.0
    """alpha of eq. 9."""
    dsm_weight: NotNegative = 1.0
    """beta of eq. 9."""
    refinement_weight: NotNegative = 0.0
    """Weight of the distance of the one-step sample to what a second step (5.3) makes of it, which the reward doesn't pull; the
    paper has none."""
    reward_weight: NotNegative | Literal["auto"] | None = None
    """sigma of eq. 9, for returns in units of their standard deviation; `auto` holds the reward gradient on the one-step
    sample at `reward_share` of the data gradient there; 0 is plain distillation. None, as in the paper's presets, is the paper's
    (Table 9) where the data is one of D4RL's sets or says that it rebuilds one, else `auto`. Of values that follow the student it
    is the weight of Q over the mean of |Q|, by default 5, and less of data whose episodes are much alike: there is less to gain."""
    reward_share: NotNegative = 0.05
    """What `auto` aims at: one value for all datasets (benchmarks/README.md says how it was chosen)."""
    pessimism: NotNegative = 0.0
    """Standard deviations between the return model's members by which the reward stays below their mean; it needs two of them.
    0.7071 of two is the smaller one."""
    normalize_returns: bool = True
    """Divide the return estimate by the dataset's standard deviation of returns-to-go; else it keeps the rewards' units."""
    bound_weight: NotNegative = 1.0
    """Penalty on actions outside the bounds, which the return model never sees."""
    ctm_share: Annotated[float, Meta(ge=1e-6, le=1)] = 1.0
    """Share of the batch that the CTM loss sees: it costs twice what the other two together do."""
    ode_steps: Count = 1
    """The teacher's solver goes at most so many bins from t to u (eq. 6)."""
    anchor: Anchor = "dsm"
    """What holds the one-step sample: `dsm` (eq. 7 over all noise levels), or `ode` (the teacher's few-step sample from the same
    noise, too)."""
    following: Following = field(default_factory=Following)
    """How action values follow it."""
    optimization: Optimization = field(default_factory=lambda: Optimization(steps=6_000, batch_size=128))
    """How it is trained; its EMA is the stop-gradient copy of eq. 5 and 6 and the policy."""


NOT_READ_BY = {
    "action_noise": ("q", "sarsa", "iql"),
    "n_step": ("return-to-go", "goal"),
    "expectile": ("return-to-go", "goal", "q", "sarsa"),
}
"""Settings of return models, and the kinds to which they mean nothing."""
OF_ACTIONS = ("return-to-go", "q", "sarsa", "iql")
"""Our kinds of critic that value actions."""


@dataclass(frozen=True)
class Config(Settings):
    """One run of RACTD: what is trained, how, and how it is judged."""

    diffusion: Diffusion = field(default_factory=Diffusion)
    return_model: ReturnModel = field(default_factory=ReturnModel)
    sequence: SequenceSettings = field(default_factory=ActionsSettings)
    """What is learnt: sequences of actions, or a planner's, of the states on the way to a goal, for which R is the goal reward."""
    teacher: Teacher = field(default_factory=Teacher)
    student: Student = field(default_factory=Student)

    @property
    def student_network(self) -> Network:
        """The student's backbone."""
        return self.student.network or self.teacher.network

    @property
    def follows(self) -> bool:
        """Whether the critic is learnt with the student."""
        return self.return_model.kind == "q" and self.return_model.members > 0

    @property
    def fixed_critic(self) -> bool:
        """Whether a run has a critic that is trained before its student."""
        return self.return_model.members > 0 and not self.follows

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield each field that can't stand beside the others, and what is expected of it."""
        yield from super().contradictions()
        if not self.student.distilled:
            if self.student.ctm_weight:
                yield "student.ctm_weight", "0 for a student that is not distilled: eq. 5 needs a teacher"
            if self.student.anchor == "ode":
                yield "student.anchor", "'dsm' for a student that is not distilled: 'ode' needs a teacher"
        if self.follows:
            if self.teacher.reward_weight != 0:
                yield "teacher.reward_weight", "0 where values follow the student: a teacher is trained before them"
            if self.student.reward_weight == "auto":
                yield "student.reward_weight", "a number where values follow the student"
        if self.sequence.open_loop and self.return_model.kind in OF_ACTIONS:
            yield "return_model.kind", "'goal' for a planner: this kind values actions"
        if not self.sequence.open_loop and self.return_model.kind == "goal":
            yield "return_model.kind", f"one of {', '.join(OF_ACTIONS)}: 'goal' values a planner's states"
        for name, expected in self.sequence.contradictions_of(self.horizon):
            yield f"sequence.{name}", expected
        if self.student.advantage_temperature and (self.return_model.kind != "iql" or not self.fixed_critic):
            yield "student.advantage_temperature", "0 without --return-model.kind iql: no other critic values states"
        if self.student.pessimism and self.return_model.members < 2:
            yield (
                "student.pessimism",
                "0 for a return model of one network, which disagrees with nobody; use --student.pessimism 0, or "
                "--return-model.members 2 or more",
            )
        if self.return_model.members == 0:
            if self.student.reward_weight != 0:
                yield "student.reward_weight", "0 without a return model"
            if self.teacher.reward_weight != 0:
                yield "teacher.reward_weight", "0 without a return model"
            if self.sequence.open_loop:
                yield "return_model.members", "at least 1: a planner needs its goal reward"

    def idle(self, spell: Callable[[str], str]) -> Iterator[tuple[str, str]]:
        """Yield each place that nothing reads beside the other settings, and why."""
        yield from super().idle(spell)
        if not self.student.distilled:
            for each in fields(Teacher):
                if each.name != "network":  # which is the student's as well
                    yield f"teacher.{each.name}", "no teacher is trained; name a preset that has one, as cpu"
        if self.follows:
            for name in ("steps", "batch_size"):
                why = "values that follow the student have its own; use "
                yield f"return_model.optimization.{name}", why + spell(f"student.optimization.{name}")
            yield "return_model.n_step", f"values that follow the student have {spell('student.following.n_step')}"
            yield (
                "return_model.validation_share",
                "values that follow the student are not measured on held-out episodes",
            )
        for name, kinds in NOT_READ_BY.items():
            kind = self.return_model.kind or ("goal" if self.sequence.open_loop else "return-to-go")
            if kind in kinds:
                yield f"return_model.{name}", f"critics of kind {kind!r} have none"
        if not self.student.ctm_weight:
            for name in ("ctm_share", "ode_steps"):
                yield f"student.{name}", f"eq. 5 has no weight; use {spell('student.ctm_weight')} 1, and a teacher"
        if self.follows:
            for name in ("reward_share", "normalize_returns"):
                yield f"student.{name}", "values that follow the student are weighed in units of their own mean"
        else:
            yield "student.following", f"no values follow the student; use {spell('return_model.kind')} q"
        if self.student.distilled and self.teacher.parametrization == "edm":
            yield "teacher.ddpm", f"the teacher is no DDPM; use {spell('teacher.parametrization')} ddpm"


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


def _unet_planner(horizon: int, *down_dims: int) -> Config:
    config = _unet_preset(horizon, UNet(down_dims=down_dims, embed_dim=256))
    return replace(config, return_model=_GOAL_REWARD, sequence=StatesSettings())


def _cpu_planner(horizon: int) -> Config:
    return Config(
        horizon=horizon,
        # It judges every state of every sample's plan: a small one.
        return_model=replace(_GOAL_REWARD, layers=(64, 64)),
        sequence=StatesSettings(points=horizon // 8),
        teacher=Teacher(
            network=MLP(width=384, blocks=3),
            optimization=Optimization(steps=25_000, batch_size=256, learning_rate=1e-3),
        ),
        student=Student(ctm_share=0.25, optimization=Optimization(steps=3_000)),
        evaluation=Evaluation(checkpoints=8),
    )


# Ours, for CPUs: three wider, smoother, farther-sighted return models rank actions better than the paper's one, and where they
# disagree the student is not paid, so that it bears a larger share; CTM on a quarter of a batch twice as large costs the same and
# fits the one-step sample better (benchmarks/README.md).
_CPU_RETURN = ReturnModel(layers=(256, 256), members=3, gamma=0.997, action_noise=0.3)
_CPU_STUDENT = Student(
    reward_weight="auto", reward_share=0.075, pessimism=2.0, ctm_share=0.25, optimization=Optimization(steps=4_000)
)

PRESETS: dict[str, Config] = {
    "following": Config(
        horizon=1,
        return_model=ReturnModel(
            kind="q",
            layers=(256, 256),
            members=2,
            gamma=0.997,
            termination_penalty=0.0,  # a fall costs what would have come after it (docs/method.md has what -100 did)
            optimization=Optimization(steps=12_000, learning_rate=1e-3, weight_decay=0.0),
        ),
        student=Student(
            distilled=False,
            loss="square",
            share="auto",
            ctm_weight=0.0,
            pessimism=0.5**0.5,  # the smaller of two values is their mean less so many of their standard deviations
            optimization=Optimization(steps=12_000, learning_rate=1e-3, weight_decay=1e-5),
        ),
    ),
    "cpu": Config(return_model=_CPU_RETURN, student=_CPU_STUDENT),
    # The whole pipeline in minutes: half the steps, a third of the episodes.
    "demo": Config(
        return_model=replace(_CPU_RETURN, optimization=replace(_CPU_RETURN.optimization, steps=3_000)),
        teacher=Teacher(optimization=Optimization(steps=8_000, batch_size=128, learning_rate=5e-4)),
        student=replace(_CPU_STUDENT, optimization=Optimization(steps=2_000)),
        evaluation=Evaluation(episodes=30, checkpoints=4, checkpoint_episodes=10),
    ),
    "mujoco": _unet_preset(16, UNet(down_dims=(512, 1024, 2048), embed_dim=128)),  # Table 7
    "maze2d-umaze": _unet_planner(128, 256, 512, 1024),  # Table 6, as the next two
    "maze2d-medium": _unet_planner(256, 512, 1024, 2048),
    "maze2d-large": _unet_planner(384, 256, 512, 1024, 2048),
    # The same horizons for CPUs, on the residual MLP.
    "maze2d-umaze-cpu": _cpu_planner(128),
    "maze2d-medium-cpu": _cpu_planner(256),
    "maze2d-large-cpu": _cpu_planner(384),
}


NAMED_NETWORKS: dict[str, Network] = {
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

FOLLOWING_WEIGHT, ENOUGH_SPREAD = 5.0, 0.4
"""How much Q over the mean of |Q| counts beside the data term, where nothing else is said and `return_spread` is at least so much;
in proportion to that where it is less: values then tell actions apart by little more than their errors."""

# Appendix B.2: the discount of each environment.
GAMMA: dict[str, float] = {"hopper": 0.997, "walker2d": 0.99, "halfcheetah": 0.9}
DEFAULT_GAMMA = 0.99

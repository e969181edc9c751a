"""The product: what it returns, that it survives saving, and that no file can hurt whoever opens it."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parts_factory import policy_of, return_model, sampling_of
from safetensors.torch import load_file, save_file

from ractd.diffusion.ddpm import linear_betas
from ractd.diffusion.edm import Preconditioned
from ractd.diffusion.samplers import SAMPLERS, Kind
from ractd.diffusion.settings import DDPM
from ractd.errors import RactdError
from ractd.networks import Network
from ractd.networks.mlp import MLP
from ractd.networks.tensors import write_tensors
from ractd.networks.unet import UNet
from ractd.policies import Policy
from ractd.policies.files import FORMAT_VERSION, describe_policy
from ractd.sequences.actions import Actions, ActionsPart

OBS, A = 3, 2


def make(
    jumps: bool = True,
    history: int = 1,
    horizon: int = 4,
    seed: int = 0,
    network: Network = MLP(width=16, blocks=1, embed_dim=8),  # noqa: B008
    kind: Kind | None = None,
    ddpm: DDPM | None = None,
    **sampling: Any,
) -> Policy:
    torch.manual_seed(seed)
    sequence = Actions(ActionsPart(OBS, A, horizon, history))
    normalizer = sequence.normalizer
    normalizer.observation_mean.copy_(torch.tensor([1.0, -2.0, 0.5]))
    normalizer.observation_std.copy_(torch.tensor([0.5, 2.0, 1.5]))
    normalizer.action_low.copy_(torch.tensor([-2.0, 0.0]))
    normalizer.action_high.copy_(torch.tensor([3.0, 0.5]))
    chosen = sampling_of(kind or ("student" if jumps else "teacher"), ddpm=ddpm, **sampling)
    provenance = {"dataset": "toy", "scores": [1.5, 2.5]}
    policy = policy_of(sequence, chosen, network, env_id="Hopper-v4", provenance=provenance)
    policy.critic = return_model(OBS, A, (8, 16), mean=100.0, std=25.0).requires_grad_(False)
    return policy


def make_ddpm() -> Policy:
    return make(kind="DDPM teacher", ddpm=DDPM(timesteps=30, betas="linear"), sampler="ddpm", steps=30)


def observations(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return make().save(tmp_path / "policy")


# --- acting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jumps", [True, False], ids=["student", "teacher"])
@pytest.mark.parametrize("history", [1, 3])
def test_shapes(jumps: bool, history: int) -> None:
    policy = make(jumps, history)
    one = (OBS,) if history == 1 else (history, OBS)
    assert policy.act(observations(*one)).shape == (A,)
    assert policy.act_chunk(observations(*one)).shape == (4, A)
    assert policy.act(observations(7, *one)).shape == (7, A)
    assert policy.act_chunk(observations(7, *one)).shape == (7, 4, A)
    assert policy.act_chunk(observations(1, *one)).shape == (1, 4, A)
    assert policy.act(observations(7, history, OBS)).shape == (7, A)
    assert policy.act(observations(*one)).dtype == np.float32


def test_the_action_is_the_first_of_the_chunk_and_within_the_data() -> None:
    policy, obs = make(), observations(500, OBS)
    chunk = policy.reset(3).act_chunk(obs)
    np.testing.assert_array_equal(policy.reset(3).act(obs), chunk[:, 0])
    low, high = np.array([-2.0, 0.0]), np.array([3.0, 0.5])
    assert (chunk >= low - 1e-6).all()
    assert (chunk <= high + 1e-6).all()
    assert chunk.std() > 0.1


def test_one_observation_is_a_batch_of_one() -> None:
    policy, obs = make(history=2), observations(2, OBS)
    np.testing.assert_array_equal(policy.reset(1).act(obs), policy.reset(1).act(obs[None])[0])


def test_the_seed_decides_the_actions() -> None:
    policy, obs = make(), observations(5, OBS)
    first, second = policy.reset(0).act(obs), policy.act(obs)
    np.testing.assert_array_equal(policy.reset(0).act(obs), first)
    assert not np.array_equal(first, second)
    assert not np.array_equal(policy.reset(1).act(obs), first)


def test_units_are_the_environments() -> None:
    """By hand, for one step: standardise, x = D(80 z), clip, scale back."""
    policy, obs = make(horizon=1), observations(6, OBS)
    noise = policy.reset(0).draw_noise(6)
    actions = policy.sample(torch.from_numpy(obs)[:, None], noise).numpy()
    condition = torch.from_numpy((obs - np.array([1.0, -2.0, 0.5])) / np.array([0.5, 2.0, 1.5])).float()
    t = torch.full((6,), 80.0)
    x_T = 80 * noise[0]
    raw = policy.network(x_T / (80**2 + 0.25) ** 0.5, t, condition, torch.full((6,), 0.02))
    shifted = 80 - 0.02
    x = 0.25 / (shifted**2 + 0.25) * x_T + shifted * 0.5 / (80**2 + 0.25) ** 0.5 * raw
    expected = np.array([-2.0, 0.0]) + (x.clamp(-1, 1).numpy() + 1) / 2 * np.array([5.0, 0.5])
    np.testing.assert_allclose(actions, expected, rtol=1e-4, atol=1e-4)


def written_out(policy: Policy, obs: np.ndarray, noise: torch.Tensor) -> np.ndarray:
    """Sample with the network as it is, times and all."""
    sampling, normalizer = policy.sampling, policy.sequence.normalizer
    condition = normalizer.observation(torch.from_numpy(obs))
    g = Preconditioned(policy.network, sampling.schedule)  # type: ignore[arg-type]
    x = SAMPLERS["student"][sampling.sampler].sample(g, noise, condition, sampling.schedule, sampling.steps)
    return normalizer.raw_action(x).numpy()


@pytest.mark.parametrize("jumps", [True, False], ids=["student", "teacher"])
def test_candidates_are_ranked_by_the_return_model(jumps: bool) -> None:
    """Against a brute-force search over the same noise, one sample at a time."""
    policy = make(jumps).configured(candidates=6)
    single = policy.configured(candidates=1)
    obs = torch.from_numpy(observations(5, 1, OBS))
    noise = policy.reset(2).draw_noise(5)
    assert noise.shape == (1, 30, 4, A)
    best = policy.sample(obs, noise)
    gained = 0
    for b in range(5):
        tried = [single.sample(obs[b : b + 1], noise[:, 6 * b + i][:, None])[0] for i in range(6)]
        values = [float(single.estimate_return(obs[b].numpy(), a[:1].numpy())[0]) for a in tried]
        torch.testing.assert_close(best[b], tried[int(np.argmax(values))], rtol=1e-4, atol=1e-5)
        gained += int(max(values) > np.mean(values) + 1e-3)
    assert gained == 5


def test_the_return_estimate_is_in_the_datas_units() -> None:
    policy = make()
    critic = policy.need_critic("the test")
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.zero_()
        critic.members[0][-1].bias.fill_(2.0)  # type: ignore[index]
    np.testing.assert_allclose(policy.estimate_return(observations(4, OBS), observations(4, A)), 150.0)


@pytest.mark.parametrize(
    ("observation", "action", "said"),
    [
        (np.zeros(OBS), np.zeros((OBS, A)), "observations have shape"),
        (np.zeros((2, OBS + 1)), np.zeros((2, A)), "observations have shape"),
        (np.zeros((3, OBS)), np.zeros((2, A)), "a row for each action"),
        (np.zeros((2, OBS)), np.zeros((2, A + 1)), "actions have shape"),
        (np.full((2, OBS), np.nan), np.zeros((2, A)), "not finite"),
    ],
)
def test_an_estimate_of_what_does_not_fit_is_refused(observation: Any, action: Any, said: str) -> None:
    with pytest.raises(RactdError, match=said):
        make().estimate_return(observation, action)


@pytest.mark.parametrize(
    ("history", "shape"),
    [(1, (OBS + 1,)), (1, (2, 2, OBS)), (1, ()), (1, (5, OBS - 1)), (2, (OBS,)), (2, (5, OBS)), (2, (4, 3, OBS))],
)
def test_a_wrong_shape_is_refused(history: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(RactdError, match="shape") as error:
        make(history=history).act(np.zeros(shape, np.float32))
    assert str(list(shape)) in str(error.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    obs = observations(4, OBS)
    obs[2, 1] = bad
    with pytest.raises(RactdError, match="NaN or infinite"):
        make().act(obs)


def test_any_memory_layout_is_accepted() -> None:
    """Reversed, read-only, strided, float64 and nested lists: all the same numbers."""
    policy, obs = make(), observations(6, OBS)
    expected = policy.reset(0).act(obs)
    frozen = obs.copy()
    frozen.flags.writeable = False
    for other in (np.asfortranarray(obs), obs.astype(np.float64), obs.tolist(), frozen, obs[::-1].copy()[::-1]):
        np.testing.assert_array_equal(policy.reset(0).act(other), expected)


@pytest.mark.parametrize("change", [{"steps": 0}, {"steps": 1001}, {"candidates": 0}, {"candidates": 5000}])
def test_impossible_sampling_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RactdError, match=next(iter(change))):
        make().configured(**change)
    with pytest.raises(RactdError, match="expected 2 to"):
        make(jumps=False).configured(steps=1)


@pytest.mark.parametrize(
    ("kind", "sampler", "expected"),
    [
        (
            "student",
            "heun",
            r"sampler is 'heun' \(a teacher's\), expected one of consistency, central, jumps for a student",
        ),
        ("student", "ddpm", r"\(a DDPM teacher's\), expected one of consistency, central, jumps for a student"),
        ("teacher", "jumps", r"\(a student's\), expected one of heun, euler, euler-ancestral, dpmpp-2m, ddim for a t"),
        ("teacher", "magic", r"sampler is 'magic', expected one of heun, euler, "),
        ("DDPM teacher", "heun", r"\(a teacher's\), expected one of ddpm, ddim for a DDPM teacher"),
        ("DDPM teacher", "", r"sampler is '', expected one of ddpm, ddim for a DDPM teacher"),
    ],
)
def test_another_policys_sampler_is_refused(kind: str, sampler: str, expected: str) -> None:
    policies = {"student": make(), "teacher": make(jumps=False), "DDPM teacher": make_ddpm()}
    assert policies[kind].sampling.kind == kind
    with pytest.raises(RactdError, match=expected):
        policies[kind].configured(sampler=sampler)


@pytest.mark.parametrize("steps", [0, -3, 31])
def test_steps_that_a_ddpm_teacher_does_not_have(steps: int) -> None:
    with pytest.raises(RactdError, match=rf"steps is {steps}, expected 1 to 30 for the ddim sampler"):
        make_ddpm().configured(sampler="ddim", steps=steps)


def test_every_sampler_of_every_policy_acts() -> None:
    """Each one gives its own actions, the same again from the same seed, and says what it costs."""
    obs = observations(6, OBS)
    for policy in (make(), make(jumps=False), make_ddpm()):
        seen = []
        for sampler in SAMPLERS[policy.sampling.kind]:
            other = policy.configured(sampler=sampler, steps=4)
            assert (other.sampling.sampler, other.sampling.steps) == (sampler, 4)
            seen.append(other.reset(0).act(obs))
            np.testing.assert_array_equal(other.reset(0).act(obs), seen[-1])
        same = [(a, b) for i, a in enumerate(seen) for b in seen[:i] if np.abs(a - b).max() < 1e-4]
        assert len(same) == (policy.sampling.kind == "teacher"), (
            "an EDM teacher's DDIM is Euler's method, nothing else is"
        )


def test_a_ddpm_teacher_by_hand() -> None:
    """One DDIM step from the top: x0 = (x - sqrt(1 - alpha_bar) epsilon) / sqrt(alpha_bar), clipped, is the sample."""
    policy = make_ddpm().configured(sampler="ddim", steps=1)
    obs = torch.from_numpy(observations(6, 1, OBS))
    noise = policy.reset(0).draw_noise(6)
    condition = policy.sequence.normalizer.observation(obs).flatten(1)
    alpha_bar = float((1 - linear_betas(30)).prod())
    sigma = torch.full((6,), ((1 - alpha_bar) / alpha_bar) ** 0.5)
    x0 = (noise[0] - (1 - alpha_bar) ** 0.5 * policy.network(noise[0], sigma, condition)) / alpha_bar**0.5
    expected = policy.sequence.normalizer.raw_action(x0.clamp(-1, 1))
    assert (x0.abs() < 1).float().mean() < 0.9, "there is something to clip"
    torch.testing.assert_close(policy.sample(obs, noise), expected, rtol=1e-3, atol=1e-3)


def test_configured_changes_sampling_alone() -> None:
    policy = make()
    more = policy.configured(steps=3, candidates=2)
    assert (more.evaluations, more.sampling.candidates, policy.evaluations) == (3, 2, 1)
    assert more.network is policy.network
    assert more.sampling == replace(policy.sampling, steps=3, candidates=2)
    assert more.critic is policy.critic
    assert make(jumps=False).configured(steps=80).evaluations == 157


# --- saving and loading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [MLP(width=16, blocks=1, embed_dim=8), UNet((16, 32), 16)], ids=["mlp", "unet"])
@pytest.mark.parametrize("jumps", [True, False], ids=["student", "teacher"])
def test_a_loaded_policy_acts_the_same_bit_for_bit(tmp_path: Path, network: MLP | UNet, jumps: bool) -> None:
    policy = make(jumps, history=2, network=network, candidates=3)
    loaded = Policy.load(policy.save(tmp_path / "p"))
    assert describe_policy(loaded) == describe_policy(policy)
    obs = observations(9, 2, OBS)
    np.testing.assert_array_equal(loaded.reset(5).act_chunk(obs), policy.fold().reset(5).act_chunk(obs))
    np.testing.assert_array_equal(
        loaded.estimate_return(obs[:, 0], obs[:, 1, :A]), policy.estimate_return(obs[:, 0], obs[:, 1, :A])
    )
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["config.json", "policy.safetensors"]


def test_a_ddpm_teacher_is_saved_with_its_schedule(tmp_path: Path) -> None:
    policy = make_ddpm()
    loaded = Policy.load(policy.save(tmp_path / "p"))
    assert describe_policy(loaded) == describe_policy(policy)
    assert loaded.evaluations == 30
    obs = observations(9, OBS)
    np.testing.assert_array_equal(loaded.reset(5).act_chunk(obs), policy.reset(5).act_chunk(obs))
    edit(tmp_path / "p", "sampling", schedule={"kind": "ddpm", "timesteps": 0, "betas": "cosine", "clip": 1.0})
    with pytest.raises(RactdError, match=r"config\.json: PolicyFile\.sampling\.schedule\.timesteps is 0"):
        Policy.load(tmp_path / "p")


def test_a_policy_of_the_first_edition_is_refused(saved: Path) -> None:
    edit(saved, format_version=1)
    with pytest.raises(RactdError, match=r"config\.json: a policy of ractd's first edition.*train it anew"):
        Policy.load(saved)


def test_a_run_directory_opens_its_student(tmp_path: Path) -> None:
    policy = make()
    policy.save(tmp_path / "run" / "policy" / "student")
    (tmp_path / "run" / "config.json").write_text('{"horizon": 4}')
    np.testing.assert_array_equal(
        Policy.load(tmp_path / "run").act(observations(OBS)), policy.fold().reset(0).act(observations(OBS))
    )


def test_saving_over_a_policy_replaces_it(tmp_path: Path) -> None:
    make(seed=0).save(tmp_path)
    make(seed=1).save(tmp_path)
    np.testing.assert_array_equal(
        Policy.load(tmp_path).act(observations(OBS)), make(seed=1).fold().act(observations(OBS))
    )


def edit(directory: Path, part: str | None = None, **changes: Any) -> None:
    """Change fields of a policy's description, or of one of its parts."""
    path = directory / "config.json"
    content = json.loads(path.read_text())
    (content if part is None else content[part]).update(changes)
    path.write_text(json.dumps(content))


def test_nothing_there(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(RactdError, match="no policy here"):
        Policy.load(tmp_path / "nowhere")
    (saved / "policy.safetensors").unlink()
    with pytest.raises(RactdError, match=r"policy\.safetensors: not found"):
        Policy.load(saved)


@pytest.mark.parametrize("kept", [0, 4, 100, -1, -4000])
def test_a_truncated_file_is_refused(saved: Path, kept: int) -> None:
    weights = saved / "policy.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:kept])
    assert len(weights.read_bytes()) < len(content)
    with pytest.raises(RactdError, match=r"policy\.safetensors: .*damaged"):
        Policy.load(saved)


def test_a_newer_format_is_refused(saved: Path) -> None:
    edit(saved, format_version=FORMAT_VERSION + 1)
    with pytest.raises(RactdError, match=rf"config\.json: format version {FORMAT_VERSION + 1}.*newer ractd"):
        Policy.load(saved)


@pytest.mark.parametrize("version", [None, 0, "1", [1], 1.5])
def test_a_senseless_format_version_is_refused(saved: Path, version: Any) -> None:
    edit(saved, format_version=version)
    with pytest.raises(RactdError, match=r"config\.json: format version .*damaged"):
        Policy.load(saved)


@pytest.mark.parametrize(
    "garbage", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b'"text"', b'{"format": "other"}', b"{}"]
)
def test_a_garbled_contract_is_refused(saved: Path, garbage: bytes) -> None:
    (saved / "config.json").write_bytes(garbage)
    with pytest.raises(RactdError, match=r"config\.json: "):
        Policy.load(saved)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("sequence", "observation_dim", "3"),
        ("sequence", "kind", "sentences"),
        ("network", "width", None),
        ("network", "kind", "os.system"),
        ("sampling", "sampler", "magic"),
        ("sampling", "sampler", "heun"),
        ("sampling", "kind", "wizard"),
        ("sampling", "surprise", 1),
        ("sampling", "schedule", {"sigma_min": []}),
        ("critic", "kind", "judge"),
        ("critic", "mean", "high"),
        ("environment", "env_id", 3),
        (None, "surprise", 1),
        (None, "sequence", []),
        (None, "method", 2),
    ],
)
def test_a_wrong_field_is_named(saved: Path, part: str | None, field: str, value: Any) -> None:
    edit(saved, part, **{field: value})
    with pytest.raises(RactdError, match=r"config\.json: ") as error:
        Policy.load(saved)
    named = {"schedule": "sigma_min"}.get(field, field)
    told = str(error.value).partition("config.json: ")[2]
    assert named in told or (isinstance(value, str) and value in told)


@pytest.mark.parametrize("field", ["method", "sequence", "network", "sampling", "critic", "environment", "provenance"])
def test_a_missing_part_is_named(saved: Path, field: str) -> None:
    path = saved / "config.json"
    content = json.loads(path.read_text())
    del content[field]
    path.write_text(json.dumps(content))
    with pytest.raises(RactdError, match=rf"config\.json: field '{field}' of PolicyFile is missing"):
        Policy.load(saved)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("sequence", "observation_dim", -1),
        ("sampling", "steps", 0),
        ("sampling", "steps", 1001),
        ("sampling", "candidates", 0),
        ("critic", "layers", [-1]),
    ],
)
def test_an_impossible_number_is_refused(saved: Path, part: str, field: str, value: Any) -> None:
    edit(saved, part, **{field: value})
    with pytest.raises(RactdError, match=field):
        Policy.load(saved)


def test_dimensions_that_do_not_fit_the_weights_name_the_tensor(saved: Path) -> None:
    edit(saved, "sequence", observation_dim=OBS + 1)
    with pytest.raises(RactdError, match=r"policy\.safetensors: tensor '.*' has shape"):
        Policy.load(saved)


def rewrite(directory: Path, change: Any) -> None:
    path = directory / "policy.safetensors"
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    write_tensors(path, tensors, {"format_version": FORMAT_VERSION})


NAME = "network.output.weight"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tensors: tensors.update({NAME: tensors[NAME][:-1]}), f"tensor '{NAME}' has shape"),
        (lambda tensors: tensors[NAME].view(-1)[3:4].fill_(float("nan")), f"tensor '{NAME}' holds NaN"),
        (lambda tensors: tensors[NAME].view(-1)[3:4].fill_(float("inf")), f"tensor '{NAME}' holds NaN or inf"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "unknown tensor 'extra'"),
        (lambda tensors: tensors.pop(NAME), f"tensor '{NAME}' is missing"),
        (
            lambda tensors: tensors["sequence.normalizer.action_low"].fill_(float("nan")),
            "tensor 'sequence.normalizer.action_low' holds NaN",
        ),
    ],
)
def test_wrong_weights_name_the_tensor(saved: Path, change: Any, expected: str) -> None:
    rewrite(saved, change)
    with pytest.raises(RactdError, match=r"policy\.safetensors: ") as error:
        Policy.load(saved)
    assert expected in str(error.value)


def test_another_programs_safetensors_file_is_refused(saved: Path) -> None:
    save_file({"w": torch.zeros(3)}, saved / "policy.safetensors")
    with pytest.raises(RactdError, match="not a readable ractd file"):
        Policy.load(saved)


class Payload:
    """Unpickling this creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.target), "w"))


def test_a_pickle_is_refused_and_never_run(saved: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    payload = pickle.dumps(Payload(trap))
    pickle.loads(payload).close()
    assert trap.exists(), "the payload works"
    trap.unlink()
    for name in ("policy.safetensors", "config.json"):
        good = (saved / name).read_bytes()
        (saved / name).write_bytes(payload)
        with pytest.raises(RactdError, match=name):
            Policy.load(saved)
        torch.save(Payload(trap), saved / name)
        with pytest.raises(RactdError, match=name):
            Policy.load(saved)
        (saved / name).write_bytes(good)
    assert not trap.exists()
    Policy.load(saved)

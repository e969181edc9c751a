"""Networks: the paper's sizes counted independently, shapes, and a student that starts as its teacher."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from parts_factory import return_model

from ractd.errors import RactdError
from ractd.methods.ractd_settings import PRESETS
from ractd.networks import copy_matching
from ractd.networks.mish import Mish
from ractd.networks.mlp import MLP, MLPDenoiser
from ractd.networks.unet import Conv, ConvTranspose, UNet, UNetDenoiser

# (preset, dimension of x, dimension of the condition, parameters of the teacher, of the student).
# MuJoCo: hopper, 3 actions, 11 observations. Maze2d plans states (4) given state and goal position (4 + 2).
PAPER_SIZES = [
    ("mujoco", 3, 11, 248_046_211, 248_177_923),
    ("maze2d-umaze", 4, 6, 65_299_460, 65_825_028),
    ("maze2d-medium", 4, 6, 251_970_308, 252_495_876),
    ("maze2d-large", 4, 6, 256_309_252, 256_834_820),
]
SMALL_UNET = UNet(down_dims=(16, 32), embed_dim=16, groups=8)
SMALL_MLP = MLP(width=24, blocks=2, embed_dim=8)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def unet_parameters(down: tuple[int, ...], embed: int, kernel: int, dim: int, condition: int, jumps: bool) -> int:
    """Count by arithmetic what the tables describe: two FiLM blocks a level and in the middle, a decoder that mirrors it."""

    def linear(i: int, o: int) -> int:
        return i * o + o

    def conv(i: int, o: int, k: int) -> int:
        return k * i * o + o

    def block(i: int, o: int) -> int:
        two_convs = conv(i, o, kernel) + 2 * o + conv(o, o, kernel) + 2 * o  # each with a group norm's scale and shift
        film = linear(embed + condition, 2 * o)
        return two_convs + film + (conv(i, o, 1) if i != o else 0)

    embedding = linear(embed, 4 * embed) + linear(4 * embed, embed)
    encoder = sum(block(i, o) + block(o, o) for i, o in pairwise((dim, *down)))
    shrink = sum(conv(w, w, 3) for w in down[:-1])
    middle = 2 * block(down[-1], down[-1])
    decoder = sum(block(2 * o, i) + block(i, i) for i, o in pairwise(down))
    grow = sum(conv(w, w, 4) for w in down[:-1])
    output = conv(down[0], down[0], kernel) + 2 * down[0] + conv(down[0], dim, 1)
    return embedding * (2 if jumps else 1) + encoder + shrink + middle + decoder + grow + output


@pytest.mark.parametrize(("preset", "dim", "condition", "teacher", "student"), PAPER_SIZES)
def test_parameters_of_the_papers_sizes(preset: str, dim: int, condition: int, teacher: int, student: int) -> None:
    """Tables 6 and 7, written down here, counted by arithmetic, and built."""
    config = PRESETS[preset]
    network = config.teacher.network
    assert isinstance(network, UNet)
    for jumps, expected in ((False, teacher), (True, student)):
        with torch.device("meta"):
            built = count(network.build((config.horizon, dim), condition, jumps))
        by_hand = unet_parameters(network.down_dims, network.embed_dim, network.kernel_size, dim, condition, jumps)
        assert built == by_hand
        assert built == expected


def test_presets_are_the_papers_tables() -> None:
    sizes = {name: (c.horizon, c.teacher.network) for name, c in PRESETS.items() if isinstance(c.teacher.network, UNet)}
    assert sizes == {
        "mujoco": (16, UNet((512, 1024, 2048), 128, 5)),
        "maze2d-umaze": (128, UNet((256, 512, 1024), 256, 5)),
        "maze2d-medium": (256, UNet((512, 1024, 2048), 256, 5)),
        "maze2d-large": (384, UNet((256, 512, 1024, 2048), 256, 5)),
    }
    assert all(PRESETS[name].return_model.layers == (32, 64, 128, 256) for name in sizes)


def test_the_return_network_is_table_8() -> None:
    network = return_model(11, 3, (32, 64, 128, 256))
    (member,) = network.members
    assert isinstance(member, torch.nn.Sequential)
    linears = [m for m in member if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linears] == [(14, 32), (32, 64), (64, 128), (128, 256), (256, 1)]
    assert [type(m).__name__ for m in member] == ["Linear", "Mish"] * 4 + ["Linear"]
    assert count(network) == 15 * 32 + 33 * 64 + 65 * 128 + 129 * 256 + 257 == 44193
    assert network.value(torch.randn(5, 11), torch.randn(5, 4, 3)).shape == (5,)


def test_the_return_network_is_the_mean_of_its_members() -> None:
    network = return_model(11, 3, (8, 16), members=3)
    observation, action = torch.randn(5, 11), torch.rand(5, 3) * 2 - 1
    alone = [member(torch.cat([observation, action], 1)).squeeze(1) for member in network.members]
    assert not torch.allclose(alone[0], alone[1])
    torch.testing.assert_close(network.value(observation, action[:, None]), (alone[0] + alone[1] + alone[2]) / 3)
    assert count(network) == 3 * count(return_model(11, 3, (8, 16)))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(5, 1, 2), (3, 2, 1), (1, 1, 0)])
def test_the_convolutions_are_those_over_time(kernel: int, stride: int, padding: int) -> None:
    """Forward and backward, against PyTorch's own on sequences; their weights have the same names and shapes."""
    torch.manual_seed(0)
    sequences = torch.nn.Conv1d(6, 10, kernel, stride=stride, padding=padding)
    images = Conv(6, 10, kernel, stride=stride, padding=padding)
    images.load_state_dict(sequences.state_dict())
    x = torch.randn(4, 6, 8)
    same_gradients(sequences, images, x)


def test_the_transposed_convolution_is_that_over_time() -> None:
    torch.manual_seed(0)
    sequences = torch.nn.ConvTranspose1d(6, 6, 4, stride=2, padding=1)
    images = ConvTranspose(6, 6, 4, stride=2, padding=1)
    images.load_state_dict(sequences.state_dict())
    same_gradients(sequences, images, torch.randn(4, 6, 8))


def same_gradients(sequences: torch.nn.Module, images: torch.nn.Module, x: torch.Tensor) -> None:
    ours, reference = x.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_(), x.clone().requires_grad_()
    out, expected = images(ours.unsqueeze(2)), sequences(reference)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out.squeeze(2), expected)
    weights = torch.randn_like(expected)
    (out.squeeze(2) * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, reference.grad)
    for own, other in zip(images.parameters(), sequences.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("network", [SMALL_UNET, SMALL_MLP], ids=["unet", "mlp"])
@pytest.mark.parametrize("jumps", [False, True])
@pytest.mark.parametrize(("horizon", "dim", "condition"), [(4, 3, 11), (8, 1, 1), (16, 6, 34)])
def test_shapes(network: UNet | MLP, jumps: bool, horizon: int, dim: int, condition: int) -> None:
    model = network.build((horizon, dim), condition, jumps)
    assert isinstance(model, UNetDenoiser if network is SMALL_UNET else MLPDenoiser)
    x, t, c = torch.randn(5, horizon, dim), torch.rand(5) * 80 + 0.02, torch.randn(5, condition)
    out = model(x, t, c, torch.zeros(5)) if jumps else model(x, t, c)
    assert out.shape == x.shape
    assert torch.isfinite(out).all()


@pytest.mark.parametrize(
    ("horizon", "levels", "nearest"),
    [(10, 3, ("8", "12")), (3, 3, ("4",)), (17, 2, ("16", "18")), (100, 4, ("96", "104"))],
)
def test_a_horizon_that_cannot_be_halved_names_the_nearest(horizon: int, levels: int, nearest: tuple[str, ...]) -> None:
    network = UNet(down_dims=tuple(16 * 2**i for i in range(levels)), embed_dim=8)
    with pytest.raises(RactdError, match=f"horizon {horizon} ") as error:
        network.build((horizon, 2), 3, False)
    advice = str(error.value).split("use ")[1]
    assert advice.split(" or ") == list(nearest)
    for valid in nearest:
        assert network.build((int(valid), 2), 3, False) is not None


def test_a_width_that_the_groups_do_not_divide_is_refused() -> None:
    with pytest.raises(RactdError, match=r"width 20 .* 8 groups"):
        (UNet(down_dims=(16, 20), embed_dim=8)).build((4, 2), 3, False)


def randomized(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """A trained network has no zero layers."""
    torch.manual_seed(seed)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


@pytest.mark.parametrize("network", [SMALL_UNET, SMALL_MLP], ids=["unet", "mlp"])
def test_a_student_starts_as_its_teacher_for_every_target_time(network: UNet | MLP) -> None:
    teacher = randomized(network.build((4, 2), 3, False))
    torch.manual_seed(1)
    student = network.build((4, 2), 3, True)
    left = copy_matching(teacher, student)
    assert left
    assert all(name.startswith("embedding.s.") for name in left)
    x, t, c = torch.randn(6, 4, 2), torch.rand(6) * 80 + 0.02, torch.randn(6, 3)
    expected = teacher(x, t, c)
    assert expected.abs().max() > 0.1
    for s in (torch.zeros(6), torch.full((6,), 0.02), t / 2, t):
        torch.testing.assert_close(student(x, t, c, s), expected, rtol=0, atol=0)


@pytest.mark.parametrize("network", [SMALL_UNET, SMALL_MLP], ids=["unet", "mlp"])
def test_a_student_tells_target_times_apart(network: UNet | MLP) -> None:
    student = randomized(network.build((4, 2), 3, True))
    x, t, c = torch.randn(1, 4, 2), torch.tensor([80.0]), torch.randn(1, 3)
    outputs = [student(x, t, c, torch.tensor([s])) for s in (0.02, 0.5, 5.0, 80.0)]
    for i, a in enumerate(outputs):
        for b in outputs[:i]:
            assert (a - b).abs().max() > 1e-3


def test_copying_to_another_width_takes_only_what_agrees() -> None:
    teacher = randomized(SMALL_MLP.build((4, 2), 3, False))
    student = MLP(width=40, blocks=2, embed_dim=8).build((4, 2), 3, True)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    left = set(copy_matching(teacher, student))
    source = teacher.state_dict()
    agreeing = {n for n, v in before.items() if n in source and source[n].shape == v.shape}
    assert agreeing >= {"embedding.t.layers.0.weight", "output.bias"}
    assert left == set(before) - agreeing
    for name, value in student.state_dict().items():
        torch.testing.assert_close(value, source[name] if name in agreeing else before[name], rtol=0, atol=0)
    # A copy, not a share: training the student leaves the teacher alone.
    with torch.no_grad():
        student.get_parameter("output.bias").add_(1)
    assert not torch.equal(student.get_parameter("output.bias"), teacher.get_parameter("output.bias"))


def test_mish_and_its_gradient_are_pytorchs_in_double_precision() -> None:
    x = torch.cat([torch.linspace(-30, 30, 6_001), torch.tensor([-1e4, 1e4, 0.0])]).requires_grad_()
    exact = x.detach().double().requires_grad_()
    ours, expected = Mish()(x), torch.nn.functional.mish(exact)
    (gradient,) = torch.autograd.grad(ours.square().sum(), x)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), exact)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-6, atol=2e-5)
    with torch.inference_mode():
        torch.testing.assert_close(Mish()(x).double(), expected, rtol=1e-6, atol=2e-6)


def test_mish_can_be_compiled_where_nothing_is_trained() -> None:
    x = torch.randn(100)
    with torch.inference_mode():
        compiled = torch.compile(Mish(), backend="eager", fullgraph=True)(x)
    torch.testing.assert_close(compiled, torch.nn.functional.mish(x), rtol=0, atol=0)

"""What matrix products of training cost on this processor: PyTorch's two routes in single precision, and bf16, with their errors.

    python benchmarks/matmul.py [--name matmul_amx]

`torch.set_float32_matmul_precision("medium")` sends products to oneDNN where the processor knows bf16, "highest" to the BLAS that
PyTorch was built with. One thread, in turns; the median of rounds. Writes benchmarks/results/NAME.json, of a processor each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from common import print_table, summary, write_result
from torch import Tensor
from torch.nn.functional import linear

SHAPES = {
    "a layer": (256, 256, 256),
    "FiLM": (256, 64, 512),
    "a critic's first": (256, 23, 256),
    "a large batch": (1024, 256, 256),
}
"""Rows, inputs, outputs."""
ROUNDS, SECONDS = 9, 0.1


def single(precision: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a product in single precision by one of PyTorch's routes."""

    def product(x: Tensor, weight: Tensor) -> Tensor:
        torch.set_float32_matmul_precision(precision)
        return linear(x, weight)

    return product


def bf16(x: Tensor, weight: Tensor) -> Tensor:
    """Return a product in bf16, its casts included, as autocast makes it."""
    return linear(x.bfloat16(), weight.bfloat16()).float()


ROUTES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "highest": single("highest"),
    "medium": single("medium"),
    "bf16": bf16,
}


def speed(product: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor) -> float:
    """Return GFLOP/s of processor time."""
    count, began = 0, time.process_time()
    while time.process_time() - began < SECONDS:
        for _ in range(50):
            product(x, weight)
        count += 50
    return 2e-9 * count * x.shape[0] * weight.numel() / (time.process_time() - began)


def main() -> None:
    """Measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--name", default="matmul")
    name_of_result = parser.parse_args().name
    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    for name, (rows, inputs, outputs) in SHAPES.items():
        torch.manual_seed(0)
        x, weight = torch.randn(rows, inputs), torch.randn(outputs, inputs)
        exact = x.double() @ weight.double().T
        rounds: dict[str, list[float]] = {route: [] for route in ROUTES}
        for _ in range(ROUNDS):
            for route, product in ROUTES.items():
                rounds[route].append(speed(product, x, weight))
        result[name] = {
            route: {
                "gflops": summary(rounds[route]),
                "relative_error": float((product(x, weight) - exact).abs().max() / exact.abs().max()),
            }
            for route, product in ROUTES.items()
        }
    torch.set_float32_matmul_precision("highest")
    libraries = [line.strip(" -") for line in torch.__config__.show().splitlines() if "Intel(R)" in line]
    write_result(name_of_result, {"shapes": SHAPES, "libraries": libraries, "result": result})
    lines = [
        [
            f"{name} {SHAPES[name]}",
            *(f"{of['gflops']['median']:.0f} ({of['relative_error']:.0e})" for of in routes.values()),
        ]
        for name, routes in result.items()
    ]
    print_table("GFLOP/s of one core (largest error)", ["product", *ROUTES], lines)


if __name__ == "__main__":
    main()

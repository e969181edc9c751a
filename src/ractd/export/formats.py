"""Writers of graphs: ONNX, OpenVINO and `torch.export`, in full and reduced precision."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ractd.errors import RactdError

Format = Literal["onnx", "openvino", "pt2"]
Precision = Literal["fp32", "fp16", "int8"]
OPSET = 18
"""The lowest that torch writes without converting, so that older engines read it too."""
SMALLEST_INT8 = 64
"""Layers with fewer inputs or outputs stay as they are: they cost nothing and their rounding reaches the actions directly."""
MAX_PROTOBUF = 2**31 - 1


def trace(graph: nn.Module, inputs: Mapping[str, Tensor]) -> torch.export.ExportedProgram:
    """Trace a graph with a dynamic batch: the first dimension of every input, of which the examples hold more than one."""
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple({0: batch} for _ in inputs)
    with _quiet(), torch.no_grad():
        program = torch.export.export(graph.eval(), tuple(inputs.values()), dynamic_shapes=shapes)
    # Where a line of code lay on this machine is nobody's business.
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


def write_onnx(
    program: torch.export.ExportedProgram,
    names: tuple[list[str], list[str]],
    contract: str,
    precision: Precision,
    to: Path,
) -> list[Path]:
    """Write `policy.onnx` into the directory `to`; return the files. `names` are those of inputs and outputs."""
    path = to / "policy.onnx"
    # ONNX Runtime has neither mish nor a fast softplus; OpenVINO has mish.
    model = onnx_model(program, names, contract, precision, {torch.ops.aten.mish.default: _mish})
    path.write_bytes(model.SerializeToString())
    return [path]


def write_openvino(
    program: torch.export.ExportedProgram,
    names: tuple[list[str], list[str]],
    contract: str,
    precision: Precision,
    to: Path,
) -> list[Path]:
    """Write `policy.xml` and `policy.bin` into the directory `to`; return the files."""
    openvino = _import("openvino", "openvino")
    if precision == "int8":
        raise RactdError("--precision int8 is for --format onnx; OpenVINO graphs are written in fp32 or fp16")
    written = _letting_nan_through(onnx_model(program, names, contract, "fp32"))
    model = openvino.Core().read_model(written.SerializeToString())
    model.set_rt_info(contract, ["ractd"])
    openvino.save_model(model, to / "policy.xml", compress_to_fp16=precision == "fp16")
    return [to / "policy.xml", to / "policy.bin"]


def write_pt2(
    program: torch.export.ExportedProgram,
    names: tuple[list[str], list[str]],
    contract: str,
    precision: Precision,
    to: Path,
) -> list[Path]:
    """Write `policy.pt2`, which `torch.export.load` opens, into the directory `to`; return the files."""
    if precision != "fp32":
        raise RactdError(f"--precision {precision} is for --format onnx and openvino; .pt2 is written in fp32")
    program.example_inputs = None  # type: ignore[assignment]  # they would be pickled into the archive
    with _quiet():
        torch.export.save(program, to / "policy.pt2", extra_files={"policy.json": contract})
    return [to / "policy.pt2"]


WRITERS: dict[Format, Callable[..., list[Path]]] = {"onnx": write_onnx, "openvino": write_openvino, "pt2": write_pt2}


def _mish(x: Any) -> Any:
    """Mish of `x` in ONNX, by the closed form of `ractd.networks.mish`: `2 x / (1 + s^2) - x` with `s = 1/(1 + e^x)`."""
    from onnxscript import opset18 as op

    s = op.Sigmoid(op.Neg(x))
    return op.Sub(op.Div(op.Mul(x, 2.0), op.Add(op.Mul(s, s), 1.0)), x)


def onnx_model(
    program: torch.export.ExportedProgram,
    names: tuple[list[str], list[str]],
    contract: str,
    precision: Precision,
    translations: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
) -> Any:
    """Return a traced graph as a checked ONNX model with the contract among its metadata.

    `translations` are operators of PyTorch that are written otherwise than `torch.onnx` would.
    """
    onnx = _import("onnx", "export")
    _import("onnxscript", "export")
    with _quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=names[0],
            output_names=names[1],
            opset_version=OPSET,
            optimize=True,
            verbose=False,
            custom_translation_table=dict(translations or {}),
        )
    assert exported is not None
    model = exported.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
        del value.metadata_props[:]
    del model.graph.value_info[:]
    model.graph.name, model.producer_name = "policy", "ractd"
    model = _PRECISIONS[precision](model)
    del model.metadata_props[:]
    model.metadata_props.add(key="ractd", value=contract)
    if model.ByteSize() > MAX_PROTOBUF:
        raise RactdError(f"the ONNX graph has {model.ByteSize() / 1e9:.1f} GB, more than its format can hold (2 GB)")
    onnx.checker.check_model(model)
    return model


def _letting_nan_through(model: Any) -> Any:
    """Add `x - x`, which is 0 or NaN, to what is clipped: OpenVINO clips NaN to a bound, which a robot would execute."""
    from onnx import helper

    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type in ("Clip", "Max", "Min"):
            x, clipped = node.input[0], node.output[0]
            node.output[0] = f"{clipped}.clipped"
            nodes += [
                helper.make_node("Sub", [x, x], [f"{clipped}.nan"]),
                helper.make_node("Add", [f"{clipped}.clipped", f"{clipped}.nan"], [clipped]),
            ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _half_weights(model: Any) -> Any:
    """Store matrices in half precision; engines widen them once, at load, where the hardware has no half arithmetic."""
    import onnx
    from onnx import numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            name, values = tensor.name, numpy_helper.to_array(tensor)
            if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
                raise RactdError(f"--precision fp16: weights of {name!r} are too large for it; use fp32")
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _int8_weights(model: Any) -> Any:
    """Quantise large matrices to 8 bits per column, and what is multiplied with them at run time."""
    import tempfile

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    sizes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    chosen = [
        node.name
        for node in model.graph.node
        if node.op_type in ("Gemm", "MatMul") and min(sizes.get(node.input[1], [0])) >= SMALLEST_INT8
    ]
    if not chosen:
        raise RactdError(
            f"--precision int8: the network has no fully connected layer of at least {SMALLEST_INT8} inputs and outputs "
            "to quantise; use fp16, or --format openvino for U-Nets"
        )
    with tempfile.TemporaryDirectory() as directory, _quiet():
        path = Path(directory) / "int8.onnx"
        # Seven bits: processors without VNNI add pairs of products in 16 bits, which eight bits overflow.
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["Gemm", "MatMul"],
            # The quantiser takes a Gemm apart first, and names the product after it.
            nodes_to_quantize=[*chosen, *(f"{name}_MatMul" for name in chosen)],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)


_PRECISIONS: dict[Precision, Callable[[Any], Any]] = {
    "fp32": lambda model: model,
    "fp16": _half_weights,
    "int8": _int8_weights,
}


def _import(module: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise RactdError(f"export needs {module}, which is not installed: pip install 'ractd[{extra}]'") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the converters tell their own developers off the user's screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

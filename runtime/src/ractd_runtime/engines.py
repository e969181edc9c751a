"""The engines: a graph and its buffers, bound once and run many times without an allocation."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ractd_runtime.contract import Contract
from ractd_runtime.errors import RactdError

Floats = NDArray[np.float32]


class Buffers(NamedTuple):
    """Arrays of one batch size, and the call that reads the inputs and writes the actions. Not for two threads at once."""

    inputs: dict[str, Floats]
    """By name: `observation` [B, h, O], `noise` [B, draws, N, c, D] and what else the contract names."""
    actions: Floats
    """[B, c, A]."""
    run: Callable[[], Any]


class Engine(Protocol):
    """A graph that is ready to run."""

    embedded: str | None
    """The graph's own copy of the contract, as JSON."""

    def bind(self, inputs: dict[str, Floats], actions: Floats) -> Callable[[], Any]:
        """Return a call that runs the graph from the inputs into the actions, all in place."""


def make_buffers(engine: Engine, contract: Contract, batch: int) -> Buffers:
    """Make the buffers of one batch size."""
    inputs = {name: np.zeros((batch, *shape), np.float32) for name, shape in contract.inputs.items()}
    actions = np.zeros((batch, contract.horizon, contract.action_dim), np.float32)
    return Buffers(inputs, actions, engine.bind(inputs, actions))


def open_engine(contract: Contract, threads: int, spin: bool) -> Engine:
    """Open the contract's graph on `threads` threads; raises `RactdError` where the engine is missing or refuses it."""
    try:
        engine = ENGINES[contract.graph_format](contract.graph, threads, spin)
    except ImportError as error:
        package, install = NEEDS[contract.graph_format]
        raise RactdError(f"{contract.path.parent}: needs {package}: pip install '{install}' ({error})") from None
    except Exception as error:  # both engines have a dozen of their own
        raise RactdError(f"{contract.path.parent}: the graph can't be opened ({str(error).strip()[:300]})") from None
    contract.check_graph(engine.embedded)
    return engine


NEEDS = {"onnx": ("onnxruntime", "ractd-runtime"), "openvino": ("openvino", "ractd-runtime[openvino]")}
"""By a graph's format, the package that runs it, and what brings it."""


class OnnxEngine:
    """ONNX Runtime on the CPU."""

    def __init__(self, graph: dict[str, bytes], threads: int, spin: bool) -> None:
        import onnxruntime

        self._onnxruntime = onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # A spinning thread answers sooner and takes a core from whoever shares it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
        # Denormal numbers take a hundred times as long as others.
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        (model,) = graph.values()
        build = partial(onnxruntime.InferenceSession, model, options, providers=["CPUExecutionProvider"])
        # In a thread of its own: the first session of a process lets the thread that builds it take denormal numbers for 0, in all
        # that it computes from then on.
        with ThreadPoolExecutor(1) as thread:
            self._session = thread.submit(build).result()
        self.embedded: str | None = self._session.get_modelmeta().custom_metadata_map.get("ractd")

    def bind(self, inputs: dict[str, Floats], actions: Floats) -> Callable[[], Any]:
        """See `Engine.bind`."""
        value, binding = self._onnxruntime.OrtValue.ortvalue_from_numpy, self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, value(array))
        binding.bind_ortvalue_output("actions", value(actions))
        return partial(self._session.run_with_iobinding, binding)


@cache
def _openvino_core() -> Any:
    """Return the process' one `openvino.Core`, which stays.

    Its CPU plugin gives signals a stack of their own, and at its end brings back the one that it found. Of two that end in
    another order than they began, the second brings back the first one's, which is freed by then: the next Ctrl-C, or SIGTERM,
    or SIGHUP would end the process by a segmentation fault.
    """
    import openvino

    return openvino.Core()


class OpenVINOEngine:
    """OpenVINO on the CPU; its threads know no spinning."""

    def __init__(self, graph: dict[str, bytes], threads: int, spin: bool) -> None:
        import openvino

        self._openvino = openvino
        (xml,) = (data for name, data in graph.items() if name.endswith(".xml"))
        (weights,) = (data for name, data in graph.items() if name.endswith(".bin"))
        core = _openvino_core()
        model = core.read_model(xml, weights)
        self._model = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
                "ENABLE_CPU_PINNING": False,
            },
        )
        self.embedded: str | None = model.get_rt_info(["ractd"]).astype(str) if model.has_rt_info(["ractd"]) else None

    def bind(self, inputs: dict[str, Floats], actions: Floats) -> Callable[[], Any]:
        """See `Engine.bind`."""
        request = self._model.create_infer_request()
        for name, array in (*inputs.items(), ("actions", actions)):
            request.set_tensor(name, self._openvino.Tensor(array, shared_memory=True))
        return request.infer  # type: ignore[no-any-return]


ENGINES: dict[str, Callable[[dict[str, bytes], int, bool], Engine]] = {
    "onnx": OnnxEngine,
    "openvino": OpenVINOEngine,
}

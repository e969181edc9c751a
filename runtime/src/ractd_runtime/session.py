"""The engines: a graph and its buffers, bound once and run many times without an allocation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ractd_runtime.contract import Contract
from ractd_runtime.errors import RactdError

Floats = NDArray[np.float32]


class Bound(NamedTuple):
    """Buffers of one batch size and the call that reads two and writes the third. Not for two threads at once."""

    observation: Floats
    """[B, h, O]."""
    noise: Floats
    """[B, draws, N, c, D]."""
    actions: Floats
    """[B, c, A]."""
    run: Callable[[], Any]


class Session(Protocol):
    """A graph that is ready to run."""

    embedded: str | None
    """The graph's own copy of the contract, as JSON."""

    def bind(self, observation: Floats, noise: Floats, actions: Floats) -> Callable[[], Any]:
        """Return a call that runs the graph from the first two arrays into the third, all in place."""


def bound(session: Session, contract: Contract, batch: int) -> Bound:
    """Make the buffers of one batch size."""
    c = contract
    observation = np.zeros((batch, c.history, c.observation_dim), np.float32)
    noise = np.zeros((batch, *c.noise_shape), np.float32)
    actions = np.zeros((batch, c.horizon, c.action_dim), np.float32)
    return Bound(observation, noise, actions, session.bind(observation, noise, actions))


def open_session(contract: Contract, threads: int, spin: bool) -> Session:
    """Open the contract's graph on `threads` threads; raises `RactdError` where the engine is missing or refuses it."""
    try:
        session = ENGINES[contract.graph_format](contract.graph, threads, spin)
    except ImportError as error:
        raise RactdError(
            f"{contract.path.parent}: needs {contract.graph_format}: pip install 'ractd-runtime[openvino]' ({error})"
        ) from None
    except Exception as error:  # both engines have a dozen of their own
        raise RactdError(f"{contract.path.parent}: the graph can't be opened ({str(error).strip()[:300]})") from None
    contract.check_graph(session.embedded)
    return session


class OnnxSession:
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
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.embedded: str | None = self._session.get_modelmeta().custom_metadata_map.get("ractd")

    def bind(self, observation: Floats, noise: Floats, actions: Floats) -> Callable[[], Any]:
        value, binding = self._onnxruntime.OrtValue.ortvalue_from_numpy, self._session.io_binding()
        binding.bind_ortvalue_input("observation", value(observation))
        binding.bind_ortvalue_input("noise", value(noise))
        binding.bind_ortvalue_output("actions", value(actions))
        return partial(self._session.run_with_iobinding, binding)


class OpenVINOSession:
    """OpenVINO on the CPU; its threads know no spinning."""

    def __init__(self, graph: dict[str, bytes], threads: int, spin: bool) -> None:
        import openvino

        self._openvino = openvino
        (xml,) = (data for name, data in graph.items() if name.endswith(".xml"))
        (weights,) = (data for name, data in graph.items() if name.endswith(".bin"))
        core = openvino.Core()
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

    def bind(self, observation: Floats, noise: Floats, actions: Floats) -> Callable[[], Any]:
        request = self._model.create_infer_request()
        tensor = partial(self._openvino.Tensor, shared_memory=True)
        request.set_tensor("observation", tensor(observation))
        request.set_tensor("noise", tensor(noise))
        request.set_tensor("actions", tensor(actions))
        return request.infer  # type: ignore[no-any-return]


ENGINES: dict[str, Callable[[dict[str, bytes], int, bool], Session]] = {
    "onnx": OnnxSession,
    "openvino": OpenVINOSession,
}

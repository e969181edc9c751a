"""The paper's U-Net (Table 7) on a GPU: speed of training, time of an action, and what minutes of training score.

    python benchmarks/gpu.py --data DIR/hopper-medium-replay.hdf5       # on a card: under 9 minutes, results/gpu.json
    python benchmarks/gpu.py --device cpu --tiny                        # the trial without a card: a small U-Net, 40 s

Sections run in order, each in its own time: the card; samples/s of return model, teacher and student in float32 and bfloat16;
milliseconds of an action, one step beside the 80-bin teacher on the same network, eager, folded, as a CUDA graph and compiled;
a policy trained for as many steps as the rest of the time holds, and its score in 100 episodes. A number is in the file, by
atomic rename, as soon as it is known: a run that is stopped keeps what it has, a section that fails is one sentence and the
next one goes on. It needs the repository, its `envs` extra and the data, no network and no installation.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NoReturn

ROOT = Path(__file__).resolve().parent.parent
BEGAN = time.monotonic()
SECONDS = {"card": 2.0, "training": 60.0, "action": 105.0, "policy": 360.0}
"""What each section may take, 8 minutes 47 in all, imports included; what one leaves the last has."""
SECONDS_TINY = {"card": 1.0, "training": 8.0, "action": 14.0, "policy": 16.0}
MODULES = ("accelerate", "filelock", "h5py", "msgspec", "numpy", "platformdirs", "rich", "safetensors", "torch", "tyro")
"""What is imported on the way."""
TO_PLAY = ("gymnasium", "mujoco")
"""What scores need besides, and EnvPool for speed."""


@dataclass(frozen=True)
class Options:
    """What is measured, on what, for how long."""

    data: Path = ROOT.parent / "shared" / "data" / "hopper-medium-replay.hdf5"
    """The dataset; only `policy` depends on what is in it."""
    minutes: float | None = None
    """All sections together; by default what `SECONDS` says, else shared in its proportions."""
    device: Literal["cuda", "cpu"] = "cuda"
    """`cpu` is for trying."""
    tiny: bool = False
    """A small U-Net, small batches, two episodes: see that everything works."""
    out: Path | None = None
    """The file of results; by default `results/gpu.json`, of `--tiny` one in the system's folder for temporary files."""


def stop(message: str) -> NoReturn:
    """End with one sentence and exit code 2."""
    print(message, file=sys.stderr)
    raise SystemExit(2)


def main() -> None:
    """Measure section by section, write after each number, print a table."""
    if find_spec("ractd") is None:
        sys.path[:0] = [str(ROOT / "src"), str(ROOT / "runtime" / "src")]
    missing = [name for name in MODULES if find_spec(name) is None]
    if missing:
        stop(f"gpu.py: this Python lacks {', '.join(missing)}; install what pyproject.toml asks for")
    import tyro

    options = tyro.cli(Options, description=__doc__)
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        stop("gpu.py finds no CUDA device here; try it with --device cpu --tiny")
    import gpu_action
    import gpu_sections as sections
    from common import RESULTS, write_result

    from ractd.data import load_dataset
    from ractd.data.environment import REGISTERED
    from ractd.errors import RactdError
    from ractd.settings import to_json

    try:
        data = load_dataset(options.data)
        config = sections.configuration(data, options.tiny)
    except RactdError as error:
        stop(str(error))
    unplayable = [name for name in TO_PLAY if find_spec(name) is None]
    if unplayable:
        print(f"nothing will be scored: this Python lacks {', '.join(unplayable)}", file=sys.stderr)
        data = replace(data, env_id=None, env_settings=REGISTERED, known_ends=data.ends)
    out = options.out or (Path(tempfile.gettempdir()) / "gpu_tiny.json" if options.tiny else RESULTS / "gpu.json")
    table = SECONDS_TINY if options.tiny else SECONDS
    total = sum(table.values()) if options.minutes is None else 60 * options.minutes
    result: dict[str, Any] = {
        "tiny": options.tiny,
        "device": options.device,
        "minutes": total / 60,
        "dataset": data.name,
    }
    result["network"] = to_json(config.teacher.network)
    work = sections.Work(options.device, options.tiny, data, config, result)
    measured: dict[str, sections.Section] = {
        "card": sections.card,
        "training": sections.training,
        "action": gpu_action.action,
        "policy": sections.policy,
    }

    def write() -> None:
        result["seconds"] = time.monotonic() - BEGAN
        write_result(out.stem, result, out.parent)

    *_, last = measured
    try:
        for name, measure in measured.items():
            found = result[name] = {}

            def keep(key: str, value: Any, found: dict[str, Any] = found) -> None:
                found[key] = value
                write()

            share = total * table[name] / sum(table.values())
            seconds = BEGAN + total - time.monotonic() if name == last and not options.tiny else share
            print(f"{name}: {seconds:.0f} s", flush=True)
            start = time.monotonic()
            try:
                with sections.time_limit(work.patience * seconds):
                    measure(work, keep, seconds)
            except sections.OutOfTime:
                found["stopped"] = f"its {work.patience * seconds:.0f} s were over; what it had by then is here"
            except Exception as error:
                found["failed"] = sections.sentence(error)
            keep("seconds", time.monotonic() - start)
    except KeyboardInterrupt:
        result["stopped"] = "by the user; what was known by then is here"
        write()
        print(f"stopped; {out} has what was known by then", file=sys.stderr)
        raise SystemExit(130) from None
    except RactdError as error:  # the file can't be written, which the first number shows
        stop(str(error))
    show(result)
    print(out)


def show(result: dict[str, Any]) -> None:
    """Print what was found."""
    from common import print_table

    training = {key: row for key, row in result["training"].items() if isinstance(row, dict) and "ms_per_step" in row}
    rows = [
        [
            key,
            f"{row['samples_per_second']['median']:,.0f}",
            f"{row['ms_per_step']:.2f}",
            f"{row['tflops_per_second']:.2f}",
        ]
        for key, row in training.items()
    ]
    print_table(str(result["card"].get("name")), ["stage", "samples/s", "ms/step", "TFLOP/s"], rows)
    actions = {key: row for key, row in result["action"].items() if isinstance(row, dict) and "ms" in row}
    rows = []
    for key, row in actions.items():
        for name, ms in row["ms"].items():
            ratio = row.get("ratio", {}).get(name)
            times = [f"{ms['median']:.3f}", f"{ms['p99']:.3f}"]
            rows.append([f"{name}, {key}", *times, "" if ratio is None else f"{ratio:.1f}"])
    print_table("ms a call", ["engine", "median", "p99", "teacher / it"], rows)
    for name, row in result["policy"].items():
        if isinstance(row, dict) and "protocol" in row:
            episodes = row["protocol"]["episodes"]
            print(f"{name}: return {row['mean_return']:.1f}, score {row['mean_score']}, {episodes} episodes")
    for name in ("card", "training", "action", "policy"):
        sentences = {key: text for key, text in result[name].items() if key in ("failed", "stopped")}
        sentences |= {k: row["failed"] for k, row in result[name].items() if isinstance(row, dict) and "failed" in row}
        for key, text in sentences.items():
            print(f"{name}, {key}: {text}")


if __name__ == "__main__":
    main()

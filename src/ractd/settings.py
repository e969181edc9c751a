"""Settings: frozen dataclasses whose fields carry their ranges, checked and read by msgspec. Imports neither torch nor numpy.

What stands here is shared by every method; a method's own settings derive from `Settings` and stand beside the method.
"""

from __future__ import annotations

import re
import types
import typing
from abc import ABC
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import msgspec
from msgspec import Meta

from ractd.errors import RactdError
from ractd.registry import find

T = TypeVar("T")

LARGEST_INT, LARGEST_FLOAT = 2**31 - 1, 1e12
# The least number that counts as positive. `Meta(gt=0)` compares with the least number of all, a subnormal one, and lets
# 0 pass once some library has told the processor to take those for 0.
SMALLEST_FLOAT = 1e-12
Count = Annotated[int, Meta(ge=1, le=LARGEST_INT)]
CountOrZero = Annotated[int, Meta(ge=0, le=LARGEST_INT)]
Positive = Annotated[float, Meta(ge=SMALLEST_FLOAT, le=LARGEST_FLOAT)]
PositiveShare = Annotated[float, Meta(ge=SMALLEST_FLOAT, le=1)]
NotNegative = Annotated[float, Meta(ge=0, le=LARGEST_FLOAT)]

Precision = Literal["auto", "fp32", "bf16"]
TerminalsMean = Literal["failure", "success"]
"""What a user can say that the terminals of data are."""


@dataclass(frozen=True)
class Optimization:
    """How one stage is optimised."""

    steps: Count
    """Optimiser steps."""
    batch_size: Count = 256
    """Samples per step, over all processes."""
    learning_rate: Positive = 3e-4
    """Peak learning rate of AdamW, reached after the warm-up and then decayed along a cosine to zero."""
    warmup_steps: CountOrZero = 500
    """Steps of linear warm-up."""
    weight_decay: NotNegative = 1e-5
    """Decoupled weight decay."""
    max_grad_norm: Positive = 1.0
    """Gradients are scaled down to this norm."""
    ema: Annotated[float, Meta(ge=0, le=0.999999)] = 0.999
    """Decay of the weights' moving average, which is what gets used; 0 uses the weights themselves."""


@dataclass(frozen=True)
class Evaluation:
    """How policies are scored in an environment."""

    episodes: Count = 100
    """Episodes of the final evaluation of each policy."""
    execute: Count | None = None
    """Actions of each sequence that are executed before the next is sampled; 1 is closed loop. By default 1 for action
    sequences (paper, 4.1), and all of them for plans: open loop (paper, 4.2)."""
    select: Literal["last", "online"] = "last"
    """`last` keeps the last checkpoint and plays nothing during training. `online` keeps the best by evaluations during training
    as well (the paper's protocol). One that is better than the best so far is scored again, on other `episodes`, and counts by
    those."""
    checkpoints: Count = 16
    """Evaluations during training for `online`."""
    checkpoint_episodes: Count = 20
    """Episodes of each of those; their seeds are never those of the final evaluation."""


@dataclass(frozen=True)
class Settings:
    """One run of any method; each method's own settings derive from it."""

    horizon: Count = 4
    """Actions predicted at once (c). The paper's is 16; in closed loop only the first is executed: for CPUs 1 or 4."""
    history: Count = 1
    """Observations the policy sees (h)."""
    action_range: tuple[Annotated[float, Meta(ge=-1e30, le=1e30)], ...] | None = None
    """The robot's own range of actions: LOW HIGH for every dimension, or LOW HIGH of the first, LOW HIGH of the second and so on.
    Logged actions outside it are clipped. By default the range of the data."""
    seed: CountOrZero = 0
    """Seeds weights, batches, noise and environments."""
    precision: Precision = "auto"
    """Of matrix products in training: single, or bf16 by PyTorch's autocast. `auto` is bf16 on GPUs that have it, else fp32."""
    evaluation: Evaluation = field(default_factory=Evaluation)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield each field that can't stand beside the others, and what is expected of it."""
        if self.action_range is not None:
            pairs = list(zip(self.action_range[::2], self.action_range[1::2], strict=False))
            if not pairs or len(self.action_range) % 2 or any(low >= high for low, high in pairs):
                yield "action_range", "LOW HIGH, once or for each dimension, with LOW below HIGH"
        if (self.evaluation.execute or 1) > self.horizon:
            yield "evaluation.execute", f"at most the horizon, {self.horizon}"

    def idle(self, spell: Callable[[str], str]) -> Iterator[tuple[str, str]]:
        """Yield each place, of a section or a setting, that nothing reads beside the others, and why; `spell` writes places."""
        if self.evaluation.select == "last":
            select = spell("evaluation.select")
            for name in ("checkpoints", "checkpoint_episodes"):
                yield f"evaluation.{name}", f"no checkpoint is played with {select} last; add {select} online"


@dataclass(frozen=True)
class OneActionSettings(Settings):
    """One run of a method whose critic values single actions."""

    horizon: Count = 1
    """Actions predicted at once: one."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield each field that can't stand beside the others, and what is expected of it."""
        yield from super().contradictions()
        if self.horizon != 1:
            yield "horizon", "1: Q values single actions"


class Registered(ABC):
    """Settings of which there are several kinds, as of networks; JSON tells them apart by `kind`.

    A field is annotated with the base class of its kinds, which says where they are found.
    """

    kind: ClassVar[str]
    kinds: ClassVar[tuple[Mapping[str, str], str, str]]
    """Where kinds are found, what each is, and which attribute of that is the class of its settings, empty for itself."""

    @classmethod
    def of_kind(cls, kind: str) -> type[Self]:
        """Return the class of a kind; raises `RactdError` naming the known ones."""
        registry, what, attribute = cls.kinds
        found = find(registry, kind, what)
        return getattr(found, attribute) if attribute else found  # type: ignore[no-any-return]


def check_part(cls: Any) -> None:
    """Raise `TypeError` for a class whose parts of files say another `kind` than it has: it couldn't be found again."""
    if "kind" in cls.__dict__ and cls.Part.kind != cls.kind:
        raise TypeError(
            f"{cls.__name__} is of kind {cls.kind!r}, and its Part of {cls.Part.kind!r}: give it one of its own"
        )


def to_json(value: Any) -> Any:
    """Return settings as plain dictionaries, lists and numbers."""
    if is_dataclass(value):
        written = {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
        return {"kind": value.kind} | written if isinstance(value, Registered) else written
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return value


def from_json(cls: type[T], content: Any, path: Path) -> T:
    """Rebuild settings from plain values; fields with defaults may be absent.

    Raises `RactdError` naming file and field for what is missing, unknown, of another type or out of range.
    """
    try:
        return _checked(cls, content)
    except _Fault as fault:
        raise RactdError(f"{path}: {fault.told(cls.__name__ + fault.where)}") from None
    except RactdError as error:
        raise RactdError(f"{path}: {cls.__name__}: {error}") from None


def check(settings: T) -> T:
    """Return settings as a file would hold them, lists as tuples.

    Raises `RactdError` naming the first option that is out of its range or contradicts another.
    """
    try:
        return _checked(type(settings), to_json(settings))
    except _Fault as fault:
        option = re.sub(r"\[\d+\]", "", fault.where).removeprefix(".").replace("_", "-")
        raise RactdError(fault.told(f"--{option}")) from None


def with_kind(settings: Any, place: str, kind: str) -> Any:
    """Return settings with another kind, in its defaults, at a place that has kinds, as `teacher.network`.

    Raises `RactdError` for an unknown kind, and for a place that has none.
    """
    name, _, rest = place.partition(".")
    inner = getattr(settings, name, None)
    if rest and is_dataclass(inner):
        return replace(settings, **{name: with_kind(inner, rest, kind)})
    options = () if rest or not hasattr(settings, name) else _options(_type_at(type(settings), f".{name}"))
    for option in options:
        if isinstance(option, type) and issubclass(option, Registered):
            return replace(settings, **{name: _kind_class(option, kind)()})
    raise RactdError(f"there are no kinds of {name.replace('_', '-')}")


def _kind_class(cls: type[Registered], kind: str) -> type[Any]:
    found = cls.of_kind(kind)
    if not issubclass(found, cls):
        raise RactdError(f"kind {kind!r} can't stand here, only {cls.kind!r}")
    return found


class _Fault(ValueError):
    """What is wrong at a place (`.student.anchor`, `.layers[1]`): a sentence around its name.

    A `ValueError`, since msgspec adds the outer places to those.
    """

    def __init__(self, where: str, after: str, before: str = "") -> None:
        super().__init__(f"{before}{where}{after}")
        self.where, self.after, self.before = where, after, before

    def told(self, name: str) -> str:
        """Return the sentence, with the place called by a name."""
        return f"{self.before}{name}{self.after}"


def _checked(cls: type[T], content: Any) -> T:
    value = _read(cls, content)
    _refuse_unknown(content, to_json(value), "")
    for where, expected in _contradictions(value, ""):
        raise _not_expected(content, where, expected)
    return value


def _read(cls: type[T], content: Any) -> T:
    try:
        return msgspec.convert(content, cls, dec_hook=_of_kind)
    except msgspec.ValidationError as error:
        message, *places = re.split(r" - at `\$(.*?)`", str(error))
        where = places[0] if places else ""
        if isinstance(error.__cause__, _Fault):
            inner = error.__cause__
            raise _Fault(where + inner.where, inner.after, inner.before) from None
        if missing := re.search(r"missing required field `(\w+)`", message):
            raise _Fault(where, " is missing", f"field '{missing[1]}' of ") from None
        raise _not_expected(content, where, _told_type(_type_at(cls, where))) from None


def _of_kind(cls: type[Any], content: Any) -> Any:
    """Read settings of which there are several kinds."""
    if not issubclass(cls, Registered):
        raise NotImplementedError(cls)
    kind = content.get("kind") if isinstance(content, dict) else None
    if not isinstance(kind, str):
        raise _Fault("", f" is {content!r}, expected an object with a kind")
    try:
        found = _kind_class(cls, kind)
    except RactdError as error:
        raise _Fault("", f": {error}") from None
    return _read(found, {name: value for name, value in content.items() if name != "kind"})


def _not_expected(content: Any, where: str, expected: str) -> _Fault:
    value = content
    for name, index in _places(where):
        value = value.get(name) if name else value[int(index)]
    found = " ".join(f"{item:g}" for item in value) if where == ".action_range" else repr(value)
    return _Fault(where, f" is {found or 'empty'}, expected {expected}")


def _refuse_unknown(content: Any, known: Any, where: str) -> None:
    """Raise where a file has a field that settings, written again, don't have, or another kind."""
    if isinstance(content, dict) and isinstance(known, dict):
        if "kind" in content and content["kind"] != known.get("kind", content["kind"]):
            raise _Fault(f"{where}.kind", f" is {content['kind']!r}, expected {known['kind']!r}")
        for name, value in content.items():
            if name not in known:
                raise _Fault(where, f", expected {', '.join(known)}", f"unknown field '{name}' in ")
            _refuse_unknown(value, known[name], f"{where}.{name}")
    elif isinstance(content, list | tuple) and isinstance(known, list):
        for i, (item, other) in enumerate(zip(content, known, strict=False)):
            _refuse_unknown(item, other, f"{where}[{i}]")


def _contradictions(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if is_dataclass(value):
        for f in fields(value):
            yield from _contradictions(getattr(value, f.name), f"{where}.{f.name}")
    for place, expected in getattr(value, "contradictions", tuple)():
        yield f"{where}.{place}", expected


def _places(where: str) -> list[tuple[str, str]]:
    """Split `.student.layers[1]` into names and indices."""
    return re.findall(r"\.(\w+)|\[(\d+)\]", where)


def _options(kind: Any) -> tuple[Any, ...]:
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if union else (kind,)


def _type_at(cls: Any, where: str) -> Any:
    """Return the annotation of a place."""
    for name, _ in _places(where):
        if name:
            owner = next(option for option in _options(cls) if is_dataclass(option))
            cls = typing.get_type_hints(owner, include_extras=True)[name]
        else:
            cls = next(typing.get_args(option)[0] for option in _options(cls) if typing.get_origin(option) is tuple)
    return cls


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def _told_type(kind: Any) -> str:
    """Say what an annotation allows."""
    options, origin, arguments = _options(kind), typing.get_origin(kind), typing.get_args(kind)
    if len(options) > 1:
        return " or ".join(_told_type(option) for option in options)
    if origin is Annotated:
        limits = next(meta for meta in arguments[1:] if isinstance(meta, Meta))
        low = "above 0" if limits.ge == SMALLEST_FLOAT else f"from {limits.ge:g}"
        high = (
            f"to {limits.le:{',' if isinstance(limits.le, int) else 'g'}}"
            if limits.lt is None
            else f"below {limits.lt:g}"
        )
        return f"{_told_type(arguments[0])} {low} {high}"
    if origin is Literal:
        return f"one of {', '.join(repr(argument) for argument in arguments)}"
    return _NAMES.get(kind, "a list" if origin is tuple else "an object")

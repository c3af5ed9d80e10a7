"""The only door to cuDNN: its backend (graph) API through ctypes, for convolutions.

An operation graph of descriptors is handed to cuDNN's heuristics; what comes back are engine configurations, of which
those that finalise into a plan are usable. A plan and a pack of pointers make a step. Plans can be made without a GPU
from a description of a device (``Dnn(..., properties=...)``), which is how they are tested where there is none.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from netrun.errors import DeviceError
from netrun.types import Shape

from .launch import Launch, Step

_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_SIGNATURES = {
    "cudnnCreate": [_P], "cudnnDestroy": [_P], "cudnnSetStream": [_P, _P],
    "cudnnGetLastErrorString": [_P, ctypes.c_size_t],
    "cudnnBackendCreateDescriptor": [_I, _P], "cudnnBackendDestroyDescriptor": [_P], "cudnnBackendFinalize": [_P],
    "cudnnBackendSetAttribute": [_P, _I, _I, _L, _P], "cudnnBackendGetAttribute": [_P, _I, _I, _L, _P, _P],
    "cudnnBackendExecute": [_P, _P, _P],
}  # fmt: skip

# Numbers of cudnn_graph_v9.h, which do not change within libcudnn.so.9.
TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 9}
HANDLE, DATA_TYPE, BOOLEAN, INT64, DOUBLE, POINTER = 0, 1, 2, 3, 5, 6
CONV_MODE, HEUR_MODE, NOTE, POINTWISE_MODE, DESCRIPTOR, BEHAVIOUR, CHAR, INT32 = 7, 8, 11, 14, 15, 19, 24, 23
NAN_PROPAGATION = 10
_ELEMENT = {HANDLE: _P, INT64: _L, DOUBLE: ctypes.c_double, POINTER: _P, DESCRIPTOR: _P, BOOLEAN: ctypes.c_bool}
(POINTWISE, CONVOLUTION, ENGINE, CONFIG, HEURISTICS, PLAN, OP_FPROP, OP_WGRAD, OP_DGRAD, OP_POINTWISE, GRAPH, PACK,
 TENSOR, DEVICE) = (0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 15, 16, 17, 38)  # fmt: skip
_ADD, _RELU = 0, 100
_TENSOR_CORE, _NONDETERMINISTIC, _COMPILED_AT_RUN_TIME = 0, 4, 0
_ROUNDS_MORE = {1, 2}
"""Notes of engines that round operands further than their type says, or sums to 16 bits on the way."""
_MODES = (3, 2)
"""Heuristics A, then FALLBACK: some strict float32 cases have a plan in the latter alone."""

_OPERATIONS = {
    "fprop": (OP_FPROP, 704, 703, 705, 702, 700, 701),
    "dgrad": (OP_DGRAD, 710, 709, 711, 708, 706, 707),
    "wgrad": (OP_WGRAD, 716, 715, 717, 714, 712, 713),
}
"""Kind -> descriptor and attributes: image, filter, output, convolution, alpha, beta."""

IMAGE, FILTER, OUTPUT, BIAS = 1, 2, 3, 4
"""Numbers of the tensors of a problem."""


class CudnnError(RuntimeError):
    """A call of cuDNN failed; the text is its own."""


def declare(library: Any) -> Any:
    """Give the functions used here their argument types; returns the library."""
    for name, types in _SIGNATURES.items():
        getattr(library, name).argtypes = types
    library.cudnnGetVersion.restype = ctypes.c_size_t
    return library


@dataclass(frozen=True)
class Problem:
    """One convolution. Shapes are N C S, K C/groups kernel and N K S', plain; there are two or three spatial axes.

    Attributes:
        kind: "fprop" writes y, "dgrad" x, "wgrad" w.
        tensor: float32 may use tensor cores (TF32).
        add: add to what the result holds instead of replacing it.
        bias, relu: only with fprop: y = relu(conv + bias).
        last: in memory the channels of all three lie innermost.
        within: y lies in a tensor with so many channels; 0 if it is all of its own.
    """

    kind: str
    dtype: str
    x: Shape
    w: Shape
    y: Shape
    stride: Shape
    pad: Shape
    pad_end: Shape
    dilation: Shape
    tensor: bool = False
    deterministic: bool = False
    add: bool = False
    bias: bool = False
    relu: bool = False
    last: bool = False
    within: int = 0


@dataclass
class Plan:
    """An execution plan: bytes it works in, the number of its engine, its notes."""

    problem: Problem
    descriptor: Descriptor
    workspace: int
    engine: int = -1
    notes: frozenset[int] = field(default_factory=frozenset)


class Descriptor:
    """One backend descriptor; keeps those it refers to alive."""

    def __init__(self, library: Any, kind: int) -> None:
        self._library, self._kept = library, list[Any]()
        pointer = ctypes.c_void_p()
        check(library, library.cudnnBackendCreateDescriptor(kind, ctypes.addressof(pointer)), f"descriptor {kind}")
        self.pointer = pointer.value

    def set(self, attribute: int, kind: int, *values: Any) -> Descriptor:
        """Set an attribute; values of type CHAR are one bytes object."""
        if kind == DESCRIPTOR:
            self._kept += values
            values = tuple(v.pointer for v in values)
        if kind == CHAR:
            count, array = len(values[0]), ctypes.create_string_buffer(values[0], len(values[0]))
        else:
            count = len(values)
            array = (_ELEMENT.get(kind, _I) * count)(*values)  # type: ignore[assignment]
        status = self._library.cudnnBackendSetAttribute(self.pointer, attribute, kind, count, ctypes.addressof(array))
        check(self._library, status, f"attribute {attribute}")
        return self

    def done(self) -> Descriptor:
        """Finalise."""
        check(self._library, self._library.cudnnBackendFinalize(self.pointer), "finalise")
        return self

    def get(self, attribute: int, kind: int, count: int = 64) -> list[Any]:
        """The values of an attribute, at most ``count``."""
        array, found = (_ELEMENT.get(kind, _I) * count)(), ctypes.c_int64()
        self._get(attribute, kind, count, array, found)
        return list(array[: found.value])

    def text(self, attribute: int, most: int = 1 << 20) -> bytes:
        """The value of an attribute of type CHAR."""
        array, found = ctypes.create_string_buffer(most), ctypes.c_int64()
        self._get(attribute, CHAR, most, array, found)
        return array.raw[: found.value]

    def descriptors(self, attribute: int, kind: int, count: int = 64) -> list[Descriptor]:
        """Descriptors that are the value of an attribute."""
        made = [Descriptor(self._library, kind) for _ in range(count)]
        array, found = (_P * count)(*[d.pointer for d in made]), ctypes.c_int64()
        self._get(attribute, DESCRIPTOR, count, array, found)
        return made[: found.value]

    def _get(self, attribute: int, kind: int, count: int, array: Any, found: Any) -> None:
        where = ctypes.addressof(found), ctypes.addressof(array)
        check(
            self._library, self._library.cudnnBackendGetAttribute(self.pointer, attribute, kind, count, *where), "get"
        )

    def keep(self, *others: Any) -> None:
        """Keep these alive as long as this one."""
        self._kept += others

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            self._library.cudnnBackendDestroyDescriptor(self.pointer)


class Dnn:
    """cuDNN on one device and stream; or, with ``properties`` and no stream, its planner alone.

    Args:
        library: libcudnn (see ``declare``), or a stand-in with the same functions.
        stream: the stream's pointer, or None.
        properties: JSON text that describes a device.

    Raises:
        DeviceError: cuDNN cannot be started.
    """

    def __init__(self, library: Any, stream: int | None, properties: str = "") -> None:
        self.library = library
        self.version = int(library.cudnnGetVersion())
        self.handle: int | None = None
        self._device: Descriptor | None = None
        try:
            if stream is None:
                self._device = Descriptor(library, DEVICE).set(2702, CHAR, properties.encode()).done()
            else:
                handle = ctypes.c_void_p()
                check(library, library.cudnnCreate(ctypes.addressof(handle)), "cudnnCreate")
                self.handle = handle.value
                check(library, library.cudnnSetStream(self.handle, stream), "cudnnSetStream")
        except CudnnError as error:
            raise DeviceError(f"cuDNN {self.version} does not start: {error}") from None

    def plans(self, problem: Problem, limit: int, compiled: bool = False) -> Iterator[Plan]:
        """Plans for the problem in the order cuDNN's heuristics give them, the best guess first.

        Args:
            limit: bytes of workspace a plan may take.
            compiled: also engines that are compiled when they are planned (a quarter of a second each).
        """
        operations = self._operations(problem)
        for mode in _MODES:
            try:
                graph = Descriptor(self.library, GRAPH).set(801, DESCRIPTOR, *operations)
                if self.handle:
                    graph.set(800, HANDLE, self.handle)
                heuristics = Descriptor(self.library, HEURISTICS).set(201, DESCRIPTOR, graph.done())
                heuristics.set(200, HEUR_MODE, mode)
                if self._device:
                    heuristics.set(204, DESCRIPTOR, self._device)
                configs = heuristics.done().descriptors(202, CONFIG)
            except CudnnError:
                continue  # no engine for this graph in this mode
            for config in configs:
                plan = self._plan(problem, config)
                if plan is None or plan.workspace > limit or _refused(problem, plan, config, compiled):
                    continue
                plan.descriptor.keep(graph)
                yield plan

    def restored(self, problem: Problem, text: bytes) -> Plan | None:
        """A plan from what ``text_of`` gave; None where this cuDNN does not take it."""
        try:
            descriptor = self._on_device(Descriptor(self.library, PLAN)).set(405, CHAR, text).done()
            return Plan(problem, descriptor, int(descriptor.get(402, INT64, 1)[0]))
        except CudnnError:
            return None

    def text_of(self, plan: Plan) -> bytes:
        """The plan as text that outlives the process."""
        return plan.descriptor.text(405)

    def step(self, plan: Plan, arrays: Sequence[Any], workspace: Any) -> Step:
        """A step that executes the plan.

        Args:
            arrays: image, filter, output and, if the problem has one, bias: contiguous device arrays.
            workspace: a device array of at least ``plan.workspace`` bytes.
        """
        numbers = (IMAGE, FILTER, OUTPUT, BIAS)[: len(arrays)]
        pack = Descriptor(self.library, PACK).set(1000, INT64, *numbers)
        pack.set(1001, POINTER, *[a.data.ptr for a in arrays]).set(1003, POINTER, workspace.data.ptr).done()
        pack.keep(plan.descriptor, *arrays, workspace)
        call = partial(self.library.cudnnBackendExecute, self.handle, plan.descriptor.pointer, pack.pointer)
        return Launch.of(pack, self._run, call, plan.problem)

    def properties(self, index: int) -> str:
        """The description of device ``index`` as JSON text, for planning where it is absent."""
        return Descriptor(self.library, DEVICE).set(2700, INT32, index).done().text(2702, 1 << 16).decode()

    def close(self) -> None:
        """Give the handle back."""
        if self.handle:
            self.library.cudnnDestroy(self.handle)
            self.handle = None

    def _run(self, call: Callable[[], int], what: object) -> None:
        status = call()
        if status:
            raise DeviceError(f"cuDNN: {what}: {message(self.library, status)}")

    # ----------------------------------------------------------------------------------------------------- descriptors
    def _on_device(self, plan: Descriptor) -> Descriptor:
        return plan.set(400, HANDLE, self.handle) if self.handle else plan.set(407, DESCRIPTOR, self._device)

    def _plan(self, problem: Problem, config: Descriptor) -> Plan | None:
        descriptor = self._on_device(Descriptor(self.library, PLAN).set(401, DESCRIPTOR, config))
        try:
            descriptor.done()
        except CudnnError:
            return None  # this configuration is not for this case; the next may be
        engine = config.descriptors(300, ENGINE, 1)[0]
        notes = frozenset(engine.get(1303, NOTE))
        return Plan(
            problem, descriptor, int(descriptor.get(402, INT64, 1)[0]), int(engine.get(1301, INT64, 1)[0]), notes
        )

    def _operations(self, p: Problem) -> list[Descriptor]:
        """The graph: the convolution, then the bias and the ReLU over values that exist only within it."""
        compute = TYPES["float64" if p.dtype == "float64" else "float32"]
        inner = "float64" if p.dtype == "float64" else "float32"
        conv = Descriptor(self.library, CONVOLUTION).set(100, DATA_TYPE, compute).set(101, CONV_MODE, 1)
        conv.set(106, INT64, len(p.pad)).set(105, INT64, *p.pad).set(104, INT64, *p.pad_end)
        conv.set(103, INT64, *p.stride).set(102, INT64, *p.dilation).done()
        stages = [stage for stage, wanted in ((_ADD, p.bias), (_RELU, p.relu)) if wanted]
        values = [self._tensor(10 + i, p.y, inner, True, p.last, p.within) for i in range(len(stages))]
        values.append(self._tensor(OUTPUT, p.y, p.dtype, last=p.last, within=p.within))
        kind, image, filters, output, convolution, alpha, beta = _OPERATIONS[p.kind]
        first = Descriptor(self.library, kind).set(convolution, DESCRIPTOR, conv).set(output, DESCRIPTOR, values[0])
        first.set(image, DESCRIPTOR, self._tensor(IMAGE, p.x, p.dtype, last=p.last))
        first.set(filters, DESCRIPTOR, self._tensor(FILTER, p.w, p.dtype, last=p.last))
        operations = [first.set(alpha, DOUBLE, 1.0).set(beta, DOUBLE, float(p.add)).done()]
        for i, stage in enumerate(stages):
            mode = Descriptor(self.library, POINTWISE).set(0, POINTWISE_MODE, stage).set(1, DATA_TYPE, compute)
            if stage == _RELU:
                with suppress(CudnnError):  # old, and may go one day; without it a lost activation could become 0
                    mode.set(2, NAN_PROPAGATION, 1)
            operation = Descriptor(self.library, OP_POINTWISE).set(750, DESCRIPTOR, mode.done())
            operation.set(751, DESCRIPTOR, values[i]).set(753, DESCRIPTOR, values[i + 1])
            if stage == _ADD:
                bias = self._tensor(BIAS, (1, p.y[1], *(1 for _ in p.pad)), p.dtype, last=p.last)
                operation.set(752, DESCRIPTOR, bias)
            operations.append(operation.done())
        return operations

    def _tensor(
        self, number: int, shape: Shape, dtype: str, inside: bool = False, last: bool = False, within: int = 0
    ) -> Descriptor:
        order = [0, *range(2, len(shape)), 1] if last else list(range(len(shape)))  # outermost axis first
        strides, apart = [1] * len(shape), 1
        for i in reversed(order):
            strides[i] = apart
            apart *= within if within and i == 1 else shape[i]
        tensor = Descriptor(self.library, TENSOR).set(906, INT64, number).set(901, DATA_TYPE, TYPES[dtype])
        tensor.set(900, INT64, 16).set(902, INT64, *shape).set(903, INT64, *strides)
        return (tensor.set(907, BOOLEAN, True) if inside else tensor).done()


def _refused(problem: Problem, plan: Plan, config: Descriptor, compiled: bool) -> bool:
    """Whether the engine does what the problem forbids."""
    if not compiled and _COMPILED_AT_RUN_TIME in config.descriptors(300, ENGINE, 1)[0].get(1305, BEHAVIOUR):
        return True
    strict = problem.dtype == "float32" and not problem.tensor
    if _ROUNDS_MORE & plan.notes:
        return True
    return (strict and _TENSOR_CORE in plan.notes) or (problem.deterministic and _NONDETERMINISTIC in plan.notes)


def message(library: Any, status: int) -> str:
    """What cuDNN says about its last error on this thread."""
    buffer = ctypes.create_string_buffer(4096)
    library.cudnnGetLastErrorString(ctypes.addressof(buffer), 4096)
    lines = buffer.value.decode(errors="replace").strip().splitlines()
    return f"status {status}: {lines[0] if lines else 'no text'}"


def check(library: Any, status: int, what: str) -> None:
    """Raise CudnnError unless status is 0."""
    if status:
        raise CudnnError(f"{what}: {message(library, status)}")

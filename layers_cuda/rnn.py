"""The door to cuDNN's recurrent nets: a stack of layers in one or two directions as one call each for forward, the
gradients of what comes in, and the gradients of the weights.

These are the calls of cudnn_adv.h that cuDNN 9 has not deprecated. All sequences have the same length here, so their
data is dense, T N values. The weights of a stack lie in one block whose layout is cuDNN's to choose: ``Made.place``
asks where each matrix and each bias begins.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from netrun.errors import DeviceError
from netrun.types import itemsize

from .dnn import TYPES, CudnnError, Dnn, check, message
from .launch import Launch, Step, sequence

_P, _I, _S, _Q = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_ulonglong
_SIGNATURES = {
    "cudnnCreateRNNDescriptor": [_P], "cudnnDestroyRNNDescriptor": [_P],
    "cudnnCreateRNNDataDescriptor": [_P], "cudnnDestroyRNNDataDescriptor": [_P],
    "cudnnCreateTensorDescriptor": [_P], "cudnnDestroyTensorDescriptor": [_P],
    "cudnnCreateDropoutDescriptor": [_P], "cudnnDestroyDropoutDescriptor": [_P],
    "cudnnSetDropoutDescriptor": [_P, _P, ctypes.c_float, _P, _S, _Q],
    "cudnnSetTensorNdDescriptor": [_P, _I, _I, _P, _P],
    "cudnnGetTensorNdDescriptor": [_P, _I, _P, _P, _P, _P],
    "cudnnSetRNNDescriptor_v8": [_P, _I, _I, _I, _I, _I, _I, _I, _I, _I, _I, _I, _I, _P, ctypes.c_uint32],
    "cudnnSetRNNDataDescriptor": [_P, _I, _I, _I, _I, _I, _P, _P],
    "cudnnGetRNNTempSpaceSizes": [_P, _P, _I, _P, _P, _P],
    "cudnnGetRNNWeightSpaceSize": [_P, _P, _P],
    "cudnnGetRNNWeightParams": [_P, _P, _I, _S, _P, _I, _P, _P, _P, _P],
    "cudnnRNNForward": [_P, _P, _I, *[_P] * 11, _S, _P, _S, _P, _S, _P],
    "cudnnRNNBackwardData_v8": [_P, *[_P] * 15, _S, _P, _S, _P, _S, _P],
    "cudnnRNNBackwardWeights_v8": [_P, _P, _I, *[_P] * 7, _S, _P, _S, _P, _S, _P],
}  # fmt: skip

# Numbers of cudnn_adv_v9.h and cudnn_graph_v9.h.
MODES = {"relu": 0, "tanh": 1, "lstm": 2, "gru": 3}
STANDARD, DOUBLE_BIAS, LINEAR_INPUT, PACKED, PADDING_OFF = 0, 2, 0, 1, 0
INFERENCE, TRAINING, ADD = 0, 1, 0
DEFAULT_MATH, FMA_MATH = 0, 3
GATES = {"relu": (0,), "tanh": (0,), "lstm": (0, 1, 3, 2), "gru": (0, 1, 2)}
"""Our gates in order -> cuDNN's numbers of them: i f o g are its i, f, o, g at 0, 1, 3, 2; r z n its 0, 1, 2.

As its documentation counts: LSTM 0 input, 1 forget, 2 new values, 3 output; GRU 0 reset, 1 update, 2 new values.
PyTorch keeps i f g o and r z n, the order of these numbers, and our LSTM and GRU equal its own with the gates so
exchanged.
"""

HINT = "NETRUN_CUDA_RNN=own in the environment keeps recurrent layers on netrun's own kernels"


def declare(library: Any) -> Any:
    """Give the functions used here their argument types; returns the library."""
    for name, types in _SIGNATURES.items():
        getattr(library, name).argtypes = types
    return library


@dataclass(frozen=True)
class Stack:
    """A recurrent net as cuDNN knows it.

    Attributes:
        mode: "relu", "tanh", "lstm" or "gru".
        inputs: values of x, a step and stream; size: of the state.
        ways: 2 where every layer goes in both directions; their results lie side by side.
        tensor: float32 may use tensor cores (TF32).
        training: whether gradients follow.
    """

    mode: str
    dtype: str
    steps: int
    streams: int
    inputs: int
    size: int
    layers: int = 1
    ways: int = 1
    tensor: bool = False
    training: bool = False

    def __str__(self) -> str:
        return f"{self.mode} {self.layers}x{self.ways}, {self.steps} steps of {self.streams}"


class Legacy:
    """A descriptor with a Create and a Destroy of its own."""

    def __init__(self, library: Any, what: str) -> None:
        self._library, self._what, pointer = library, what, ctypes.c_void_p()
        check(library, getattr(library, f"cudnnCreate{what}")(ctypes.addressof(pointer)), what)
        self.pointer = pointer.value

    def set(self, function: str, *args: Any) -> Legacy:
        """Call a function that sets it."""
        check(self._library, getattr(self._library, function)(self.pointer, *args), function)
        return self

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            getattr(self._library, f"cudnnDestroy{self._what}")(self.pointer)


def tensor(library: Any, dtype: str, shape: tuple[int, ...]) -> Legacy:
    """A dense tensor."""
    strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
    sizes, apart = ((_I * len(shape))(*values) for values in (shape, strides))
    where = ctypes.addressof(sizes), ctypes.addressof(apart)
    return Legacy(library, "TensorDescriptor").set("cudnnSetTensorNdDescriptor", TYPES[dtype], len(shape), *where)


def sequences(library: Any, dtype: str, steps: int, streams: int, size: int) -> Legacy:
    """Data of T steps of N sequences, dense."""
    lengths = (_I * streams)(*[steps] * streams)
    given = (TYPES[dtype], PACKED, steps, streams, size, ctypes.addressof(lengths), None)
    return Legacy(library, "RNNDataDescriptor").set("cudnnSetRNNDataDescriptor", *given)


def network(library: Any, s: Stack, dropout: Legacy | None) -> Legacy:
    """The net itself."""
    kind = TYPES[s.dtype]
    math = DEFAULT_MATH if s.tensor or s.dtype == "float64" else FMA_MATH
    return Legacy(library, "RNNDescriptor").set(
        "cudnnSetRNNDescriptor_v8", STANDARD, MODES[s.mode], DOUBLE_BIAS, s.ways - 1, LINEAR_INPUT, kind, kind, math,
        s.inputs, s.size, s.size, s.layers, dropout.pointer if dropout else None, PADDING_OFF,
    )  # fmt: skip


class Made:
    """A stack on a device.

    Attributes:
        space, reserve, workspace: bytes of the block of weights, of what forward leaves for backward, of scratch.
    """

    def __init__(self, dnn: Dnn, stack: Stack) -> None:
        library = self._library = dnn.library
        self.stack, self._dnn = stack, dnn
        self.none = Legacy(library, "DropoutDescriptor").set("cudnnSetDropoutDescriptor", dnn.handle, 0, None, 0, 0)
        self.net = network(library, stack, self.none)
        sizes = (stack.dtype, stack.steps, stack.streams)
        self.x = sequences(library, *sizes, stack.inputs)
        self.y = sequences(library, *sizes, stack.ways * stack.size)
        self.state = tensor(library, stack.dtype, (stack.layers * stack.ways, stack.streams, stack.size))
        found = [ctypes.c_size_t() for _ in range(3)]
        where = [ctypes.addressof(value) for value in found]
        mode = TRAINING if stack.training else INFERENCE
        self._ask("cudnnGetRNNTempSpaceSizes", mode, self.x.pointer, where[0], where[1])
        self._ask("cudnnGetRNNWeightSpaceSize", where[2])
        self.workspace, self.reserve, self.space = (int(value.value) for value in found)

    def _ask(self, function: str, *args: Any) -> None:
        status = getattr(self._library, function)(self._dnn.handle, self.net.pointer, *args)
        check(self._library, status, function)

    def place(self, space: int, layer: int, way: int, number: int) -> tuple[int, int]:
        """Bytes from the beginning of the block of weights at ``space`` to a matrix and to the bias that goes with it.

        Args:
            number: the gate by cuDNN's count, those of the state behind those of the input.

        Raises:
            DeviceError: the matrix is not rows x columns, row by row.
        """
        s, count = self.stack, len(GATES[self.stack.mode])
        inputs = (s.inputs if layer == 0 else s.ways * s.size) if number < count else s.size
        shapes = (1, s.size, inputs), (1, s.size, 1)
        tensors = [Legacy(self._library, "TensorDescriptor") for _ in shapes]
        found = [ctypes.c_void_p() for _ in shapes]
        matrix, bias = ((t.pointer, ctypes.addressof(p)) for t, p in zip(tensors, found, strict=True))
        self._ask("cudnnGetRNNWeightParams", layer * s.ways + way, self.space, space, number, *matrix, *bias)
        for described, shape in zip(tensors, shapes, strict=True):
            got = self._shape(described)
            wanted = (shape, (shape[1] * shape[2], shape[2], 1))
            if got[0] != shape or got[1][1:] != wanted[1][1:]:
                text = f"cuDNN {self._dnn.version} keeps a matrix {shape} of {s} as {got}"
                raise DeviceError(text, None, [HINT])
        return int(found[0].value or 0) - space, int(found[1].value or 0) - space

    def _shape(self, described: Legacy) -> tuple[tuple[int, ...], tuple[int, ...]]:
        kind, rank, sizes, strides = _I(), _I(), (_I * 3)(), (_I * 3)()
        where = [ctypes.addressof(value) for value in (kind, rank, sizes, strides)]
        status = self._library.cudnnGetTensorNdDescriptor(described.pointer, 3, *where)
        check(self._library, status, "cudnnGetTensorNdDescriptor")
        return tuple(sizes), tuple(strides)


class Stacks:
    """Recurrent nets of one device; each is set up once."""

    def __init__(self, dnn: Dnn) -> None:
        self.dnn = dnn
        self._library = declare(dnn.library)
        self._made: dict[Stack, Made | None] = {}

    def made(self, stack: Stack) -> Made | None:
        """The stack, None where cuDNN has nothing for it."""
        if stack not in self._made:
            try:
                self._made[stack] = Made(self.dnn, stack)
            except CudnnError:
                self._made[stack] = None
        return self._made[stack]

    def weights(self, stack: Stack, space: int) -> dict[tuple[int, int, int], tuple[int, int]]:
        """For (layer, way, number of the gate) where its matrix and its bias begin, in bytes."""
        made, count = self._sure(stack), 2 * len(GATES[stack.mode])
        walks = [(layer, way) for layer in range(stack.layers) for way in range(stack.ways)]
        return {(*walk, i): made.place(space, *walk, i) for walk in walks for i in range(count)}

    def forward(
        self, stack: Stack, lengths: Any, x: Any, first: Any, first_cell: Any, space: Any, y: Any, reserve: Any,
        scratch: Any,
    ) -> Step:  # fmt: skip
        """A step that makes y of x.

        Args:
            lengths: N int32, the number of steps, on the device.
            first, first_cell: layers x ways, N, D; None for zeros.
            space: the block of weights; reserve: what is left for backward, None where nothing follows.
        """
        m = self._sure(stack)
        mode = TRAINING if stack.training else INFERENCE
        state = m.state.pointer
        cell = state if stack.mode == "lstm" else None
        return self._step(
            m, "cudnnRNNForward", (lengths, x, first, first_cell, space, y, reserve, scratch), mode, _at(lengths),
            m.x.pointer, _at(x), m.y.pointer, _at(y), state, _at(first), None, cell, _at(first_cell), None,
            m.space, _at(space), m.workspace, _at(scratch), m.reserve, _at(reserve),
        )  # fmt: skip

    def backward(
        self, stack: Stack, lengths: Any, x: Any, first: Any, first_cell: Any, space: Any, y: Any, dy: Any,
        reserve: Any, dx: Any, dfirst: Any, dfirst_cell: Any, dspace: Any, scratch: Any,
    ) -> Step:  # fmt: skip
        """A step that makes the gradients dx, dfirst and dfirst_cell (None: not wanted) of dy, then those of the
        weights, added to dspace (None: not wanted)."""
        m = self._sure(stack)
        state = m.state.pointer
        cell = state if stack.mode == "lstm" else None
        rest = (m.workspace, _at(scratch), m.reserve, _at(reserve))
        keep = (lengths, x, first, first_cell, space, y, dy, reserve, dx, dfirst, dfirst_cell, dspace, scratch)
        steps = [self._step(
            m, "cudnnRNNBackwardData_v8", keep, _at(lengths), m.y.pointer, _at(y), _at(dy), m.x.pointer, _at(dx),
            state, _at(first), None, _at(dfirst), cell, _at(first_cell), None, _at(dfirst_cell),
            m.space, _at(space), *rest,
        )]  # fmt: skip
        if dspace is not None:
            steps.append(self._step(
                m, "cudnnRNNBackwardWeights_v8", keep, ADD, _at(lengths), m.x.pointer, _at(x), state, _at(first),
                m.y.pointer, _at(y), m.space, _at(dspace), *rest,
            ))  # fmt: skip
        return sequence(steps)

    def _sure(self, stack: Stack) -> Made:
        made = self.made(stack)
        if made is None:
            raise DeviceError(f"cuDNN {self.dnn.version} does not run {stack}", None, [HINT])
        return made

    def _step(self, made: Made, function: str, keep: object, *args: Any) -> Step:
        call = partial(getattr(self._library, function), self.dnn.handle, made.net.pointer, *args)
        return Launch.of((made, keep), self._run, call, f"{function}: {made.stack}")

    def _run(self, call: Callable[[], int], what: str) -> None:
        status = call()
        if status:
            raise DeviceError(f"cuDNN: {what}: {message(self._library, status)}", None, [HINT])


def room(stack: Stack) -> int:
    """Bytes of the gradient of what comes in."""
    return stack.steps * stack.streams * stack.inputs * itemsize(stack.dtype)


def _at(array: Any) -> int | None:
    return None if array is None else int(array.data.ptr)


__all__ = ["GATES", "HINT", "Legacy", "Made", "Stack", "Stacks", "declare", "room"]

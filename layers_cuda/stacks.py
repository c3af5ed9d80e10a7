"""Kernels that only this device has: a recurrent stack by cuDNN, and its weights in and out of cuDNN's block.

``recurrent.py`` puts them in the place of calls of the vocabulary. Parameters stay the arrays that everybody knows:
the device copies them into the block before a pass, and their gradients out of one behind it, within the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.kernels import Argument, Op
from netrun.program import Call

from .launch import Step, sequence
from .rnn import GATES, Stack, room
from .update import constant

if TYPE_CHECKING:
    from .device import Cuda

Place = tuple[int, int, str]
"""Layer, direction and which of its weights: "w" and "b" of the input, "r" and "d" of the state."""


def _op(name: str, *arguments: tuple[str, str], attributes: tuple[str, ...] = ("stack",)) -> Op:
    made = tuple(Argument(n, role.rstrip("?s"), "s" in role, "?" in role) for n, role in arguments)
    return Op(name, made, attributes)


PACK = _op("rnn_pack", ("weights", "rs"), ("space", "w"), attributes=("stack", "places"))
"""space = the weights where cuDNN wants them, zeros where there is none."""
FORWARD = _op(
    "rnn_stack", ("x", "r"), ("space", "r"), ("first", "r?"), ("first_cell", "r?"), ("y", "w"), ("reserve", "w?")
)
"""y T N D of x T N I; D is doubled in two directions. reserve: what backward needs."""
BACKWARD = _op(
    "rnn_stack_grad", ("x", "r"), ("space", "r"), ("first", "r?"), ("first_cell", "r?"), ("y", "r"), ("dy", "r"),
    ("reserve", "r"), ("dx", "w?"), ("dfirst", "w?"), ("dfirst_cell", "w?"), ("dspace", "w?"),
)  # fmt: skip
"""Adjoint of rnn_stack in everything; runs once for each rnn_stack, as it works in reserve."""
UNPACK = _op("rnn_unpack", ("dspace", "r"), ("weights", "ws"), attributes=("stack", "places"))
"""Each gradient from where cuDNN has left it."""


def _pieces(device: Cuda, call: Call, weights: Sequence[Any], space: Any) -> Iterator[tuple[Any, Any]]:
    """(part of a weight, its place in the block), gate by gate."""
    stack: Stack = call.attrs["stack"]
    gates = GATES[stack.mode]
    where = device.rnn.weights(stack, space.data.ptr)
    for array, (layer, way, name) in zip(weights, call.attrs["places"], strict=True):
        flat, last = array.reshape(-1), ("d",) if stack.mode == "gru" else ()
        own = gates[-1:] if name in last else gates  # of GRU's second bias we have that of the new state alone
        each = flat.size // len(own)
        for i, gate in enumerate(own):
            matrix, bias = where[layer, way, gate + len(gates) * (name in "rd")]
            begin = matrix if name in "wr" else bias
            part = flat[i * each : (i + 1) * each]
            yield part, space[begin : begin + part.nbytes]


def pack(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """rnn_pack, bound."""
    weights, space = args
    copies = [device.launcher.copy(part, place) for part, place in _pieces(device, call, weights, space)]
    return sequence([device.launcher.zero(space), *copies])


def unpack(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """rnn_unpack, bound."""
    dspace, weights = args
    return sequence([device.launcher.copy(place, part) for part, place in _pieces(device, call, weights, dspace)])


def _lengths(device: Cuda, stack: Stack) -> Any:
    return constant(device, np.full(stack.streams, stack.steps, np.int32))


def forward(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """rnn_stack, bound."""
    x, space, first, first_cell, y, reserve = args
    stack: Stack = call.attrs["stack"]
    return device.rnn.forward(stack, _lengths(device, stack), x, first, first_cell, space, y, reserve, scratch)


def backward(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """rnn_stack_grad, bound."""
    x, space, first, first_cell, y, dy, reserve, dx, dfirst, dfirst_cell, dspace = args
    stack: Stack = call.attrs["stack"]
    work = scratch
    if dx is None:  # cuDNN makes it in any case
        dx, work = scratch, scratch[_line(room(stack)) :]
    step = device.rnn.backward(
        stack, _lengths(device, stack), x, first, first_cell, space, y, dy, reserve, dx, dfirst, dfirst_cell, dspace,
        work,
    )  # fmt: skip
    return step if dspace is None else sequence([device.launcher.zero(dspace), step])


def _line(nbytes: int) -> int:
    return -(-nbytes // 256) * 256


def _workspace(device: Cuda, call: Call) -> int:
    """Bytes of cuDNN's scratch, and of a gradient that nobody wants."""
    stack: Stack = call.attrs["stack"]
    made = device.rnn.made(stack)
    unwanted = call.op is BACKWARD and call.argument("dx") is None
    return _line(room(stack) if unwanted else 0) + max(made.workspace if made else 0, 1)


BODIES: Mapping[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {
    "rnn_pack": pack, "rnn_unpack": unpack, "rnn_stack": forward, "rnn_stack_grad": backward,
}  # fmt: skip
"""Beside those of the vocabulary."""

WORKSPACE: Mapping[str, Callable[[Cuda, Call], int]] = dict.fromkeys(("rnn_stack", "rnn_stack_grad"), _workspace)

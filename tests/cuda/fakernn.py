"""A stand-in for the recurrent calls of libcudnn, by the formulas of their documentation.

The block of weights has gaps and an order of its own, which only cudnnGetRNNWeightParams tells. What forward leaves for
backward lies in the reserve that the caller gives, so that memory taken back too early shows. Gradients of weights are
added to what is there.
"""

from __future__ import annotations

import ctypes
from typing import Any

import fakestream
import numpy as np
from fakebase import Library, memory, quiet

from netrun.cpu.reference import Reference

REFERENCE = Reference()
TYPES = {0: "float32", 1: "float64"}
GATES = {0: "h", 1: "h", 2: "ifco", 3: "rin"}
"""cudnnRNNMode_t -> its gates by number: of LSTM the new memory c comes third, of GRU the update i second."""
OURS = {0: "h", 1: "h", 2: "ifoc", 3: "rin"}
"""The order of the kernels of the reference, which does the walk."""
GAP = 48
"""Bytes between two pieces of the block of weights."""


def _out(address: int, value: int, kind: Any = ctypes.c_size_t) -> None:
    kind.from_address(address).value = value


class Recurrent(Library):
    """``refuses_rnn``: no stack is taken. ``ran`` has the names of what was executed."""

    refuses_rnn = False

    def __init__(self) -> None:
        super().__init__()
        self.legacy: dict[int, dict[str, Any]] = {}
        self.ran: list[str] = []
        self._last = 1 << 20

    def _create(self, out: int, kind: str) -> int:
        self._last += 8
        self.legacy[self._last] = {"kind": kind}
        return _out(out, self._last, ctypes.c_void_p) or 0

    def _destroy(self, pointer: int) -> int:
        del self.legacy[pointer]
        return 0

    def _put(self, pointer: int, kind: str, **values: Any) -> int:
        if self.legacy[pointer]["kind"] != kind:
            return 2000
        self.legacy[pointer].update(values)
        return 0

    def cudnnCreateRNNDescriptor(self, out: int) -> int:
        return self._create(out, "rnn")

    def cudnnCreateRNNDataDescriptor(self, out: int) -> int:
        return self._create(out, "data")

    def cudnnCreateTensorDescriptor(self, out: int) -> int:
        return self._create(out, "tensor")

    def cudnnCreateDropoutDescriptor(self, out: int) -> int:
        return self._create(out, "dropout")

    cudnnDestroyRNNDescriptor = cudnnDestroyRNNDataDescriptor = _destroy  # noqa: N815
    cudnnDestroyTensorDescriptor = cudnnDestroyDropoutDescriptor = _destroy  # noqa: N815

    def cudnnSetDropoutDescriptor(self, d: int, handle: int, ratio: float, states: Any, size: int, seed: int) -> int:
        return self._put(d, "dropout", ratio=ratio) if handle and not states and not size else 2000

    def cudnnSetTensorNdDescriptor(self, d: int, kind: int, rank: int, sizes: int, strides: int) -> int:
        found = [tuple((ctypes.c_int * rank).from_address(where)) for where in (sizes, strides)]
        return self._put(d, "tensor", dtype=TYPES[kind], sizes=found[0], strides=found[1])

    def cudnnGetTensorNdDescriptor(self, d: int, most: int, kind: int, rank: int, sizes: int, strides: int) -> int:
        made = self.legacy[d]
        _out(rank, len(made["sizes"]), ctypes.c_int)
        for where, values in ((sizes, made["sizes"]), (strides, made["strides"])):
            (ctypes.c_int * most).from_address(where)[: len(values)] = values
        return 0

    def cudnnSetRNNDataDescriptor(
        self, d: int, kind: int, layout: int, steps: int, streams: int, size: int, lengths: int, fill: Any
    ) -> int:
        each = list((ctypes.c_int * streams).from_address(lengths))
        if layout != 1 or each != [steps] * streams or fill:
            return 3000
        return self._put(d, "data", dtype=TYPES[kind], shape=(steps, streams, size))

    def cudnnSetRNNDescriptor_v8(
        self, d: int, algo: int, mode: int, bias: int, way: int, given: int, kind: int, precision: int, math: int,
        inputs: int, size: int, projected: int, layers: int, dropout: int, flags: int,
    ) -> int:  # fmt: skip
        wrong = algo or bias != 2 or given or flags or projected != size or precision != kind or math not in (0, 3)
        if wrong or self.refuses_rnn or self.legacy[dropout].get("ratio") != 0:
            return 3000
        made = {"mode": mode, "ways": way + 1, "dtype": TYPES[kind], "inputs": inputs, "size": size, "layers": layers}
        return self._put(d, "rnn", math=math, **made)

    # -------------------------------------------------------------------------------------------------------- the block
    def _pieces(self, net: dict[str, Any]) -> tuple[dict[Any, tuple[int, tuple[int, ...]]], int]:
        """(layer, way, number, "m" or "b") -> byte offset and shape, and the size of all."""
        found, at, width = {}, 16, np.dtype(net["dtype"]).itemsize
        count, size = len(GATES[net["mode"]]), net["size"]
        for what in "bm":  # biases first: nobody shall think otherwise of it
            for layer in reversed(range(net["layers"])):
                for way in range(net["ways"]):
                    for number in range(2 * count):
                        inputs = net["inputs"] if layer == 0 else net["ways"] * size
                        shape = (size, inputs if number < count else size) if what == "m" else (size,)
                        found[layer, way, number, what] = (at, shape)
                        at += int(np.prod(shape)) * width + GAP
        return found, at

    def cudnnGetRNNWeightSpaceSize(self, handle: int, d: int, out: int) -> int:
        return _out(out, self._pieces(self.legacy[d])[1]) or 0

    def cudnnGetRNNWeightParams(
        self, handle: int, d: int, walk: int, nbytes: int, space: int, number: int, m: int, at_m: int, b: int, at_b: int
    ) -> int:  # fmt: skip
        net = self.legacy[d]
        pieces, size = self._pieces(net)
        if nbytes != size or not space:
            return 2000
        for what, described, where in (("m", m, at_m), ("b", b, at_b)):
            at, shape = pieces[(*divmod(walk, net["ways"]), number, what)]
            sizes = (1, *shape, *(1,) * (2 - len(shape)))
            self._put(described, "tensor", sizes=sizes, strides=(sizes[1] * sizes[2], sizes[2], 1))
            _out(where, space + at, ctypes.c_void_p)
        return 0

    def _weights(self, net: dict[str, Any], space: int, layer: int, way: int) -> dict[str, Any]:
        """Views of the block as the reference's kernels want them: w and r (rows of our gates), biases b and d."""
        pieces, _ = self._pieces(net)
        gates, count = GATES[net["mode"]], len(GATES[net["mode"]])
        made = {}
        for name, first, what in (("w", 0, "m"), ("r", count, "m"), ("b", 0, "b"), ("d", count, "b")):
            parts = []
            for gate in OURS[net["mode"]]:
                at, shape = pieces[layer, way, first + gates.index(gate), what]
                strides = (shape[1], 1) if what == "m" else (1,)
                parts.append(memory(space + at, shape, strides, net["dtype"]))
            made[name] = parts
        return made

    # -------------------------------------------------------------------------------------------------------- execution
    def cudnnGetRNNTempSpaceSizes(self, handle: int, d: int, mode: int, data: int, work: int, reserve: int) -> int:
        net = self.legacy[d]
        _out(work, 1024)
        _out(reserve, self._rooms(net, self.legacy[data]["shape"])[1] if mode else 0)
        return 0

    def _rooms(self, net: dict[str, Any], shape: tuple[int, ...]) -> tuple[list[tuple[int, tuple[int, ...]]], int]:
        """Where y, cell, gates and the gradients of both products of each walk lie in the reserve."""
        steps, streams, d, wide = *shape[:2], net["size"], 4 * net["size"]
        found, at = [], 0
        for _ in range(net["layers"] * net["ways"]):
            for size in (d, d, wide, wide, wide):
                found.append((at, (steps, streams, size)))
                at += steps * streams * size * np.dtype(net["dtype"]).itemsize
        return found, at

    def _left(self, net: dict[str, Any], shape: Any, reserve: int | None, walk: int) -> list[Any]:
        places, size = self._rooms(net, shape)
        if reserve is None:
            raw = np.empty(size, np.uint8)
            return [
                np.frombuffer(raw, net["dtype"], int(np.prod(s)), at).reshape(s) for at, s in places[walk * 5 :][:5]
            ]
        made = []
        for at, (t, n, d) in places[walk * 5 :][:5]:
            made.append(memory(reserve + at, (t, n, d), (n * d, d, 1), net["dtype"]))
        return made

    def _state(self, net: dict[str, Any], where: int | None, shape: Any, walk: int) -> Any:
        if not where:
            return None
        n, d = shape[1], net["size"]
        return memory(where, (net["layers"] * net["ways"], n, d), (n * d, d, 1), net["dtype"])[walk]

    def _array(self, desc: int, where: int) -> Any:
        made = self.legacy[desc]
        t, n, d = made["shape"]
        return memory(where, (t, n, d), (n * d, d, 1), made["dtype"])

    def cudnnRNNForward(
        self, handle: int, d: int, mode: int, lengths: int, x_desc: int, x: int, y_desc: int, y: int, h_desc: int,
        hx: Any, hy: Any, c_desc: int, cx: Any, cy: Any, space_bytes: int, space: int, work_bytes: int, work: int,
        reserve_bytes: int, reserve: int,
    ) -> int:  # fmt: skip
        net, shape = self.legacy[d], self.legacy[x_desc]["shape"]
        assert self.legacy[y_desc]["shape"] == (*shape[:2], net["ways"] * net["size"])
        assert self.legacy[h_desc]["sizes"] == (net["layers"] * net["ways"], shape[1], net["size"])
        assert (net["mode"] == 2) == bool(c_desc)
        if space_bytes != self._pieces(net)[1] or work_bytes < 1024 or shape[2] != net["inputs"]:
            return 2000
        if mode and (reserve_bytes < self._rooms(net, shape)[1] or not reserve):
            return 2000

        def run() -> None:
            self.ran.append("forward" if mode else "inference")
            self._check_lengths(lengths, shape)
            ctypes.memset(work, 0xFF, 1024)
            values = self._array(x_desc, x)
            for layer in range(net["layers"]):
                outs = []
                for way in range(net["ways"]):
                    walk = layer * net["ways"] + way
                    left = self._left(net, shape, reserve if mode else None, walk)
                    first = [self._state(net, p, shape, walk) for p in (hx, cx)]
                    self._walk(net, values, self._weights(net, space, layer, way), first, left, bool(way))
                    outs.append(left[0])
                values = np.concatenate(outs, 2)
            self._array(y_desc, y)[...] = values

        fakestream.submit("rnn forward", quiet(run))
        return 0

    def _check_lengths(self, lengths: int, shape: Any) -> None:
        found = list((ctypes.c_int32 * shape[1]).from_address(lengths))
        assert found == [shape[0]] * shape[1], "the lengths on the device are those of the descriptor"

    def _walk(self, net: Any, x: Any, w: Any, first: list[Any], left: list[Any], reverse: bool) -> None:
        y, cell, gates = left[:3]
        recurrent, inputs = np.concatenate(w["r"]), np.concatenate(w["w"])
        bias, more = np.concatenate(w["b"]), np.concatenate(w["d"])
        if net["mode"] == 3:
            product = x @ inputs.T + bias + np.concatenate([*w["d"][:2], 0 * w["d"][2]])
            REFERENCE.gru(product, recurrent, w["d"][2], None, first[0], y, gates, reverse=reverse)
            return
        product = x @ inputs.T + bias + more
        if net["mode"] == 2:
            REFERENCE.lstm(product, recurrent, None, None, None, *first, y, cell, gates, reverse=reverse)
        else:
            act = ("relu", "tanh")[net["mode"]]
            REFERENCE.rnn(product, recurrent, None, first[0], y, act=act, reverse=reverse)

    def cudnnRNNBackwardData_v8(
        self, handle: int, d: int, lengths: int, y_desc: int, y: int, dy: int, x_desc: int, dx: int, h_desc: int,
        hx: Any, dhy: Any, dhx: Any, c_desc: int, cx: Any, dcy: Any, dcx: Any, space_bytes: int, space: int,
        work_bytes: int, work: int, reserve_bytes: int, reserve: int,
    ) -> int:  # fmt: skip
        net, shape = self.legacy[d], self.legacy[x_desc]["shape"]
        if not dx or not dy or dhy or dcy or reserve_bytes < self._rooms(net, shape)[1]:
            return 2000

        def run() -> None:
            self.ran.append("data")
            self._check_lengths(lengths, shape)
            ctypes.memset(work, 0xFF, 1024)
            slope = np.array(self._array(y_desc, dy))
            for layer in reversed(range(net["layers"])):
                total: Any = 0
                for way in range(net["ways"]):
                    walk, size = layer * net["ways"] + way, net["size"]
                    left = self._left(net, shape, reserve, walk)
                    if layer == net["layers"] - 1:
                        np.testing.assert_array_equal(left[0], self._array(y_desc, y)[:, :, way * size :][:, :, :size])
                    ends = [self._state(net, p, shape, walk) for p in (dhx, dcx)]
                    first = [self._state(net, p, shape, walk) for p in (hx, cx)]
                    w = self._weights(net, space, layer, way)
                    part = np.ascontiguousarray(slope[:, :, way * size :][:, :, :size])
                    made = self._back(net, part, np.concatenate(w["r"]), first, left, ends, bool(way))
                    total = total + made @ np.concatenate(w["w"])
                slope = total
            self._array(x_desc, dx)[...] = slope

        fakestream.submit("rnn data", quiet(run))
        return 0

    def _back(
        self, net: Any, dy: Any, r: Any, first: list[Any], left: list[Any], ends: list[Any], reverse: bool
    ) -> Any:
        """The gradient of the products of a walk, also left in the reserve."""
        y, cell, gates, of_input, of_state = left
        size, mode = net["size"], net["mode"]
        wide = size * len(GATES[mode])
        dx, du = np.empty((*y.shape[:2], wide), y.dtype), np.empty((*y.shape[:2], wide), y.dtype)
        dfirst = [np.empty(y.shape[1:], y.dtype) for _ in range(2)]
        if mode == 2:
            out = np.empty_like(y)
            REFERENCE.lstm_grad(r, None, None, None, first[1], cell, gates, dy, None, dx, out, *dfirst, reverse=reverse)
        elif mode == 3:
            REFERENCE.gru_grad(r, None, first[0], y, gates, dy, dx, du, dfirst[0], reverse=reverse)
        else:
            act = ("relu", "tanh")[mode]
            REFERENCE.rnn_grad(r, None, y, dy, dx, dfirst[0], act=act, reverse=reverse)
        for target, value in zip(ends, dfirst, strict=True):
            if target is not None:
                target[...] = value
        of_input[:, :, :wide], of_state[:, :, :wide] = dx, du if mode == 3 else dx
        return dx

    def cudnnRNNBackwardWeights_v8(
        self, handle: int, d: int, add: int, lengths: int, x_desc: int, x: int, h_desc: int, hx: Any, y_desc: int,
        y: int, space_bytes: int, space: int, work_bytes: int, work: int, reserve_bytes: int, reserve: int,
    ) -> int:  # fmt: skip
        net, shape = self.legacy[d], self.legacy[x_desc]["shape"]
        if add:
            return 3000

        def run() -> None:
            self.ran.append("weights")
            ctypes.memset(work, 0xFF, 1024)
            values = self._array(x_desc, x)
            for layer in range(net["layers"]):
                outs = []
                for way in range(net["ways"]):
                    walk = layer * net["ways"] + way
                    y_walk, _, _, of_input, of_state = self._left(net, shape, reserve, walk)
                    first = self._state(net, hx, shape, walk)
                    zero = np.zeros_like(y_walk[:1]) if first is None else first[None]
                    before = np.concatenate([y_walk[1:], zero] if way else [zero, y_walk[:-1]])
                    grads = self._weights(net, space, layer, way)
                    for i in range(len(GATES[net["mode"]])):
                        rows = slice(i * net["size"], (i + 1) * net["size"])
                        a, b = of_input[:, :, rows], of_state[:, :, rows]
                        grads["w"][i][...] += np.einsum("tnd,tni->di", a, values)
                        grads["r"][i][...] += np.einsum("tnd,tni->di", b, before)
                        grads["b"][i][...] += a.sum((0, 1))
                        grads["d"][i][...] += b.sum((0, 1))
                    outs.append(y_walk)
                values = np.concatenate(outs, 2)

        fakestream.submit("rnn weights", quiet(run))
        return 0

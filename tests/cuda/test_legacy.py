"""cuDNN's recurrent nets and its CTC as far as the real library answers without a device.

It needs the wheels nvidia-cudnn-cu13 and nvidia-cublas (800 MB) and is skipped where they are absent.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from layers_cuda import dnn_ctc, lazy, rnn
from layers_cuda.dnn import CudnnError, declare
from netrun.errors import DeviceError


@pytest.fixture(scope="module")
def real() -> Any:
    try:
        return dnn_ctc.declare_ctc(declare(lazy.library("cudnn")))
    except DeviceError as error:
        pytest.skip(f"no cuDNN: {error.problems[0].what}")


STACK = rnn.Stack("lstm", "float32", 7, 3, 5, 6, layers=2, ways=2, tensor=True, training=True)


def test_the_real_descriptors_take_what_is_set(real: Any) -> None:
    """What needs no device, read back; the order of the arguments is so shown to be right."""
    values, names = [ctypes.c_int() for _ in range(12)], [ctypes.c_void_p(), ctypes.c_uint32()]
    get = real.cudnnGetRNNDescriptor_v8
    get.argtypes = [ctypes.c_void_p] * 15
    for stack, math in ((STACK, 0), (replace(STACK, tensor=False), 3)):
        net = rnn.network(real, stack, None)
        assert get(net.pointer, *map(ctypes.addressof, (*values, *names))) == 0
        assert [v.value for v in values] == [0, 2, 2, 1, 0, 0, 0, math, 5, 6, 6, 2]
    data = rnn.sequences(real, "float32", 7, 3, 5)
    lengths = (ctypes.c_int * 3)()
    values = [ctypes.c_int() for _ in range(5)]
    get = real.cudnnGetRNNDataDescriptor
    get.argtypes = [*[ctypes.c_void_p] * 6, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    fill = ctypes.c_float(9)
    where = [*map(ctypes.addressof, values), 3, ctypes.addressof(lengths), ctypes.addressof(fill)]
    assert get(data.pointer, *where) == 0
    assert [v.value for v in values] == [0, 1, 7, 3, 5]
    assert list(lengths) == [7, 7, 7]
    assert rnn.tensor(real, "float64", (4, 3, 6)).pointer


@pytest.mark.parametrize("mode", rnn.MODES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_real_library_takes_every_kind(mode: str, dtype: str, real: Any) -> None:
    for layers in (1, 3):
        for ways in (1, 2):
            stack = rnn.Stack(mode, dtype, 7, 3, 5, 6, layers, ways)
            assert rnn.network(real, stack, None).pointer
            assert rnn.network(real, replace(stack, tensor=True), None).pointer


def test_the_real_library_refuses_a_size_of_nothing(real: Any) -> None:
    with pytest.raises(CudnnError, match="cudnnSetRNNDescriptor_v8"):
        rnn.network(real, replace(STACK, size=0), None)


BLANK = """
import ctypes, json, sys
from types import SimpleNamespace
from layers_cuda import lazy, rnn
from layers_cuda.dnn import declare

library = rnn.declare(declare(lazy.library("cudnn")))
handle = ctypes.create_string_buffer(1 << 20)
dnn = SimpleNamespace(library=library, handle=ctypes.addressof(handle), version=int(library.cudnnGetVersion()))
stack = rnn.Stack(sys.argv[1], "float32", 7, 3, 5, 6, layers=2, ways=2)
made, size = object.__new__(rnn.Made), ctypes.c_size_t()
made.stack, made._dnn, made._library, made.net = stack, dnn, library, rnn.network(library, stack, None)
made._ask("cudnnGetRNNWeightSpaceSize", ctypes.addressof(size))
made.space = size.value
count = 2 * len(rnn.GATES[stack.mode])
walks = [(layer, way, i) for layer in range(2) for way in range(2) for i in range(count)]
print(json.dumps([made.space, [[*walk, *made.place(1 << 20, *walk)] for walk in walks]]))
"""
"""Asks where the weights lie with a block of zeros in the place of a handle, into which these calls do not look."""


@pytest.mark.parametrize("mode", rnn.MODES)
def test_the_real_block_of_weights(mode: str, real: Any) -> None:
    """Matrices are rows x columns, row by row, and matrices and biases of all gates fill the block without overlap."""
    done = subprocess.run([sys.executable, "-c", BLANK, mode], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode < 0:
        pytest.skip("this cuDNN looks into its handle")
    assert not done.returncode, done.stderr
    space, found = json.loads(done.stdout)
    pieces, gates = [], len(rnn.GATES[mode])
    for layer, _, number, matrix, bias in found:
        inputs = 6 if number >= gates else 12 if layer else 5
        pieces += [(matrix, 6 * inputs * 4), (bias, 6 * 4)]
    at = 0
    for begin, size in sorted(pieces):
        assert begin == at
        at += size
    assert at == space


def test_the_descriptor_of_ctc(real: Any) -> None:
    made, values = dnn_ctc.loss(real), [ctypes.c_int(9) for _ in range(4)]
    real.cudnnGetCTCLossDescriptor_v9.argtypes = [ctypes.c_void_p] * 5
    assert real.cudnnGetCTCLossDescriptor_v9(made.pointer, *map(ctypes.addressof, values)) == 0
    assert [v.value for v in values] == [0, 1, 0, 255]

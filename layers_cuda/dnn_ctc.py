"""The door to cuDNN's connectionist temporal classification.

cuDNN wants the labels of all sequences one after another, with class 0 as the blank and at most 255 to a sequence, and
says nothing of labels that do not fit, of none, or of a blank among them: ``ctc.py`` keeps such sequences from it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

from netrun.errors import DeviceError

from .dnn import TYPES, CudnnError, Dnn, check, message
from .launch import Launch, Step
from .rnn import Legacy, declare, tensor

_P, _I, _S = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
_SIGNATURES = {
    "cudnnCreateCTCLossDescriptor": [_P], "cudnnDestroyCTCLossDescriptor": [_P],
    "cudnnSetCTCLossDescriptor_v9": [_P, _I, _I, _I, _I],
    "cudnnGetCTCLossWorkspaceSize_v8": [_P, _I, _P, _P, _P, _P],
    "cudnnCTCLoss_v8": [_P, _I, *[_P] * 9, _S, _P],
}  # fmt: skip

# Numbers of cudnn_adv_v9.h, cudnn_ops_v9.h and cudnn_graph_v9.h.
DETERMINISTIC, SOFTMAX, ZERO_GRADIENTS = 0, 1, 0
MOST_LABELS = 255
HINT = "NETRUN_CUDA_CTC=own in the environment keeps CTC on netrun's own kernels"


def declare_ctc(library: Any) -> Any:
    """Give the functions used here their argument types; returns the library."""
    for name, types in _SIGNATURES.items():
        getattr(library, name).argtypes = types
    return declare(library)


def loss(library: Any) -> Legacy:
    """The loss of softmax(x), and its gradient by x."""
    numbers = TYPES["float32"], SOFTMAX, ZERO_GRADIENTS, MOST_LABELS
    return Legacy(library, "CTCLossDescriptor").set("cudnnSetCTCLossDescriptor_v9", *numbers)


class Ctc:
    """CTC of one device, in float32."""

    def __init__(self, dnn: Dnn) -> None:
        self._dnn, self._library = dnn, declare_ctc(dnn.library)
        self._made: dict[tuple[int, ...], tuple[Legacy, Legacy, int] | None] = {}

    def workspace(self, shape: tuple[int, ...]) -> int | None:
        """Bytes of scratch for scores T N K; None where cuDNN refuses them."""
        made = self._of(shape)
        return None if made is None else made[2]

    def step(
        self, x: Any, labels: Any, counts: Any, steps: Any, losses: Any, slope: Any, scratch: Any
    ) -> Step:  # fmt: skip
        """A step for the losses and the gradient of their sum by x.

        Args:
            labels: int32, of one sequence after another, as many as counts says (N int32); steps: N int32.
        """
        made = self._of(tuple(x.shape))
        if made is None:
            raise DeviceError(f"cuDNN {self._dnn.version} has no CTC of {x.shape}", None, [HINT])
        described, scores, nbytes = made
        arrays = (x, labels, counts, steps, losses, slope, scratch)
        where = [a.data.ptr for a in arrays]
        call = partial(
            self._library.cudnnCTCLoss_v8, self._dnn.handle, DETERMINISTIC, described.pointer, scores.pointer,
            *where[:5], scores.pointer, where[5], nbytes, where[6],
        )  # fmt: skip
        return Launch.of((arrays, made), self._run, call, x.shape)

    def _of(self, shape: tuple[int, ...]) -> tuple[Legacy, Legacy, int] | None:
        if shape not in self._made:
            try:
                self._made[shape] = self._new(shape)
            except CudnnError:
                self._made[shape] = None
        return self._made[shape]

    def _new(self, shape: tuple[int, ...]) -> tuple[Legacy, Legacy, int]:
        described, scores = loss(self._library), tensor(self._library, "float32", shape)
        size, both = ctypes.c_size_t(), (described.pointer, scores.pointer, scores.pointer)
        ask = self._library.cudnnGetCTCLossWorkspaceSize_v8
        status = ask(self._dnn.handle, DETERMINISTIC, *both, ctypes.addressof(size))
        check(self._library, status, "cudnnGetCTCLossWorkspaceSize_v8")
        return described, scores, int(size.value)

    def _run(self, call: Callable[[], int], shape: tuple[int, ...]) -> None:
        status = call()
        if status:
            text = f"cuDNN: CTC of {shape}: {message(self._library, status)}"
            raise DeviceError(text, None, [HINT])

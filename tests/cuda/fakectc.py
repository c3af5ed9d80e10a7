"""A stand-in for the CTC of libcudnn: labels of all sequences one after another, class 0 the blank.

What the documentation says nothing of fails an assertion: no labels, a blank among them, labels that do not fit.
Behind the last step of a sequence the gradient is left as it was.
"""

from __future__ import annotations

import ctypes

import fakestream
import numpy as np
from fakebase import memory, quiet
from fakernn import REFERENCE, Recurrent

WORKSPACE = 2048


class Classification(Recurrent):
    """``refuses_ctc``: no shape is taken. ``classified``: the sequences of each call."""

    refuses_ctc = False

    def __init__(self) -> None:
        super().__init__()
        self.classified: list[int] = []

    def cudnnCreateCTCLossDescriptor(self, out: int) -> int:
        return self._create(out, "ctc")

    def cudnnDestroyCTCLossDescriptor(self, pointer: int) -> int:
        return self._destroy(pointer)

    def cudnnSetCTCLossDescriptor_v9(self, d: int, kind: int, normalise: int, gradients: int, most: int) -> int:
        return self._put(d, "ctc", most=most) if (kind, normalise, gradients) == (0, 1, 0) and most <= 255 else 3000

    def cudnnGetCTCLossWorkspaceSize_v8(self, handle: int, algo: int, d: int, x: int, slope: int, out: int) -> int:
        ctypes.c_size_t.from_address(out).value = WORKSPACE
        return 3000 if self.refuses_ctc or algo or len(self.legacy[x]["sizes"]) != 3 else 0

    def cudnnCTCLoss_v8(
        self, handle: int, algo: int, d: int, x_desc: int, x: int, labels: int, counts: int, ends: int, losses: int,
        slope_desc: int, slope: int, nbytes: int, work: int,
    ) -> int:  # fmt: skip
        most, streams, classes = self.legacy[x_desc]["sizes"]
        if algo or nbytes < WORKSPACE or self.legacy[d]["kind"] != "ctc":
            return 2000

        def run() -> None:
            ctypes.memset(work, 0xFF, WORKSPACE)
            self.classified.append(streams)
            lengths, steps = (np.array(memory(p, (streams,), (1,), "int32")) for p in (counts, ends))
            packed = np.array(memory(labels, (int(lengths.sum()),), (1,), "int32"))
            assert ((packed > 0) & (packed < classes)).all()
            shape, apart = (most, streams, classes), (streams * classes, classes, 1)
            scores, made = (memory(p, shape, apart, "float32") for p in (x, slope))
            parts = np.split(packed, np.cumsum(lengths)[:-1])
            for n, own in enumerate(parts):
                assert 0 < len(own) + int((own[1:] == own[:-1]).sum()) <= steps[n] <= most
                assert len(own) <= self.legacy[d]["most"]
                one, found = np.empty(1, "float32"), np.empty((most, 1, classes), "float32")
                given = scores[:, n : n + 1], own[None], steps[n : n + 1], lengths[n : n + 1]
                REFERENCE.ctc(*given, one, found, blank=0)
                memory(losses, (streams,), (1,), "float32")[n] = one[0]
                made[: steps[n], n] = found[: steps[n], 0]

        fakestream.submit("ctc", quiet(run))
        return 0

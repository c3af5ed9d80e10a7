"""Fine-tuning: the lower layers of a trained net stay, a new last layer learns a new task, odd or even."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from _digits import DIGITS, accuracy, solver_for, train

import netrun.pycaffe as caffe


class Parity(caffe.Layer):
    """y = 1 where the label is odd, else 0."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data % 2

    def backward(self, top, propagate_down, bottom):
        pass


LABELS = """
layer { name: "parity" type: "Python" bottom: "label" top: "odd" python_param { module: "finetune" layer: "Parity" } }
"""


def new_net(folder: str) -> str:
    """The digits net with two outputs for the parity; what lies below its last layer does not learn."""
    text = (DIGITS / "net.prototxt").read_text().replace('source: "', f'source: "{DIGITS}/')
    text = text.replace("lr_mult: 1 ", "lr_mult: 0 ").replace("lr_mult: 2 ", "lr_mult: 0 ")
    head, tail = text[: text.index('layer {\n  name: "ip2"')], text[text.index('layer {\n  name: "ip2"') :]
    tail = tail.replace("lr_mult: 0 ", "lr_mult: 1 ").replace("num_output: 10", "num_output: 2")
    tail = re.sub(r'"ip2"', '"ip2-parity"', tail).replace('bottom: "label"', 'bottom: "odd"')
    file = Path(folder) / "parity.prototxt"
    file.write_text(head + LABELS + tail)
    return str(file)


def main() -> tuple[float, float]:
    """Returns the accuracy on the test images before and after."""
    sys.modules.setdefault("finetune", sys.modules[__name__])
    with tempfile.TemporaryDirectory() as folder:
        weights = train(folder)
        file = new_net(folder)
        solver = solver_for(file, folder, rate=0.01)
        solver.net.copy_from(weights)  # layers of other names, the new one, keep what their fillers gave them
        test = caffe.Net(file, caffe.TEST)
        test.share_with(solver.net)
        before = accuracy(test)
        frozen = np.array(solver.net.params["conv1"][0].data)
        solver.step(60)
        assert (solver.net.params["conv1"][0].data == frozen).all()
        after = accuracy(test)
    print(f"odd or even: accuracy {before:.3f} before, {after:.3f} after 60 iterations")
    return before, after


if __name__ == "__main__":
    main()

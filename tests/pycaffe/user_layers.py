"""Layers in Python as users of pycaffe write them."""

from __future__ import annotations

from typing import Any

import numpy as np

import netrun.pycaffe as caffe


class Tenfold(caffe.Layer):
    """y = 10 x"""

    def setup(self, bottom: Any, top: Any) -> None:
        self.seen = 0

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom: Any, top: Any) -> None:
        self.seen += 1
        top[0].data[...] = 10 * bottom[0].data

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        bottom[0].diff[...] = 10 * top[0].diff


class Failing(caffe.Layer):
    """Fails in setup."""

    def setup(self, bottom: Any, top: Any) -> None:
        raise RuntimeError("no luck")

    def reshape(self, bottom: Any, top: Any) -> None:
        pass

    def forward(self, bottom: Any, top: Any) -> None:
        pass


class FailingLater(Tenfold):
    """Fails in forward."""

    def forward(self, bottom: Any, top: Any) -> None:
        raise IndexError("out of luck")


class Parameter(caffe.Layer):
    """Has a parameter, and says that its gradient is 1."""

    def setup(self, bottom: Any, top: Any) -> None:
        self.blobs.add_blob(1)
        self.blobs[0].data[0] = 0

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom: Any, top: Any) -> None:
        pass

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        self.blobs[0].diff[0] = 1


class Phase(caffe.Layer):
    """Tells its phase."""

    def setup(self, bottom: Any, top: Any) -> None:
        pass

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape()

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].data[()] = self.phase


class Images(caffe.Layer):
    """A source whose batches have another shape each time."""

    def setup(self, bottom: Any, top: Any) -> None:
        self.sizes = eval(self.param_str)["sizes"]
        self.next = 0

    def reshape(self, bottom: Any, top: Any) -> None:
        self.data = np.full((1, 2, self.sizes[self.next], 4), self.next, np.float32)
        top[0].reshape(*self.data.shape)

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].data[...] = self.data
        self.next = (self.next + 1) % len(self.sizes)

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        pass


class Multilabel(caffe.Layer):
    """A source that says its shapes once, in setup, and has no backward."""

    def setup(self, bottom: Any, top: Any) -> None:
        top[0].reshape(4, 3)
        top[1].reshape(4)

    def reshape(self, bottom: Any, top: Any) -> None:
        pass

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].data[...] = np.arange(12).reshape(4, 3)
        top[1].data[...] = [0, 1, 1, 0]


class Metric(caffe.Layer):
    """A score, which has no backward, or one that must not be called."""

    def setup(self, bottom: Any, top: Any) -> None:
        top[0].reshape(1)

    def reshape(self, bottom: Any, top: Any) -> None:
        pass

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].data[...] = bottom[0].data.max()

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        raise NotImplementedError("scores have no gradient")


class Samples(caffe.Layer):
    """A source that is handed its samples by the script, and learns in forward how large the next one is."""

    def set_samples(self, samples: Any) -> None:
        self.samples, self.next = samples, 0

    def setup(self, bottom: Any, top: Any) -> None:
        self.places = eval(self.param_str)
        top[self.places["image"]].reshape(1, 2, 8, 8)
        top[self.places["count"]].reshape(1, 1)

    def reshape(self, bottom: Any, top: Any) -> None:
        pass

    def forward(self, bottom: Any, top: Any) -> None:
        for name, values in self.samples[self.next % len(self.samples)].items():
            place = self.places[name]
            top[place].reshape(*values.shape)
            top[place].data[...] = values.astype(np.float32, copy=False)
        self.next += 1

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        pass


class Proposals(caffe.Layer):
    """As many regions, with labels in training, as the second bottom says."""

    def __init__(self, layer_param: Any, *arguments: Any, **keywords: Any) -> None:
        super().__init__(layer_param, *arguments, **keywords)
        self.made = 0

    def setup(self, bottom: Any, top: Any) -> None:
        top[0].reshape(1, 5)

    def reshape(self, bottom: Any, top: Any) -> None:
        pass

    def forward(self, bottom: Any, top: Any) -> None:
        count = int(bottom[1].data[0, 0])
        top[0].reshape(count, 5)
        top[0].data[...] = bottom[0].data.mean() + np.arange(5)
        top[-1].reshape(count)
        top[-1].data[...] = np.arange(count) % 2
        self.made += count

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        pass

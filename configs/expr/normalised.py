"""A layer of a net in a few lines: no backward, no device."""

from typing import Any

import netrun


class Normalised(netrun.ForwardLayer):
    """y = gelu(normalize(x w) * gain + bias), param_str columns."""

    def weights(self, x: Any) -> Any:
        columns = int(self.param_str)
        return {"w": ((x.shape[1], columns), "xavier"), "gain": ((columns,), 1.0), "bias": (columns,)}

    def forward(self, k: Any, x: Any, w: Any) -> Any:
        return k.gelu(k.normalize(x @ w.w, axis=1) * w.gain + w.bias)

"""What weight and state files hold, whatever their format."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from . import schema
from .wire import Array


@dataclass
class LayerWeights:
    """The learned blobs of one layer as a file holds them.

    Attributes:
        name: the layer's name, by which weights find their layer.
        type: its type in the current spelling ("Convolution"); "" if the file does not say (HDF5).
        blobs: float32 or float64 arrays in the shape of the file, read-only and possibly not aligned: copy them.
        diffs: for each blob its gradient, or None if the file holds none.
        legacy: some blob has the old shape with always four axes (num, channels, height, width).
        numbers: which blob of the layer each one is, if some are not there: an HDF5 file leaves shared ones out.
    """

    name: str
    type: str = ""
    blobs: list[Array] = field(default_factory=list)
    diffs: list[Array | None] = field(default_factory=list)
    legacy: bool = False
    numbers: list[int] = field(default_factory=list)

    @property
    def numbered(self) -> dict[int, Array]:
        """The blobs by their number in the layer."""
        return dict(zip(self.numbers or range(len(self.blobs)), self.blobs, strict=True))


@dataclass
class State:
    """Where a training stood.

    Attributes:
        iter: updates done.
        learned_net: the weight file that belongs to it, relative to the working directory.
        current_step: steps the multistep policy has taken.
        history: the solver's own arrays, in the order of the learnable parameters.
        cursor: the position of every data layer (netrun's own; empty in a state that Caffe wrote).
        seed: the seed of all random numbers (netrun's own).
        recent_loss: the last losses, over which the displayed one is averaged (netrun's own).
        plateau_best, plateau_since: what the plateau policy has seen (netrun's own).
        carried: what recurrent layers carry into the next batch, by net and name of the state (netrun's own).
    """

    iter: int
    learned_net: str = ""
    current_step: int = 0
    history: list[Array] = field(default_factory=list)
    cursor: list[schema.DataCursor] = field(default_factory=list)
    seed: int | None = None
    recent_loss: list[float] = field(default_factory=list)
    plateau_best: float | None = None
    plateau_since: int = 0
    carried: dict[tuple[str, str], Array] = field(default_factory=dict)

    def message(self) -> schema.SolverState:
        """All of it but the history, as the message a .solverstate begins with."""
        message = schema.SolverState(
            iter=self.iter, learned_net=self.learned_net, current_step=self.current_step, recent_loss=self.recent_loss
        )
        message.cursor.extend(self.cursor)
        if self.seed is not None:
            message.seed = self.seed
        if self.plateau_best is not None:
            message.plateau_best = self.plateau_best
        if self.plateau_since:
            message.plateau_since = self.plateau_since
        for (net, name), values in self.carried.items():
            message.carried.append(_carried(net, name, values))
        return message

    @classmethod
    def of(cls, message: schema.SolverState, history: list[Array]) -> State:
        """A state made of a message (whose own history is not looked at) and its arrays."""
        return cls(
            iter=message.iter,
            learned_net=message.learned_net,
            current_step=message.current_step,
            history=history,
            cursor=list(message.cursor),
            seed=message.seed if message.HasField("seed") else None,
            recent_loss=list(message.recent_loss),
            plateau_best=message.plateau_best if message.HasField("plateau_best") else None,
            plateau_since=message.plateau_since,
            carried={(c.net, c.name): _values(c.value) for c in message.carried},
        )


def _carried(net: str, name: str, values: Array) -> schema.CarriedState:
    value = schema.BlobProto(shape=schema.BlobShape(dim=values.shape))
    column = value.double_data if values.dtype == np.float64 else value.data
    column.extend(values.reshape(-1).tolist())
    return schema.CarriedState(net=net, name=name, value=value)


def _values(value: schema.BlobProto) -> Array:
    """The array of a blob; one whose count does not fit its shape stays flat, and fits nothing."""
    flat = np.array(value.double_data, np.float64) if value.double_data else np.array(value.data, np.float32)
    shape = tuple(value.shape.dim)
    return flat.reshape(shape) if math.prod(shape) == flat.size else flat

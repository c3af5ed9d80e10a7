"""What stands behind a net in Python: its compiled forms, its memory, its data (``feeding``). Blobs hold on to it, not
to the net, so they outlive it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .blob import ShapeMismatchError
from .compiler.graph import Graph
from .compiler.record import Recording
from .compiler.sharing import Parameter
from .config import schema
from .device import Array, Device
from .errors import NetrunError
from .feeding import Feeding
from .forms import Form, check_parameters, laid, recompiled
from .homes import Seen, read, write
from .lean import Rooms
from .params import initialise
from .recipe import Recipe
from .session import SHARED, Session
from .types import PERSISTENT, Shape, Spec, Tensor
from .varying import open_session
from .visible import Visible
from .whole import compile_whole

KEPT = 8
"""Sets of input shapes that stay compiled."""

Key = tuple[str, str, int]
"""("blob", its name, 0) or ("param", layer, its number)."""


class Engine:
    """Runs a net whole or from layer to layer, on memory that one may look into.

    Args:
        shared: memory of the parameters, if another net has them already.

    Raises:
        ConfigError: the net cannot be built, with every problem found.
    """

    def __init__(
        self, recipe: Recipe, device: Device, shapes: Mapping[str, Shape], shared: Visible | None = None
    ) -> None:
        self.recipe, self.device = recipe, device
        self.shared = shared or Visible(device)
        self.shared.users += shared is not None
        self.own = Visible(device)
        self._rooms = Rooms(device)
        self.shapes: dict[str, Shape] = dict(shapes)
        """Shapes of inputs that are not those of the prototxt."""
        self.pending: dict[str, Shape] = {}
        """Shapes asked for with ``reshape`` that no pass has settled yet."""
        self._shown: dict[Key, Shape] = {}
        self._away: set[str] = set()
        self.forwards = 0
        self._forms: OrderedDict[tuple[tuple[str, Shape], ...], Form] = OrderedDict()
        graph = recipe.graph(shapes)
        self.both_ways = recipe.state.phase == schema.TRAIN or graph.force_backward or bool(graph.varying)
        """Whether backward is compiled. Where it is unlikely it waits until somebody asks for it: see ``_turn``."""
        self.now = self._settle(graph)
        self.feeding = Feeding(recipe, self.graph, self.put)
        self.numbers = {node.name: i for i, node in reversed(list(enumerate(self.graph.nodes)))}
        self.feeding.fill_constants(self.recording)

    # ---------------------------------------------------------------------------------------------------------- forms
    @property
    def graph(self) -> Graph:
        """The graph for the current input shapes."""
        return self.now.whole.recording.graph

    @property
    def recording(self) -> Recording:
        """The recorded net for the current input shapes."""
        return self.now.whole.recording

    def _settle(self, graph: Graph | None = None) -> Form:
        """The form for the shapes of now, compiled if it is not there."""
        key = tuple(sorted(self.shapes.items()))
        form = self._forms.get(key)
        if form is None:
            form = self._forms[key] = self._compile(graph or self.recipe.graph(self.shapes, self.graph))
            if len(self._forms) > KEPT:
                self._forms.popitem(last=False)
        self._forms.move_to_end(key)
        return form

    def _compile(self, graph: Graph) -> Form:
        whole = compile_whole(graph, self.both_ways)
        initialise(whole.recording, self.shared, self.recipe.seed)
        first = whole.recording, whole.program

        def bind() -> Session:
            kept = {tensor for tensor, _ in whole.weights() if self.own.holds(tensor)}
            session = open_session(first, recompiled, self.device, self.shared, self.own)
            for tensor, weight in whole.weights():
                if tensor not in kept:  # what a person put in its place stays
                    session.write(tensor, np.full(tensor.shape, weight))
            return session

        return Form(whole, bind, (self.shared, self.own), self.both_ways, self._rooms)

    def recall(self, shown: bool = False) -> None:
        """Everything holds what the last pass made of it.

        Args:
            shown: somebody gets at the memory by other ways than these, so nothing less will ever do.
        """
        if self.now.lean is not None:
            self.now.lean.fill()
            self.shared.users += shown

    def _turn(self) -> None:
        """Compile backward too. What it needs of a forward pass that ran without it (where the maxima were) is worked
        out once more, in memory of its own, so that nothing that can be seen changes."""
        self.recall()
        self.own.unlay()
        self.both_ways = True
        graph, fed, before = self.graph, self.now.session.fed, self.now
        self._forms.clear()
        self.now = self._settle(graph)
        whole = self.now.whole
        aside = Visible(self.device)
        again = open_session((whole.recording, whole.program), recompiled, self.device, self.shared, aside)
        if fed:  # what the data layers brought last
            self.now.session.fit(dict(fed))
            again.fit(dict(fed))
        for name, tensor in before.whole.data.items():
            self._carry(whole.data[name], before.array(tensor))
        if not self.forwards:
            return
        inputs = [*whole.recording.feeds.values(), *whole.recording.states.values(), whole.recording.clock]
        for tensor in inputs:
            again.write(tensor, self.now.session.read(tensor))
        again.part(lambda origin: not origin.is_backward)()
        seen = {*whole.recording.tensors.values(), *whole.gradients.values()}
        for tensor in whole.program.keeps - seen:
            found = again.resolve(tensor)
            kept = again.program.homes[found].tensor if found in again.program.homes else tensor
            if kept.name in aside and kept.kind == "buffer":
                self.now.session.write(kept, again.read(kept))

    def _carry(self, tensor: Tensor, before: Array) -> None:
        """Bring over what lay somewhere else, where either place has a form that is the device's own."""
        now = self.now.array(tensor)
        if now is not before and (isinstance(now, Seen) or isinstance(before, Seen)):
            write(self.device, now, read(self.device, before))

    def settle(self) -> None:
        """Go over to the shapes that were asked for with ``reshape``.

        Raises:
            ConfigError: the layers do not fit these shapes; the net stays as it was.
        """
        wanted, self.pending = self.pending, {}
        self._away.clear()
        given = {v.blob for n in self.graph.nodes if n.layer.type in ("Input", "DummyData") for v in n.tops}
        before = self.shapes
        self.shapes = {**before, **{name: shape for name, shape in wanted.items() if name in given}}
        if self.shapes == before:
            return
        for memory in (self.shared, self.own):
            memory.send()
        self.own.unlay()
        try:
            form = self._settle()
            check_parameters(self.graph, form.whole.recording.graph)
        except NetrunError:
            self.shapes = before
            self._lay(self.now)
            raise
        old = self.graph
        if form.lean is not None and self.now.lean is not None:
            form.lean.follow(self.now.lean)
        self.now = form
        self._lay(form)
        self.feeding.reshaped(self.recording, {(top.blob, top.spec) for node in old.nodes for top in node.tops})

    def _lay(self, form: Form) -> None:
        self.own.unlay(values=False)
        if "session" in form.__dict__:
            self.own.lay(laid(form, form.session))

    def rebind(self) -> None:
        """Bind again: the memory of parameters is another one now."""
        self.recall()
        self.own.unlay()
        self._forms.clear()
        self.now = self._settle(None)

    # --------------------------------------------------------------------------------------------------------- memory
    def tensor(self, key: Key, diff: bool) -> Tensor:
        """The tensor that stands for a blob or a parameter now."""
        kind, name, index = key
        whole = self.now.whole
        if kind == "blob":
            if diff and not self.both_ways:
                self._turn()
                whole = self.now.whole
            asked = self.pending.get(name)
            found = (whole.diff if diff else whole.data)[name]
            if asked is not None:
                root = self.now.owner(found)
                self._away.add(root.name)
                return Tensor(root.name, Spec(asked, found.dtype), root.kind)
            if not self.now.loose:
                return found
            shape = self.now.session.resolve(whole.data[name]).shape
            found = self.now.session.resolve(found)
            return found if found.shape == shape else replace(found, spec=replace(found.spec, shape=shape))
        parameter = self.graph.nodes[self.numbers[name]].parameters[index]
        owner = parameter.owner or parameter
        tensor = whole.accumulators[owner] if diff else whole.recording.parameters[owner]
        return tensor.view(self._shown.get(key, parameter.spec.shape))

    def _home(self, tensor: Tensor) -> tuple[Visible, Array]:
        away = self.pending and tensor.name in self._away
        root = tensor.root if away else self.now.owner(tensor)  # a top may be a parameter itself
        memory = self.shared if root.kind in SHARED else self.own
        return memory, memory.array(tensor) if away else self.now.array(tensor)

    def look(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """The host array of a tensor, for reading and writing."""
        if self.now.lean is not None and tensor.name not in self._away:
            return self.now.lean.look(tensor)
        memory, home = self._home(tensor)
        if isinstance(home, np.ndarray):
            return home
        found = memory.look(*self._rooted(tensor, home))
        return found if found.shape == tensor.shape else found.reshape(tensor.shape)

    def put(self, tensor: Tensor, values: Any) -> None:
        """Write a tensor."""
        if self.now.lean is not None:
            self.now.lean.looked(tensor)
        memory, home = self._home(tensor)
        memory.version += 1
        if isinstance(home, np.ndarray):
            self.device.write(home, values)
            memory.written(self.now.owner(tensor))
            return
        root, owned = self._rooted(tensor, home)
        memory.put(root, owned, np.reshape(values, root.shape))

    def home(self, tensor: Tensor) -> Any:
        """The device's own array."""
        self.recall(shown=True)
        memory, home = self._home(tensor)
        return home if isinstance(home, np.ndarray) else memory.release(*self._rooted(tensor, home))

    def _rooted(self, tensor: Tensor, home: Array) -> tuple[Tensor, Array]:
        """The tensor that owns the memory, so that all who share it share one host copy."""
        if tensor.name in self._away:
            return tensor, home
        root = self.now.owner(tensor)
        return root, self.now.array(root)

    def reshape(self, key: Key, shape: Shape) -> None:
        """Another shape for a blob, until ``settle``; of a parameter, for good, how its values are divided into axes.

        Raises:
            ShapeMismatchError: a parameter would have more values, or fewer, than its layer computes with.
        """
        kind, name, index = key
        current = self.tensor(key, False).shape
        if shape == current:
            return
        if kind == "blob":
            self.pending[name] = shape
            return
        if math.prod(shape) != math.prod(current):
            own, got = (" ".join(map(str, s)) or "one number" for s in (current, shape))
            raise ShapeMismatchError(
                f"parameter {index} of layer {name} cannot be reshaped from {own} to {got}: the layer computes with "
                f"{math.prod(current)} values. Build the net with other sizes (num_output, kernel_size, ...) and copy "
                "into its parameters"
            )
        self._shown[key] = shape

    @property
    def shown(self) -> dict[Parameter, Shape]:
        """Shapes that parameters are shown, loaded and saved in: the same values along other axes than the layer's."""
        return {self.graph.nodes[self.numbers[n]].parameters[i]: shape for (_, n, i), shape in self._shown.items()}

    def read(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """A host copy of the value of a tensor."""
        return np.array(self.look(tensor))

    # -------------------------------------------------------------------------------------------------------- running
    def forward(self, low: int, high: int, given: frozenset[str] = frozenset(), clock: int | None = None) -> None:
        """Run the layers ``low`` to ``high``, both included. Data layers among them bring the next batch.

        Args:
            given: tops of data layers that keep what the caller put into them.
            clock: the number of the pass that this is a part of; the next one by default.
        """
        if self.pending:
            self.settle()
        form = self.now
        if form.fed:
            self.feeding.feed(form, low, high, given)
        if form.clocked:
            form.session.write(form.whole.recording.clock, np.int64(self.forwards if clock is None else clock))
        self.forwards += low == 0
        if form.lean is None or not form.lean.run(low == 0 and high == len(self.graph.nodes) - 1):
            self._run(form, False, low, high)
        if form.loose:
            for tensor, weight in form.whole.weights():  # perhaps of another shape now
                seed = form.session.resolve(tensor)
                form.session.write(seed, np.full(seed.shape, weight))

    def backward(self, low: int, high: int) -> None:
        """Run the layers from ``high`` down to ``low`` backward; gradients of parameters add to what is there."""
        if not self.both_ways:
            self._turn()
        self._run(self.now, True, low, high)

    def _run(self, form: Form, backward: bool, low: int, high: int) -> None:
        part, made = form.part(backward, low, high)
        shared, own = self.shared, self.own
        if shared.looked or own.looked:
            shared.send()
            own.send(made)
            part()
            shared.renew()
            own.renew()
        else:
            part()

    def loss(self, low: int, high: int) -> float:
        """What these layers contribute to the total loss."""
        total = 0.0
        for node in self.graph.nodes[low : high + 1]:
            for value, weight in zip(node.tops, node.loss_weights, strict=True):
                if weight:
                    total += weight * float(np.sum(self.value(self.recording.tensors[value]), dtype=np.float64))
        return total

    def value(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """What the last pass made of a tensor that is always kept; whether somebody looks is not asked."""
        if self.now.lean is not None:
            return self.now.lean.value(tensor)
        return self.now.session.read(self.now.session.resolve(tensor))

    # -------------------------------------------------------------------------------------------------------- changing
    def reseed(self, seed: int) -> None:
        """Begin again with another seed, where it decides about data and masks; parameters stay."""
        self.recipe = self.feeding.recipe = replace(self.recipe, seed=seed)
        self.feeding.close()
        self.rebind()

    def move(self, device: Device) -> None:
        """Go over to another device with all values; nets that share parameters with this one do so no longer."""
        self.recall()
        self.own.send()
        values = [(diff, name, read(self.device, self.now.array(tensor))) for diff, name, tensor in self._passing()]
        self.shared, self.own = self.shared.moved(device), self.own.moved(device)
        self.device, self._rooms = device, Rooms(device)
        self.rebind()
        for diff, name, value in values:  # they may lie in a form that was, or is now, the device's own
            write(device, self.now.array(self._blobs(diff)[name]), value)

    def _blobs(self, diff: bool) -> dict[str, Tensor]:
        """What the names of blobs stand for now."""
        return self.now.whole.diff if diff else self.now.whole.data

    def _passing(self) -> list[tuple[bool, str, Tensor]]:
        """What every pass makes anew, of all that people see: whether a gradient, the blob's name, its tensor."""
        found = [(diff, name, t) for diff in (False, True) for name, t in self._blobs(diff).items()]
        lean = self.now.lean is not None  # then not everything has memory
        there = [row for row in found if not lean or self.own.holds(self.now.owner(row[2]))]
        return [row for row in there if row[2].root.kind not in PERSISTENT]

    def close(self) -> None:
        """Stop the threads of data layers, finish the files that layers write."""
        self.feeding.close()
        for form in self._forms.values():
            for node in form.whole.recording.graph.nodes:
                node.layer.close()


__all__ = ["Engine", "Form", "Key"]

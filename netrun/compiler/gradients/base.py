"""What every rule is given: the registry, and the one place where contributions to a gradient add up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ...program import Origin, Recorder
from ...types import Shape, Tensor

Rule = Callable[..., None]
RULES: dict[str, Rule] = {}
"""The rule of every kernel that has one; what has none passes no gradient."""


def rule(function: Rule) -> Rule:
    """Register the rule of the kernel of the same name."""
    RULES[function.__name__.rstrip("_")] = function
    return function


class Gradients:
    """The gradient of every tensor that needs one. Fan-out, shared weights and several losses meet here only."""

    def __init__(self, recorder: Recorder, needed: set[Tensor]) -> None:
        self.k = recorder
        self._needed = needed
        self._found: dict[Tensor, Tensor] = {}
        self._pending: list[tuple[Tensor, Tensor]] = []
        self.repeated: Collection[tuple[Origin, Tensor]] = ()
        """Parameters, with the layer, that several calls of a layer use alike: the steps of a loop."""
        self._sums: dict[tuple[Tensor, Shape, Shape, Shape], list[Tensor]] = {}
        self._later: dict[tuple[Tensor, Shape, Shape, Shape], list[tuple[Tensor, Tensor]]] = {}

    def wants(self, x: Tensor | None) -> bool:
        """True if a gradient of x is asked for and may flow through this view of it."""
        return x is not None and x.root in self._needed and not x.is_stopped

    def has(self, y: Tensor) -> bool:
        """True if something contributed to the gradient of y."""
        return y.root in self._found

    def of(self, y: Tensor) -> Tensor:
        """The gradient of y, in y's shape."""
        return self._found[y.root].view(y.shape)

    def new(self, x: Tensor) -> Tensor:
        """Memory for one more contribution to the gradient of x, in x's shape."""
        root = x.root
        name = f"{root.name}'" if root not in self._found else f"{root.name}'+{self.k.origin.name}"
        made = self.k.new(name, root.spec, "grad" if root.kind == "learned" else "diff")
        self._pending.append((root, made))
        return made.view(x.shape)

    def seed(self, y: Tensor, gradient: Tensor) -> None:
        """One more contribution that stands in memory already."""
        self._pending.append((y.root, gradient))
        self.settle()

    def later(self, x: Tensor, a: Tensor, b: Tensor) -> bool:
        """Put the contribution a' b to the gradient of x off until the layer is done; False if it is to be made now.

        The steps of a loop contribute a product each to the gradient of a weight. One product of all their rows is the
        same sum, without T arrays of the weight's size.
        """
        if (self.k.origin.forward, x.root) not in self.repeated or len(a.shape) != 2 or len(b.shape) != 2:
            return False
        self._later.setdefault((x.root, x.shape, a.shape, b.shape), []).append((a, b))
        return True

    def later_sum(self, x: Tensor, dy: Tensor, axes: Shape) -> bool:
        """As ``later``, for the contribution "sum of dy over axes": what a bias gets in each step."""
        if (self.k.origin.forward, x.root) not in self.repeated or 0 not in axes:
            return False
        self._sums.setdefault((x.root, x.shape, dy.shape, axes), []).append(dy)
        return True

    def catch_up(self) -> None:
        """Make the sums and products that were put off."""
        for (root, shape, _, axes), parts in self._sums.items():
            whole = self._rows(parts[::-1])
            self.k.reduce([whole], self.new(root.view(shape)), expr="a", how="sum", axes=axes)
            self.settle()
        self._sums.clear()
        for (root, shape, *_), pairs in self._later.items():
            a, b = (self._rows([pair[i] for pair in reversed(pairs)]) for i in range(2))
            self.k.gemm(a, b, None, self.new(root.view(shape)), ta=True, tb=False)
            self.settle()
        self._later.clear()

    def _rows(self, parts: Sequence[Tensor]) -> Tensor:
        if len(parts) == 1:
            return parts[0]
        rows, *rest = parts[0].shape
        whole = self.k.temp("rows", (len(parts) * rows, *rest), parts[0].dtype)
        self.k.concat(list(parts), whole, axis=0)
        return whole

    def settle(self) -> None:
        """Add what a rule contributed to what was there: the only adder."""
        for root, made in self._pending:
            if root not in self._found:
                self._found[root] = made
                continue
            total = self.k.new(f"{root.name}'", root.spec, made.kind)
            self.k.pointwise([self._found[root], made], total, expr="a + b")
            self._found[root] = total
        self._pending.clear()

    def found(self) -> dict[Tensor, Tensor]:
        """Gradient by tensor, of everything reached."""
        return dict(self._found)


def zeros(k: Recorder, y: Tensor) -> Tensor:
    """The gradient of a tensor that nothing contributed to."""
    made: Tensor = k.temp(f"{y.name}'", y.shape, y.dtype)
    k.fill(made, value=0.0)
    return made

"""Forms of parameters that their updates keep true: 16 bits, channels last.

Convolutions and products read a parameter in another form than the float32 values that everybody sees. Instead of a
copy in every iteration the update writes that form as well, and reads a gradient in the order in which cuDNN wrote it.
The copies stay in the program: a session runs them when somebody else has changed a parameter
(``netrun.compiler.passes.renewed_calls``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from netrun.expression import Rule
from netrun.kernels import OPS
from netrun.program import Call, Program
from netrun.types import PERSISTENT, Shape, Tensor

from .turned import UPDATE_TURNED, fits


def renewed(program: Program) -> Program:
    """The program with updates that write the forms of parameters, and read gradients with channels last.

    A program whose layers may run one by one, with somebody looking at what is between them, stays as it is.
    """
    return program if program.visible else _Renewing(program).run()


class _Renewing:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.position = {call: i for i, call in enumerate(program.calls)}
        self.writers = {t.root: call for call in program.calls for t in call.writes()}
        self.count = Counter(t.root for call in program.calls for t in call.writes())
        self.readers: dict[Tensor, list[Call]] = {}
        self.changers: dict[Tensor, list[Call]] = {}
        for call in program.calls:
            for root in dict.fromkeys(t.root for t in call.reads()):
                self.readers.setdefault(root, []).append(call)
            if call.op.changes:
                for t in call.writes():
                    self.changers.setdefault(t.root, []).append(call)
        self.instead: dict[Tensor, Tensor] = {}
        self.change: dict[Call, Call] = {}
        self.gone: set[Call] = set()

    def run(self) -> Program:
        for call in self.program.calls:
            if call.op is OPS["update"]:
                self._update(call)
        if not self.change:
            return self.program

        def put(t: Tensor) -> Tensor:
            other = self.instead.get(t.root)
            return t if other is None else other.view(t.shape)

        calls = (self.change.get(call, call) for call in self.program.calls if call not in self.gone)
        return self.program.having(call.map(put) for call in calls)

    def _update(self, call: Call) -> None:
        (xs, vs), rule = call.args, call.attrs["rule"]
        assert isinstance(xs, tuple)
        assert isinstance(vs, tuple)
        learned = [v for v in vs if v.kind == "learned" and v.base is None and self.changers[v.root] == [call]]
        w = learned[0] if len(learned) == 1 and vs[0].shape == learned[0].shape else None
        flat, turned = ([], []) if w is None else self._forms(w, call)
        at = self._turned_gradient(xs, vs[0].shape, call)
        plain = all(v.dtype == "float32" and v.shape == vs[0].shape for v in vs)
        if turned or at >= 0:
            others = [x for i, x in enumerate(xs) if i != at]
            if not plain or not fits(vs[0].shape) or any(x.spec.count != 1 for x in others) or len(turned) > 1:
                turned, at = [], -1
        if not flat and not turned and at < 0:
            return
        names = [f"form{i}" for i in range(len(flat) + len(turned))]
        source = "" if w is None else rule.variables[vs.index(w)]
        body = (*rule.body, *((name, source) for name in names))
        grown = Rule(rule.inputs, (*rule.variables, *names), body)
        variables = (*vs, *(self._one(group).view(vs[0].shape) for group in flat))
        if not turned and at < 0:
            self.change[call] = replace(call, args=(xs, variables), attrs={**call.attrs, "rule": grown})
            return
        given = tuple(self._untransposed(x) if i == at else x for i, x in enumerate(xs))
        args = (given, variables, tuple(self._one(group) for group in turned))
        self.change[call] = replace(call, op=UPDATE_TURNED, args=args, attrs={"rule": grown, "turned": at})

    # ------------------------------------------------------------------------------------------------------- forms
    def _forms(self, w: Tensor, update: Call) -> tuple[list[list[list[Call]]], list[list[list[Call]]]]:
        """The forms of a parameter in its own order and with channels last: for each the calls of every copy."""
        found: dict[tuple[bool, str], list[list[Call]]] = {}
        for call in self.readers.get(w, []):
            name = call.op.name
            chain = [call]
            if name == "transpose" and call.attrs["axes"] == _forth(len(w.shape)) and call.reads()[0].base is None:
                after = self.readers.get(call.writes()[0].root, [])
                if len(after) == 1 and after[0].op.name == "copy" and self._passing(call.writes()[0]):
                    chain.append(after[0])
            elif name != "copy" or call.writes()[0].dtype == w.dtype:
                continue
            made = chain[-1].writes()[0]
            if self._passing(made) and made.dtype != "float64" and self._before(made, update):
                found.setdefault((name == "transpose", made.dtype), []).append(chain)
        return [c for (last, _), c in found.items() if not last], [c for (last, _), c in found.items() if last]

    def _passing(self, t: Tensor) -> bool:
        own = t.base is None and t.kind not in PERSISTENT and t not in self.program.keeps
        return own and self.count[t] == 1

    def _before(self, made: Tensor, update: Call) -> bool:
        """Whether all who touch a tensor come before the update."""
        calls = [self.writers[made], *self.readers.get(made, [])]
        return all(self.position[call] < self.position[update] for call in calls)

    def _one(self, chains: list[list[Call]]) -> Tensor:
        """The tensor of a form; what copies of it there are besides go."""
        made = chains[0][-1].writes()[0]
        for chain in chains[1:]:
            self.gone.update(chain)
            self.instead[chain[-1].writes()[0]] = made
        return made

    # ---------------------------------------------------------------------------------------------------- gradients
    def _turned_gradient(self, xs: tuple[Tensor, ...], shape: Shape, update: Call) -> int:
        """Which input is a gradient that was brought from channels last; -1 where none is."""
        for i, x in enumerate(xs):
            made = self.writers.get(x.root)
            if made is None or made.op.name != "transpose" or x.shape != shape or x.base is not None:
                continue
            if made.attrs["axes"] != _back(len(shape)) or not self._passing(x) or made.reads()[0].base is not None:
                continue
            if all(reader is update or _whole_sum(reader) for reader in self.readers[x.root]):
                return i
        return -1

    def _untransposed(self, x: Tensor) -> Tensor:
        made = self.writers[x.root]
        self.gone.add(made)
        source = made.reads()[0]
        self.instead[x.root] = source
        return source


def _whole_sum(call: Call) -> bool:
    """Whether it adds up all elements of one tensor, in whatever order they lie."""
    given = call.reads()
    return call.op.name == "reduce" and len(given) == 1 and call.writes()[0].spec.count == 1


def _forth(rank: int) -> Shape:
    return (0, *range(2, rank), 1)


def _back(rank: int) -> Shape:
    return (0, rank - 1, *range(1, rank - 1))


__all__ = ["renewed"]

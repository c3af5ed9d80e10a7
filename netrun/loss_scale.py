"""Training in float16: the loss is multiplied by a large number, so that small gradients do not become zero.

The factor is dynamic, as in Micikevicius et al., "Mixed precision training", 2018: where a gradient is not finite, the
iteration changes no parameter and the factor is halved; after ``PATIENCE`` iterations without that it is doubled. All
of it happens on the device, in the program of the iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .compiler.record import Recording
from .expression import Rule, letters, rule
from .program import LOSS, SOLVER, Recorder
from .types import Spec, Tensor

FIRST = 65536.0
"""What the loss is multiplied by at first."""

UNWATCHED = 1024.0
"""What it is multiplied by in a net that no solver trains: nobody halves it there."""

LARGEST = 2.0**24
PATIENCE = 2000
"""Iterations without an overflow after which the factor is doubled."""

_ADAPT = rule(
    ["finite"],
    ["excess", "since"],
    f"factor = excess + {FIRST!r};"
    f"grow = since + 1 >= {PATIENCE};"
    f"larger = where(grow, min(2 * factor, {LARGEST!r}), factor);"
    f"excess = where(finite, larger, max(factor / 2, 1)) - {FIRST!r};"
    "since = where(finite * (1 - grow), since + 1, 0)",
)


@dataclass
class LossScale:
    """The factor in one training program.

    excess  the factor minus ``FIRST``: states start as zeros, and a snapshot keeps them
    since   iterations since it changed
    factor  the factor, where the program reads it
    finite  1 if every gradient of the iteration is finite, else 0
    """

    excess: Tensor
    since: Tensor
    factor: Tensor
    finite: Tensor
    divided: bool = False
    """Whether gradients have been divided by the factor before the update sees them."""

    @classmethod
    def outside(cls, recorder: Recorder) -> LossScale:
        """The factor of a net that divides by it, and is told it before every pass."""
        excess, since = states()
        return cls(excess, since, excess, recorder.new("(solver).finite", Spec(()), "buffer"), divided=True)

    @classmethod
    def of(cls, recording: Recording) -> LossScale:
        """The factor of a recorded net, whose states it joins; its value is recorded as the next call."""
        recorder = recording.recorder
        recorder.origin = LOSS
        excess, since = states()
        recording.states.update({t.name: t for t in (excess, since)})
        factor, finite = (recorder.new(f"(solver).{name}", Spec(()), "buffer") for name in ("factor", "finite"))
        recorder.pointwise([excess], factor, expr=f"a + {FIRST!r}")
        return cls(excess, since, factor, finite)

    def seeds(self, recorder: Recorder, losses: Sequence[tuple[Tensor, float]]) -> list[tuple[Tensor, Tensor]]:
        """The gradients that backward starts with: loss weights times the factor."""
        recorder.origin = LOSS.backward
        found = []
        for tensor, weight in losses:
            made = recorder.new(f"{tensor.name}'", tensor.spec, "diff")
            recorder.pointwise([self.factor], made, expr=f"a * {weight!r}")
            found.append((tensor, made))
        return found

    def begin(self, recorder: Recorder) -> None:
        """In a program of its own (iter_size above 1, or outside) the factor has to be found again."""
        self.factor = recorder.new("(solver).factor", Spec(()), "buffer")
        if self.divided:
            recorder.fill(self.factor, value=1.0)
        else:
            recorder.pointwise([self.excess], self.factor, expr=f"a + {FIRST!r}")

    def look(self, recorder: Recorder, gradients: Sequence[Tensor]) -> None:
        """Record whether all gradients are finite."""
        if not gradients:
            recorder.fill(self.finite, value=1.0)
            return
        worst = []
        for gradient in gradients:
            made = recorder.temp("worst", ())
            axes = tuple(range(len(gradient.shape)))
            recorder.reduce([gradient], made, expr="abs(a)", how="max", axes=axes)
            worst.append(made)
        tests = [f"({letter} < 3e38)" for letter in letters(len(worst))]  # false for what is no number, too
        recorder.pointwise(worst, self.finite, expr=" * ".join(tests))

    def guarded(self, body: Rule) -> Rule:
        """The rule with ``finite`` as its last input: where that is 0 every variable stays as it was."""
        before = [(f"{name}_before", name) for name in body.variables]
        after = [(name, f"where(finite, {name}, {name}_before)") for name in body.variables]
        text = "; ".join(f"{name} = {value}" for name, value in (*before, *body.body, *after))
        return rule([*body.inputs, "finite"], list(body.variables), text)

    def adapt(self, recorder: Recorder) -> None:
        """Record what the iteration does to the factor."""
        recorder.origin = SOLVER
        recorder.update([self.finite], [self.excess, self.since], rule=_ADAPT)


def states() -> tuple[Tensor, Tensor]:
    """``excess`` and ``since``."""
    excess, since = (Tensor(f"(solver).{name}", Spec(()), "state") for name in ("loss scale", "scale since"))
    return excess, since


__all__ = ["FIRST", "PATIENCE", "UNWATCHED", "LossScale"]

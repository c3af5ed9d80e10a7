"""The solver classes of pycaffe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..blob import TypeMismatchError
from ..config import schema
from ..config.upgrade import read_solver
from ..net_solver import NetSolver
from ..solver_nets import SolverNet
from . import mode
from .errors import existing, their_own, whole
from .net import Net


class Solver(NetSolver):
    """What the six solvers have in common; ``get_solver`` makes the one that the file asks for.

    ``net``, ``test_nets``, ``iter``, ``lr``, ``param``, ``step``, ``solve``, ``restore``, ``snapshot``,
    ``apply_update``, ``share_weights``, ``add_callback``. It runs on the device that this thread chose, whatever
    solver_mode the file has, as in Caffe.
    """

    kind = ""

    def __init__(self, param_file: Any) -> None:
        if isinstance(param_file, schema.SolverParameter):
            message, source = schema.SolverParameter(), None
            message.CopyFrom(param_file)
        else:
            message, source = read_solver(existing(param_file))
        if self.kind:
            message.type = self.kind
        if message.random_seed < 0 and mode.is_seeded():
            message.random_seed = mode.next_seed()
        folder = source.folder if source else ""
        with their_own():
            super().__init__(
                message, device=mode.default_device(), log=mode.default_log(), source=source, folder=folder
            )

    def _new_net(self, found: SolverNet, **options: Any) -> Net:
        return Net(found.message, found.state.phase, level=found.state.level, stages=found.state.stages, **options)

    @property
    def iter(self) -> int:
        """Iterations done."""
        return self.iteration

    @property
    def param(self) -> schema.SolverParameter:
        """The solver's message."""
        return self.message

    def solve(self, resume_file: str | None = None) -> None:
        """Train to max_iter, from a solver state if one is given."""
        with their_own():
            super().solve(existing(resume_file) if resume_file else None)

    def step(self, count: int) -> None:
        """Train ``count`` iterations."""
        wanted = whole(count, "the number of iterations")
        if wanted < 0:
            raise TypeMismatchError(f"step wants a number of iterations, got {count}")
        with their_own():
            super().step(wanted)

    def restore(self, path: Any) -> None:
        """Go on from a solver state."""
        super().restore(existing(path))

    def share_weights(self, net: Net) -> None:
        """Let ``net`` use the parameters of the training net."""
        net.share_with(self.net)

    def add_callback(self, on_start: Callable[[], Any], on_gradients_ready: Callable[[], Any] | None = None) -> None:
        """Call the first at the start of every iteration, the second when its gradients are there."""
        for given in (on_start, on_gradients_ready):
            if given is not None and not callable(given):
                raise TypeMismatchError(f"add_callback wants functions, got {type(given).__name__}")
        self.before_step.append(on_start)
        if on_gradients_ready is not None:
            self.after_backward.append(on_gradients_ready)


class SGDSolver(Solver):
    """Stochastic gradient descent with momentum."""

    kind = "SGD"


class NesterovSolver(Solver):
    """Nesterov's accelerated gradient."""

    kind = "Nesterov"


class AdaGradSolver(Solver):
    """AdaGrad."""

    kind = "AdaGrad"


class RMSPropSolver(Solver):
    """RMSProp."""

    kind = "RMSProp"


class AdaDeltaSolver(Solver):
    """AdaDelta."""

    kind = "AdaDelta"


class AdamSolver(Solver):
    """Adam."""

    kind = "Adam"


KINDS: dict[str, type[Solver]] = {
    cls.kind: cls for cls in (SGDSolver, NesterovSolver, AdaGradSolver, RMSPropSolver, AdaDeltaSolver, AdamSolver)
}


def get_solver(param_file: Any) -> Solver:
    """The solver of the type that a solver's prototxt asks for.

    Raises:
        MissingFileError: there is no such file. ConfigError: it is wrong.
    """
    if isinstance(param_file, schema.SolverParameter):
        message = param_file
    else:
        message, _ = read_solver(existing(param_file))
    return KINDS.get(message.type, Solver)(param_file)


__all__ = [
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "NesterovSolver",
    "RMSPropSolver",
    "SGDSolver",
    "Solver",
    "get_solver",
]

"""The solvers' update rules, each as assignments of one ``update`` call per parameter.

Names a body may use: ``g`` the gradient (clipped, averaged over iter_size, with weight decay added), ``w`` the
parameter, ``rate`` = learning rate * lr_mult, and the method's history. Formulas and the order of events are Caffe's;
the papers are named beside each. To add a solver, add a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .config import schema
from .errors import ConfigError, Where, nearest
from .expression import Rule, rule


@dataclass(frozen=True)
class Method:
    """One solver type.

    history    names of what it carries for each parameter, in the order of a solver state
    body       assignments; {momentum}, {momentum2}, {delta}, {rms_decay} are the solver's fields
    correction True if the body uses ``correction``, Adam's sqrt(1 - momentum2^t) / (1 - momentum^t)
    no_momentum  True if Caffe refuses a momentum for this type
    """

    history: tuple[str, ...]
    body: str
    correction: bool = False
    no_momentum: bool = False


METHODS: Mapping[str, Method] = {
    # Stochastic gradient descent with momentum.
    "SGD": Method(("h",), "h = {momentum} * h + rate * g; w = w - h"),
    # Nesterov 1983, in the form of Bengio et al., "Advances in optimizing recurrent networks", 2013.
    "Nesterov": Method(
        ("h",), "old = h; h = {momentum} * h + rate * g; w = w - ((1 + {momentum}) * h - {momentum} * old)"
    ),
    # Duchi, Hazan, Singer, "Adaptive subgradient methods", 2011.
    "AdaGrad": Method(("h",), "h = h + g * g; w = w - rate * g / (sqrt(h) + {delta})", no_momentum=True),
    # Tieleman, Hinton, lecture 6.5, 2012.
    "RMSProp": Method(
        ("h",),
        "h = {rms_decay} * h + (1 - {rms_decay}) * g * g; w = w - rate * g / (sqrt(h) + {delta})",
        no_momentum=True,
    ),
    # Zeiler, "ADADELTA", 2012; the momentum field is its decay.
    "AdaDelta": Method(
        ("h", "u"),
        "h = {momentum} * h + (1 - {momentum}) * g * g;"
        "step = g * sqrt((u + {delta}) / (h + {delta}));"
        "u = {momentum} * u + (1 - {momentum}) * step * step;"
        "w = w - rate * step",
    ),
    # Kingma, Ba, "Adam", 2015.
    "Adam": Method(
        ("m", "v"),
        "m = {momentum} * m + (1 - {momentum}) * g;"
        "v = {momentum2} * v + (1 - {momentum2}) * g * g;"
        "w = w - rate * correction * m / (sqrt(v) + {delta})",
        correction=True,
    ),
}


def method_of(solver: schema.SolverParameter, where: Where | None = None) -> Method:
    """The method a solver asks for.

    Raises:
        ConfigError: an unknown type or regularization, or a momentum where the method has none.
    """
    if solver.type not in METHODS:
        raise ConfigError(f'there is no solver type "{solver.type}"{nearest(solver.type, METHODS)}', where)
    if solver.regularization_type not in ("L1", "L2"):
        known = nearest(solver.regularization_type, ["L1", "L2"])
        raise ConfigError(f'regularization_type is "L1" or "L2", got "{solver.regularization_type}"{known}', where)
    method = METHODS[solver.type]
    if method.no_momentum and solver.momentum != 0:
        raise ConfigError(f"{solver.type} has no momentum, the solver says {solver.momentum:g}", where)
    return method


def update_rule(solver: schema.SolverParameter, lr_mult: float, decay_mult: float, has_gradient: bool = True) -> Rule:
    """The assignments for a parameter with these multipliers.

    Inputs, in order: ``raw`` the summed gradient, ``lr``, ``scale`` (clipping / iter_size) and, where the method has
    it, ``correction``. Variables: ``w`` and the history. Without a gradient ``raw`` and ``scale`` are left out.
    """
    method = METHODS[solver.type]
    decay = solver.weight_decay * decay_mult
    lines = ["g = raw * scale"] if has_gradient else ["g = 0"]
    if decay:
        lines.append(f"g = g + {decay!r} * {'w' if solver.regularization_type == 'L2' else 'sign(w)'}")
    lines.append(f"rate = lr * {lr_mult!r}")
    values = {name: repr(getattr(solver, name)) for name in ("momentum", "momentum2", "delta", "rms_decay")}
    lines.append(method.body.format(**values))
    inputs = (["raw", "lr", "scale"] if has_gradient else ["lr"]) + (["correction"] if method.correction else [])
    return rule(inputs, ["w", *method.history], ";".join(lines))


def moves_without_gradient(solver: schema.SolverParameter, decay_mult: float) -> bool:
    """True if the history of a parameter at learning rate 0 changes: weight decay alone feeds it, as in Caffe.

    Not so for SGD and Nesterov, whose history has the rate in it.
    """
    return solver.weight_decay * decay_mult != 0 and solver.type not in ("SGD", "Nesterov")


def correction(solver: schema.SolverParameter, iteration: int) -> float:
    """Adam's bias correction in iteration ``iteration`` (from 0)."""
    t = iteration + 1
    return float((1 - solver.momentum2**t) ** 0.5 / (1 - solver.momentum**t))

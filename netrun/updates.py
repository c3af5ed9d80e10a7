"""The solvers' update rules, each as assignments of one ``update`` call per parameter.

Names a body may use: ``g`` the gradient (clipped, averaged over iter_size, with weight decay added unless the method
decouples it), ``w`` the parameter, ``rate`` = learning rate * lr_mult, and the method's history. Formulas and the order
of events of the first six are Caffe's; the papers are named beside each. To add a solver, add a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .config import schema
from .config.source import Source
from .errors import ConfigError, Problem, UsageError, Where, nearest
from .expression import Apply, Rule, Var, parse, rule, text_of


@dataclass(frozen=True)
class Method:
    """One solver type.

    history    names of what it carries for each parameter, in the order of a solver state
    body       assignments; {momentum}, {momentum2}, {delta}, {rms_decay} are the solver's fields
    correction True if the body uses ``correction``, Adam's sqrt(1 - momentum2^t) / (1 - momentum^t)
    decoupled  True if weight decay is no part of ``g``: the body uses ``pull`` = decay * w (L1: decay * sign(w))
    trust      True if the body uses ``trust``, the ratio of the norms of parameter and gradient (see ``trust_ratio``)
    no_momentum  True if Caffe refuses a momentum for this type
    rate_inside  True if the history holds steps, so that it stays as it is at rate 0
    """

    history: tuple[str, ...]
    body: str
    correction: bool = False
    decoupled: bool = False
    trust: bool = False
    no_momentum: bool = False
    rate_inside: bool = False


_MEANS = "m = {momentum} * m + (1 - {momentum}) * g;v = {momentum2} * v + (1 - {momentum2}) * g * g;"

METHODS: Mapping[str, Method] = {
    # Stochastic gradient descent with momentum.
    "SGD": Method(("h",), "h = {momentum} * h + rate * g; w = w - h", rate_inside=True),
    # Nesterov 1983, in the form of Bengio et al., "Advances in optimizing recurrent networks", 2013.
    "Nesterov": Method(
        ("h",),
        "old = h; h = {momentum} * h + rate * g; w = w - ((1 + {momentum}) * h - {momentum} * old)",
        rate_inside=True,
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
    # Kingma, Ba, "Adam", 2015. delta stands beside the uncorrected root, as in Caffe.
    "Adam": Method(("m", "v"), _MEANS + "w = w - rate * correction * m / (sqrt(v) + {delta})", correction=True),
    # Loshchilov, Hutter, "Decoupled weight decay regularization", 2019; the pull goes with the rate.
    "AdamW": Method(
        ("m", "v"),
        _MEANS + "w = w - rate * (correction * m / (sqrt(v) + {delta}) + pull)",
        correction=True,
        decoupled=True,
    ),
    # You, Gitman, Ginsburg, "Large batch training of convolutional networks", 2017.
    "LARS": Method(("h",), "h = {momentum} * h + rate * trust * g; w = w - h", trust=True, rate_inside=True),
    # Chen et al., "Symbolic discovery of optimization algorithms", 2023; momentum is its beta 1, momentum2 its beta 2.
    "Lion": Method(
        ("m",),
        "step = sign({momentum} * m + (1 - {momentum}) * g);"
        "w = w - rate * (step + pull);"
        "m = {momentum2} * m + (1 - {momentum2}) * g",
        decoupled=True,
    ),
}


def method_of(solver: schema.SolverParameter, source: Source | None = None) -> Method:
    """The method a solver asks for; ``source`` knows where its fields stand.

    Raises:
        ConfigError: with everything that is wrong: an unknown type or regularization, a momentum where the method has
            none, a decay out of its range.
    """

    def at(field: str) -> Where | None:
        return source.where(field) if source else None

    kind, form = solver.type, solver.regularization_type
    problems = []
    if form not in ("L1", "L2"):
        what = f'regularization_type is "L1" or "L2", got "{form}"{nearest(form, ["L1", "L2"])}'
        problems.append(Problem(what, at("regularization_type")))
    if kind not in METHODS:
        what = f'there is no solver type "{kind}"{nearest(kind, METHODS)}'
        problems.append(Problem(what, at("type"), (f"known: {', '.join(METHODS)}",)))
        raise ConfigError.of(problems)
    method = METHODS[kind]
    if method.no_momentum and solver.momentum != 0:
        problems.append(Problem(f"{kind} has no momentum, the solver says {solver.momentum:g}", at("momentum")))
    for name in ("momentum", "momentum2", "rms_decay"):
        value = getattr(solver, name)
        if f"{{{name}}}" in method.body and not 0 <= value < 1:
            what = f"{name} has to be from 0 to 1 (1 excluded), the solver says {value:g}"
            problems.append(Problem(what, at(name)))
    if method.trust and not solver.lars_eta > 0:
        problems.append(Problem(f"lars_eta has to be above 0, the solver says {solver.lars_eta:g}", at("lars_eta")))
    if problems:
        raise ConfigError.of(problems)
    return method


def update_rule(solver: schema.SolverParameter, lr_mult: float, decay_mult: float, has_gradient: bool = True) -> Rule:
    """The assignments for a parameter with these multipliers.

    Inputs, in order: ``raw`` the summed gradient, ``lr``, ``scale`` (clipping / iter_size) and, where the method has
    it, ``correction``, or where ``is_trusted`` says so ``trust``. Variables: ``w`` and the history. Without a gradient
    ``raw``, ``scale`` and ``trust`` are left out.
    """
    method = METHODS[solver.type]
    decay = solver.weight_decay * decay_mult
    pull = f"{decay!r} * {'w' if solver.regularization_type == 'L2' else 'sign(w)'}" if decay else "0"
    lines = ["g = raw * scale"] if has_gradient else ["g = 0"]
    if method.decoupled:
        lines.append(f"pull = {pull}")
    elif decay:
        lines.append(f"g = g + {pull}")
    lines.append(f"rate = lr * {lr_mult!r}")
    inputs = (["raw", "lr", "scale"] if has_gradient else ["lr"]) + (["correction"] if method.correction else [])
    if method.trust:
        if has_gradient and is_trusted(solver, decay_mult):
            inputs.append("trust")
        else:
            lines.append("trust = 1")
    values = {name: repr(getattr(solver, name)) for name in ("momentum", "momentum2", "delta", "rms_decay")}
    lines.append(method.body.format(**values))
    return rule(inputs, ["w", *method.history], ";".join(lines))


def told(body: Rule) -> list[str]:
    """The assignments of an update rule, in which ``moved`` is what they subtract from ``w``.

    Raises:
        UsageError: the rule does something else with ``w``.
    """
    lines = []
    for name, text in body.body:
        tree = parse(text)
        if name == "w" and isinstance(tree, Apply) and tree.op == "sub" and tree.args[0] == Var("w"):
            lines += [f"moved = {text_of(tree.args[1])}", "w = w - moved"]
        else:
            lines.append(f"{name} = {text}")
    if "w = w - moved" not in lines:
        raise UsageError(f"the solver's rule does not say what it subtracts: {body}")
    return lines


def moves_without_gradient(solver: schema.SolverParameter, lr_mult: float, decay_mult: float) -> bool:
    """True if a parameter that no gradient reaches, or its history, changes: weight decay alone feeds it, as in Caffe.

    At rate 0 that is so only where the history does not have the rate in it.
    """
    method = METHODS[solver.type]
    if solver.weight_decay * decay_mult == 0:
        return False
    return lr_mult != 0 or not (method.rate_inside or method.decoupled)


def correction(solver: schema.SolverParameter, iteration: int) -> float:
    """Adam's bias correction in iteration ``iteration`` (from 0); 1 where the method or the solver does without."""
    if not METHODS[solver.type].correction or not solver.bias_correction:
        return 1.0
    t = iteration + 1
    return float((1 - solver.momentum2**t) ** 0.5 / (1 - solver.momentum**t))


def is_trusted(solver: schema.SolverParameter, decay_mult: float) -> bool:
    """True if steps of a parameter are scaled by its trust ratio.

    What is not decayed (by convention biases and the factors of normalisation layers) keeps the plain rate: its length
    says nothing about a good step.
    """
    return METHODS[solver.type].trust and decay_mult != 0


def trust_ratio(solver: schema.SolverParameter, decay_mult: float) -> str:
    """LARS's eta * |w| / (|g| + decay * |w|), 1 where either length is 0.

    An expression over a = the sum of squares of the summed gradient, b = that of the parameter, c = ``scale``.
    """
    decay = solver.weight_decay * decay_mult
    length = f"(sqrt(a) * c + {decay!r} * sqrt(b))"
    usable = "(a > 0) * (b > 0)"
    return f"where({usable}, {solver.lars_eta!r} * sqrt(b) / where({usable}, {length}, 1), 1)"

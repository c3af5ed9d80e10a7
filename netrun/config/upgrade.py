"""Brings nets and solvers of every age to the current form; everything deprecated lives here, in v0.py and in v1.py.

The positions move along with the fields: a complaint about an upgraded layer names the line it was written in.
"""

from __future__ import annotations

import os

from ..errors import ConfigError
from . import schema, text, v0, v1
from .adapt import adapt
from .source import Mark, Source

_SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}
BODIES = {"recurrent_net_param": ("body",), "while_param": ("body",), "if_param": ("then", "otherwise")}
"""Blocks of a layer with layers inside, and the fields that hold them."""
_CURRENT_DATA = {v1.TYPES[old]: block for old, block in v1.TRANSFORMED.items()}


def read_net(path: str | os.PathLike[str], lenient: bool = False) -> tuple[schema.NetParameter, Source]:
    """The net in a file, in the current form, and where its fields stand (``source.notices``: what was upgraded).

    Args:
        path: the file.
        lenient: go on without what other people's Caffe has and netrun lacks, where the net still stands.

    Raises:
        UsageError: the file cannot be read.
        ConfigError: it is wrong, or of two forms at once.
    """
    net, source = text.read(path, schema.NetParameter, lenient)
    upgrade_net(net, source, lenient)
    return net, source


def parse_net(content: str, file: str = "<string>", lenient: bool = False) -> tuple[schema.NetParameter, Source]:
    """The net in a text; as ``read_net``."""
    net, source = text.parse(content, schema.NetParameter, file, lenient)
    upgrade_net(net, source, lenient)
    return net, source


def read_solver(path: str | os.PathLike[str], lenient: bool = False) -> tuple[schema.SolverParameter, Source]:
    """The solver in a file, in the current form; as ``read_net`` (lenient: its field ``lenient`` is set)."""
    solver, source = text.read(path, schema.SolverParameter, lenient)
    if lenient:
        solver.lenient = True
    upgrade_solver(solver, source)
    return solver, source


def parse_solver(content: str, file: str = "<string>", lenient: bool = False) -> tuple[schema.SolverParameter, Source]:
    """The solver in a text; as ``read_solver``."""
    solver, source = text.parse(content, schema.SolverParameter, file, lenient)
    if lenient:
        solver.lenient = True
    upgrade_solver(solver, source)
    return solver, source


def upgrade_net(net: schema.NetParameter, source: Source | None = None, lenient: bool = False) -> list[str]:
    """Bring a net to the current form, in place.

    Args:
        net: the net; afterwards it has no ``layers`` and no ``input`` any more.
        source: its positions, changed along with it.
        lenient: leave out layers of other people's types that netrun lacks, where the net still stands.

    Returns:
        One sentence for each thing that was changed, or that is no longer read (also in ``source.notices``).

    Raises:
        ConfigError: the net mixes ``layer`` with ``layers``, has an unknown V0 type, or input shapes that do not
            match its inputs.
    """
    source = Source("<net>") if source is None else source
    notices: list[str] = []
    if net.layers and net.layer:
        here = f" (line {source.where('layer', 0).line})" if source.where("layer", 0).line else ""
        raise ConfigError(
            f"the net mixes old layers blocks with current layer blocks{here}; write layer in all of it",
            source.where("layers", 0),
        )
    if net.layers:
        _upgrade_layers(net, source, notices)
    if net.input:
        _upgrade_input(net, source, notices)
    for index, layer in enumerate(net.layer):
        notices += _upgrade_bodies(layer, source.view("layer", index), lenient)
    notices += adapt(net, source, lenient)
    _freeze_batch_norm(net, source, notices)
    _name_dead_fields(net, source, notices)
    source.notices.extend(notices)
    return notices


def upgrade_solver(solver: schema.SolverParameter, source: Source | None = None) -> list[str]:
    """Bring a solver to the current form, in place, with the nets written inside it; as ``upgrade_net``.

    Raises:
        ConfigError: it has both ``solver_type`` and ``type``, or a net inside it is wrong.
    """
    source = Source("<solver>") if source is None else source
    notices: list[str] = []
    if solver.HasField("solver_type"):
        if solver.HasField("type"):
            raise ConfigError(
                "solver_type is the old form of type; the solver has both, leave solver_type away",
                source.where("solver_type"),
            )
        old = schema.SolverParameter.SolverType.Name(solver.solver_type)
        solver.type = _SOLVER_TYPES[old]
        solver.ClearField("solver_type")
        source.root.put("type", source.root.take("solver_type"))
        notices.append(f'{source.where("type")}: solver_type: {old} is read as type: "{solver.type}"')
    for name in ("net_param", "train_net_param"):
        if solver.HasField(name):
            notices += upgrade_net(getattr(solver, name), source.view(name), solver.lenient)
    for index, net in enumerate(solver.test_net_param):
        notices += upgrade_net(net, source.view("test_net_param", index), solver.lenient)
    source.notices.extend(notices)
    return notices


def _upgrade_bodies(layer: schema.LayerParameter, source: Source, lenient: bool) -> list[str]:
    """As ``upgrade_net``, for the layers inside a layer."""
    notices: list[str] = []
    for block, bodies in BODIES.items():
        for name in bodies:
            if layer.HasField(block) and getattr(layer, block).HasField(name):
                body = getattr(getattr(layer, block), name)
                net = schema.NetParameter(layer=body.layer)
                notices += upgrade_net(net, source.view(block, name), lenient)
                del body.layer[:]
                body.layer.MergeFrom(net.layer)
    return notices


def _upgrade_layers(net: schema.NetParameter, source: Source, notices: list[str]) -> None:
    first = source.where("layers", 0)
    if v0.is_v0(net):
        v0.to_v1(net, source, notices.append)
        notices.append(f"{first}: the net is in the oldest form (V0, layers {{ layer {{ }} }}) and was upgraded")
    else:
        notices.append(f"{first}: the net is in an old form (V1, layers {{ }}) and was upgraded")
    moved = [v1.move_transform(layer, source.root.child("layers", i)) for i, layer in enumerate(net.layers)]
    if any(moved):
        notices.append(f"{first}: scale, mean_file, crop_size and mirror of data layers moved into transform_param")
    v1.to_current(net, source)


def _upgrade_input(net: schema.NetParameter, source: Source, notices: list[str]) -> None:
    """One Input layer in front of the net in place of input, input_shape and input_dim."""
    names, first = list(net.input), source.where("input", 0)
    tops = source.root.take("input")
    shapes, dims = source.root.take("input_shape"), source.root.take("input_dim")
    layer = schema.LayerParameter(name="input", type="Input", top=names)
    if net.input_shape:
        if len(net.input_shape) != len(names):
            what = f"the net has {len(names)} input but {len(net.input_shape)} input_shape"
            raise ConfigError(what, source.at(shapes[-1].at) if shapes else first)
        layer.input_param.shape.MergeFrom(net.input_shape)
    elif net.input_dim:
        if len(net.input_dim) != 4 * len(names):
            what = (
                f"the net has {len(names)} input, so {4 * len(names)} input_dim are wanted "
                f"(number, channels, height, width of each), got {len(net.input_dim)}"
            )
            raise ConfigError(
                what, source.at(dims[-1].at) if dims else first, ("input_shape takes any number of axes",)
            )
        for i in range(len(names)):
            layer.input_param.shape.add().dim.extend(net.input_dim[4 * i : 4 * i + 4])
        shapes = [Mark(dims[i].at, {"dim": dims[i : i + 4]}) for i in range(0, len(dims), 4)]
    kept = bool(net.input_shape or net.input_dim)
    for name in ("input", "input_shape", "input_dim"):
        net.ClearField(name)
    if not kept:
        notices.append(f"{first}: input without input_shape or input_dim is not read")
        return
    everything = schema.NetParameter(layer=[layer, *net.layer])
    del net.layer[:]
    net.layer.MergeFrom(everything.layer)
    at = tops[0].at if tops else -1
    mark = Mark(at, {"top": tops, "input_param": [Mark(shapes[0].at if shapes else at, {"shape": shapes})]})
    source.root.fields["layer"] = [mark, *source.root.take("layer")]
    notices.append(f"{first}: input is read as a layer of type Input")


def _freeze_batch_norm(net: schema.NetParameter, source: Source, notices: list[str]) -> None:
    """Three param entries of a BatchNorm layer are of the time when its statistics had to be frozen by hand."""
    for index, layer in enumerate(net.layer):
        if layer.type != "BatchNorm" or len(layer.param) != 3:
            continue
        if any(param.lr_mult != 0 for param in layer.param):
            here = source.where("layer", index, "param", 0)
            notices.append(f"{here}: layer {layer.name}: the statistics of BatchNorm are not learned, lr_mult is 0")
        for param in layer.param:
            param.lr_mult = 0
            param.decay_mult = 0


def _name_dead_fields(net: schema.NetParameter, source: Source, notices: list[str]) -> None:
    """Current data layers never read the transform fields of their own block, in Caffe neither: say so."""
    for index, layer in enumerate(net.layer):
        block = _CURRENT_DATA.get(layer.type)
        if block is None or not layer.HasField(block):
            continue
        for name in v1.TRANSFORM_FIELDS:
            read = (layer.type, name) == ("WindowData", "scale")  # Caffe's WindowData has its scale from here alone
            if getattr(layer, block).HasField(name) and not read:
                here = source.where("layer", index, block, name)
                notices.append(
                    f"{here}: layer {layer.name}: {block}.{name} is not read in a layer block; "
                    f"write it into transform_param"
                )

"""The parameters of a net: filled at the start, loaded from a weight file with a report, given back for a snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from .compiler.record import Recording
from .compiler.sharing import Parameter
from .config import schema
from .config.weights import LayerWeights, read_weights
from .errors import Problem, UsageError, WeightsError, nearest, printable
from .fillers import fill
from .random import generator
from .session import Memory
from .types import Shape, Tensor

Pair = tuple[Tensor, "np.ndarray[Any, Any]"]


def initialise(recording: Recording, memory: Memory, seed: int) -> None:
    """Fill every parameter that has no value in ``memory`` yet; each from a random stream of its own."""
    for parameter, tensor in recording.parameters.items():
        if tensor.name in memory:
            continue
        if parameter.declared.value is not None:
            memory.write(tensor, parameter.declared.value)
            continue
        filler = parameter.declared.filler or schema.FillerParameter()
        rng = generator(seed, "filler", tensor.name)
        memory.write(tensor, fill(filler, tensor.shape, rng, tensor.dtype))


@dataclass(frozen=True)
class LoadOptions:
    """How the layers of a file and of a net meet.

    strict  refuse a file that lacks layers of the net, or has others
    rename  layer of the net -> layer of the file that it takes its weights from
    reinit  names or patterns of layers of the net that keep what their fillers gave them
    partial the file is one of several, so it need not hold every layer that is renamed
    reason  what makes it strict
    remedy  what else a person can do, as a line
    """

    strict: bool = False
    rename: Mapping[str, str] = field(default_factory=dict)
    reinit: tuple[str, ...] = ()
    partial: bool = False
    reason: str = "strict loading"
    remedy: str = ""

    @classmethod
    def of(cls, message: schema.LoadParameter) -> LoadOptions:
        """The options of a solver, or of flags.

        Raises:
            UsageError: a pair is not of the form old=new, or two old layers go to one new layer.
        """
        rename: dict[str, str] = {}
        for pair in message.rename:
            old, equals, new = (part.strip() for part in pair.partition("="))
            if not (old and equals and new):
                what = f'a layer is renamed by "old=new" (its name in the file, then in the net), got "{pair}"'
                raise UsageError(what)
            if rename.setdefault(new, old) != old:
                raise UsageError(f"layer {new} cannot take the weights of both {rename[new]} and {old}")
        return cls(message.strict, rename, tuple(message.reinit))

    def keeps(self, name: str) -> bool:
        """True if a layer of the net is not to be loaded."""
        return any(fnmatchcase(name, pattern) for pattern in self.reinit)


@dataclass
class Report:
    """What loading a weight file did, layer by layer."""

    file: str
    loaded: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    """Layers of the file that no layer of the net takes."""
    untouched: list[str] = field(default_factory=list)
    """Layers of the net that the file does not have: they keep what their fillers gave them."""
    reinitialised: list[str] = field(default_factory=list)
    """Layers that keep what their fillers gave them because ``reinit`` says so."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Layers of the net that were loaded from a layer of another name."""
    reshaped: list[str] = field(default_factory=list)
    """Blobs of old files, whose four axes became those of the net: ``ip.bias 1 1 1 10 -> 10``."""
    hints: list[str] = field(default_factory=list)
    """Layers of the net that the file may hold under another name, by their shapes."""

    def lines(self) -> list[str]:
        """The report as lines of a log."""
        lines = [f"{self.file}: {len(self.loaded)} layers loaded"]
        if self.renamed:
            lines.append(f"  renamed: {', '.join(f'{old} -> {new}' for new, old in self.renamed.items())}")
        if self.reshaped:
            lines.append(f"  reshaped from the old form with four axes: {', '.join(self.reshaped)}")
        if self.ignored:
            lines.append(f"  not in the net: {', '.join(self.ignored)}")
        if self.untouched:
            lines.append(f"  not in the file, left as their fillers made them: {', '.join(self.untouched)}")
        if self.reinitialised:
            lines.append(f"  left as their fillers made them, as reinit says: {', '.join(self.reinitialised)}")
        return [printable(line) for line in (*lines, *(f"  {hint}" for hint in self.hints))]


def load(
    recording: Recording,
    memory: Memory,
    path: str,
    options: LoadOptions | None = None,
    shapes: Mapping[Parameter, Shape] | None = None,
) -> Report:
    """Copy the weights of a file into the layers of the same name.

    ``shapes``: parameters that may stand in the file in other axes than those their layer has them in.

    Raises:
        WeightsError: a layer's number of blobs or a blob's shape differs, or ``strict`` and a layer is missing on
            either side; with every problem. Nothing is changed then.
        UsageError: there is no such file; the options name layers that are not there.
    """
    return assign(recording, memory, read_weights(path), str(path), options, shapes)


def assign(
    recording: Recording,
    memory: Memory,
    layers: Sequence[LayerWeights],
    file: str,
    options: LoadOptions | None = None,
    shapes: Mapping[Parameter, Shape] | None = None,
) -> Report:
    """As :func:`load`, from weights that were read already."""
    options = options or LoadOptions()
    report = Report(file)
    nodes = recording.graph.nodes
    _check_names(options, [n.name for n in nodes], [x.name for x in layers], file)
    given = {layer.name: layer for layer in layers}
    namesakes: dict[str, list[LayerWeights]] = {}  # the second layer of a name takes the second of the file, and so on
    for layer in layers:
        namesakes.setdefault(layer.name, []).append(layer)
    learning = {node.name for node in nodes if node.parameters}
    taken: set[str] = set()
    values: list[Pair] = []
    problems: list[Problem] = []
    for node in nodes:
        source = options.rename.get(node.name, node.name)
        stored = given.get(source)
        if source == node.name and len(namesakes.get(source, ())) > 1:
            stored = namesakes[source].pop(0)
        elif not node.parameters and node.name in learning:
            continue  # HDF5 files hold one layer of a name: the one with parameters
        if options.keeps(node.name):
            taken.add(source)
            if node.parameters:
                report.reinitialised.append(node.name)
            continue
        if stored is None:
            if node.parameters:
                report.untouched.append(node.name)
            continue
        taken.add(source)
        if not stored.blobs and all(p.owner for p in node.parameters):
            continue  # HDF5 files hold shared blobs with their owner only
        found = _match(recording, node.name, node.parameters, stored, report, shapes or {})
        if isinstance(found, Problem):
            problems.append(found)
            continue
        values += found
        report.loaded.append(node.name)
        if source != node.name:
            report.renamed[node.name] = source
    report.ignored = [x.name for x in layers if x.blobs and x.name not in taken]
    report.hints = _hints(recording, report, given)
    if options.strict:
        problems += _strict_problems(report, options)
    if problems:
        raise WeightsError.of(problems)
    for tensor, array in values:
        memory.write(tensor, array.reshape(tensor.shape))
    return report


def _check_names(options: LoadOptions, known: Sequence[str], stored: Sequence[str], file: str) -> None:
    """Refuse options that name what is not there: a misspelt name would silently leave a layer random."""
    for new, old in options.rename.items():
        if new not in known:
            raise UsageError(f'rename {old}={new}: the net has no layer "{new}"{nearest(new, known)}')
        if old not in stored and not options.partial:
            raise UsageError(f'rename {old}={new}: {file} has no layer "{old}"{nearest(old, stored)}')
    for pattern in options.reinit:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise UsageError(f'reinit: no layer of the net is called "{pattern}"{nearest(pattern, known)}')


def _match(
    recording: Recording, name: str, parameters: Sequence[Parameter], layer: LayerWeights, report: Report,
    shapes: Mapping[Parameter, Shape],
) -> list[Pair] | Problem:  # fmt: skip
    """The tensors of a layer and their values from the file, or why they do not fit."""
    called = f"layer {name}" + (f" ({layer.name} of the file)" if layer.name != name else "")
    hint = f"--reinit {name} leaves the layer as its fillers make it"
    blobs = layer.numbered
    absent = [p for i, p in enumerate(parameters) if i not in blobs]
    left_out = bool(layer.numbers) and all(p.owner for p in absent)  # shared blobs stand with their owner in HDF5
    if len(blobs) + len(absent) != len(parameters) or (absent and not left_out):
        what = f"{called} has {len(layer.blobs)} blobs in the file, {len(parameters)} in the net"
        return Problem(f"{report.file}: {what}", None, (hint,))
    pairs: list[Pair] = []
    for i, blob in blobs.items():
        parameter = parameters[i]
        wanted = shapes.get(parameter, parameter.spec.shape)
        if not _fits(blob.shape, wanted, layer.legacy):
            return Problem(
                f"{report.file}: {called}, blob {i} ({parameter.declared.name}): the shapes differ",
                None,
                (f"in the file  {_text(blob.shape)}", f"in the net   {_text(wanted)}", hint),
            )
        if tuple(blob.shape) != wanted:
            report.reshaped.append(f"{name}.{parameter.declared.name} {_text(blob.shape)} -> {_text(wanted)}")
        pairs.append((recording.parameters[parameter.owner or parameter], blob))
    return pairs


def _text(shape: Sequence[int]) -> str:
    return " ".join(map(str, shape)) or "one number"


def _fits(given: Sequence[int], wanted: Sequence[int], legacy: bool) -> bool:
    if tuple(given) == tuple(wanted):
        return True
    # Old files pad every shape in front with ones up to four axes.
    padded = (1,) * (len(given) - len(wanted)) + tuple(wanted)
    return legacy and tuple(given) == padded


def _hints(recording: Recording, report: Report, given: Mapping[str, LayerWeights]) -> list[str]:
    """For layers without weights: which layers of the file that nobody took have exactly their shapes."""
    shapes: dict[str, list[Shape]] = {
        n.name: [p.spec.shape for p in n.parameters] for n in recording.graph.nodes if n.name in report.untouched
    }
    hints = []
    for name, wanted in shapes.items():
        alike = [
            old
            for old in report.ignored
            if len(given[old].blobs) == len(wanted)
            and all(_fits(b.shape, w, given[old].legacy) for b, w in zip(given[old].blobs, wanted, strict=True))
        ]
        if len(alike) == 1:
            hints.append(f"{alike[0]} of the file has the shapes of {name}: --rename {alike[0]}={name} would load it")
        elif alike:
            several = f"{', '.join(alike[:-1])} and {alike[-1]}"
            hints.append(f"{several} of the file have the shapes of {name}: --rename OLD={name} would load one")
    return hints


def _strict_problems(report: Report, options: LoadOptions) -> list[Problem]:
    what = {
        "not in the net": report.ignored,
        "not in the file": report.untouched,
    }
    notes = tuple(filter(None, (*report.hints, options.remedy)))
    return [
        Problem(f"{report.file}: {options.reason}, but {why}: {', '.join(names)}", None, notes)
        for why, names in what.items()
        if names
    ]


def blobs_of(recording: Recording, memory: Memory) -> list[list[np.ndarray[Any, Any]]]:
    """Values of every layer's parameter blobs, node by node; sharers repeat their owner's."""
    cache: dict[Parameter, np.ndarray[Any, Any]] = {}

    def value(parameter: Parameter) -> np.ndarray[Any, Any]:
        owner = parameter.owner or parameter
        if owner not in cache:
            cache[owner] = memory.read(recording.parameters[owner])
        return cache[owner].reshape(parameter.spec.shape)

    return [[value(p) for p in node.parameters] for node in recording.graph.nodes]

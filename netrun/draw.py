"""A picture of a net: layers as boxes, blobs as rounded ones, laid out in ranks along the flow of data.

``draw(net, "svg")`` and ``draw(net, "png")`` need nothing else. Where graphviz and the package pydot are there, they
draw the same graph.
"""

from __future__ import annotations

import html
import importlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .compiler.rules import State, is_included
from .config import schema
from .draw_layout import Placed, place
from .draw_png import Canvas
from .errors import UsageError, printable

RANKDIRS = ("LR", "RL", "TB", "BT")
FORMATS = ("svg", "png")

FILL: Mapping[str, str] = {
    "blob": "#e0e0e0", "neuron": "#90ee90", "Convolution": "#ff5050", "Deconvolution": "#ff5050",
    "Pooling": "#ff9900", "InnerProduct": "#cc33ff", "layer": "#6495ed",
}  # fmt: skip
"""Colour by layer type; a neuron is a layer that works in place."""


@dataclass
class Box:
    """One thing in the picture."""

    key: str
    kind: str  # "layer", "neuron" or "blob"
    lines: list[str]
    fill: str


@dataclass
class Picture:
    """Boxes and the arrows between them: (from, to, label)."""

    name: str
    boxes: dict[str, Box] = field(default_factory=dict)
    arrows: list[tuple[str, str, str]] = field(default_factory=list)


def picture(
    net: schema.NetParameter,
    phase: int | None = None,
    edge_labels: bool = True,
    details: bool = True,
    rates: bool = False,
) -> Picture:
    """What is to be drawn.

    Args:
        phase: leave out the layers that are not part of the net then; all are drawn without it.
        edge_labels: write the number of outputs, or the batch size, at the arrows.
        details: kernel, stride and pad in the boxes, and what LRN is set to.
        rates: the factor of each layer's learning rate, as "LR 1".
    """
    found = Picture(net.name)
    for layer in net.layer:
        if phase is not None and not is_included(layer, State(phase).inside(net), lambda *_: None):
            continue
        in_place = len(layer.bottom) == 1 and list(layer.bottom) == list(layer.top)
        kind = "neuron" if in_place else "layer"
        key = f"layer {layer.name} {layer.type}"
        fill = FILL["neuron"] if in_place else FILL.get(layer.type, FILL["layer"])
        found.boxes[key] = Box(key, kind, layer_lines(layer, details, rates), fill)
        for name in (*layer.bottom, *layer.top):
            found.boxes.setdefault(f"blob {name}", Box(f"blob {name}", "blob", [printable(name)], FILL["blob"]))
        label = edge_label(layer) if edge_labels else ""
        arrows = [(f"blob {name}", key, "") for name in layer.bottom]
        arrows += [(key, f"blob {name}", label) for name in layer.top]
        known = {arrow[:2] for arrow in found.arrows}  # data layers of two phases are often one box
        found.arrows += [arrow for arrow in dict.fromkeys(arrows) if arrow[:2] not in known]
    return found


def learning_rate(layer: schema.LayerParameter) -> float:
    """The factor of a layer's learning rate: its first parameter's; without any 1 where the type learns."""
    learns = layer.type in ("Convolution", "Deconvolution", "InnerProduct")
    return float(layer.param[0].lr_mult) if layer.param else float(learns)


def layer_lines(layer: schema.LayerParameter, details: bool = True, rates: bool = False) -> list[str]:
    """What stands in a layer's box."""
    kind = layer.type
    if kind == "Pooling":
        kind = f"{schema.PoolingParameter.PoolMethod.Name(layer.pooling_param.pool)} Pooling"
    lines = [printable(layer.name), f"({kind})"]
    told = [f"LR {learning_rate(layer):g}"] if rates else []
    if not details:
        return lines + told
    if layer.type in ("Convolution", "Deconvolution"):
        p = layer.convolution_param
        stride, pad = _sizes(p.stride, p.stride_h, p.stride_w, 1), _sizes(p.pad, p.pad_h, p.pad_w, 0)
        lines.append(f"kernel {_sizes(p.kernel_size, p.kernel_h, p.kernel_w, 1)} stride {stride} pad {pad}")
    elif layer.type == "Pooling":
        q = layer.pooling_param
        kernel = _sizes(q.kernel or ([q.kernel_size] if q.kernel_size else []), q.kernel_h, q.kernel_w, 1)
        stride = _sizes(q.step or [q.stride], q.stride_h, q.stride_w, 1)
        pad = _sizes(q.padding or [q.pad], q.pad_h, q.pad_w, 0)
        lines.append(f"kernel {'all' if q.global_pooling else kernel} stride {stride} pad {pad}")
    elif layer.type == "LRN":
        r = layer.lrn_param
        lines.append(f"size {r.local_size} alpha {r.alpha:g} beta {r.beta:g}")
    return lines + told


def _sizes(values: Sequence[int], height: int, width: int, default: int) -> str:
    if height or width:
        return f"{height}x{width}"
    return "x".join(str(v) for v in values) if values else str(default)


def edge_label(layer: schema.LayerParameter) -> str:
    """What stands at the arrow to a layer's tops."""
    if layer.type in ("Data", "ImageData", "HDF5Data", "MemoryData"):
        blocks = {"Data": "data_param", "ImageData": "image_data_param", "HDF5Data": "hdf5_data_param"}
        block: Any = getattr(layer, blocks.get(layer.type, "memory_data_param"))
        return f"Batch {block.batch_size}"
    if layer.type in ("Convolution", "Deconvolution"):
        return str(layer.convolution_param.num_output)
    return str(layer.inner_product_param.num_output) if layer.type == "InnerProduct" else ""


def draw(
    net: schema.NetParameter,
    ext: str = "svg",
    rankdir: str = "LR",
    phase: int | None = None,
    *,
    edge_labels: bool = True,
    details: bool = True,
    rates: bool = False,
    graphviz: bool = True,
) -> bytes:
    """The picture as the bytes of a file.

    Args:
        ext: "svg" or "png"; what else graphviz knows where it is there.
        rankdir: where the data flow: "LR" from left to right, "TB" from top to bottom, "RL", "BT".
        edge_labels, details, rates: see :func:`picture`.
        graphviz: let graphviz draw if it is there.

    Raises:
        UsageError: an unknown direction or format.
    """
    if rankdir not in RANKDIRS:
        raise UsageError(f"rankdir is one of {', '.join(RANKDIRS)}, got {rankdir}")
    shown = picture(net, phase, edge_labels, details, rates)
    if graphviz:
        made = _with_graphviz(shown, ext, rankdir)
        if made is not None:
            return made
    if ext not in FORMATS:
        raise UsageError(
            f"pictures are {' or '.join(FORMATS)}; {ext} needs graphviz and the Python package pydot",
            None,
            ["pip install 'netrun-trainer[draw]'"],
        )
    placed = place({key: (box.lines, box.kind == "blob") for key, box in shown.boxes.items()}, shown.arrows, rankdir)
    return _svg(shown, placed) if ext == "svg" else _png(shown, placed)


def pydot_graph(shown: Picture, rankdir: str) -> Any:
    """The picture as pydot's graph; None if there is no pydot."""
    try:
        pydot: Any = importlib.import_module("pydot")
    except ImportError:
        return None
    graph = pydot.Dot(_quoted(shown.name or "Net"), graph_type="digraph", rankdir=rankdir)
    for box in shown.boxes.values():
        shape = "octagon" if box.kind == "blob" else "record"
        lines = [line.replace("\\", "\\\\") for line in box.lines]
        if shape == "record":
            lines = [re.sub(r"([{}|<>])", r"\\\1", line) for line in lines]
        label = _quoted("\\n".join(lines), escaped=True)
        graph.add_node(pydot.Node(_quoted(box.key), label=label, shape=shape, fillcolor=box.fill, style="filled"))
    for source, target, label in shown.arrows:
        graph.add_edge(pydot.Edge(_quoted(source), _quoted(target), label=_quoted(label)))
    return graph


def _quoted(text: str, escaped: bool = False) -> str:
    """A string of the dot language; ``escaped``: its backslashes are what dot is to see."""
    text = text if escaped else printable(text).replace("\\", "\\\\")
    return '"' + text.replace('"', '\\"') + '"'


def _with_graphviz(shown: Picture, ext: str, rankdir: str) -> bytes | None:
    if shutil.which("dot") is None:
        return None
    graph = pydot_graph(shown, rankdir)
    if graph is None:
        return None
    try:
        made = graph.create(format=ext)
    except (OSError, AssertionError):  # how pydot says that graphviz is broken: our own picture will do
        return None
    return made if isinstance(made, bytes) else None


def _svg(shown: Picture, placed: Placed) -> bytes:
    width, height = placed.size
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="monospace" font-size="{placed.font:g}">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z"/></marker></defs>',
        f"<title>{html.escape(printable(shown.name) or 'net')}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for arrow in placed.arrows:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in arrow.points)
        out.append(f'<polyline points="{points}" fill="none" stroke="#333333" marker-end="url(#tip)"/>')
        if arrow.label:
            x, y = arrow.middle
            out.append(f'<text x="{x + 5:.1f}" y="{y - 4:.1f}">{html.escape(arrow.label)}</text>')
    for key, (x, y, w, h) in placed.boxes.items():
        box = shown.boxes[key]
        round_ = h / 2 if box.kind == "blob" else 3
        out.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{round_:g}" fill="{box.fill}" '
            'stroke="#333333"/>'
        )
        for i, line in enumerate(box.lines):
            at = y + h / 2 + placed.line * (i - (len(box.lines) - 1) / 2) + placed.font * 0.35
            out.append(f'<text x="{x + w / 2:.1f}" y="{at:.1f}" text-anchor="middle">{html.escape(line)}</text>')
    return "\n".join([*out, "</svg>", ""]).encode()


def _png(shown: Picture, placed: Placed) -> bytes:
    canvas = Canvas(*placed.size)
    for arrow in placed.arrows:
        canvas.line(arrow.points, "#333333")
        canvas.tip(arrow.points[-2], arrow.points[-1], "#333333")
        if arrow.label:
            half = placed.font * 0.3 * len(arrow.label)
            canvas.text(arrow.label, arrow.middle[0] + 5 + half, arrow.middle[1] - 8, placed.font)
    for key, (x, y, w, h) in placed.boxes.items():
        box = shown.boxes[key]
        canvas.box(x, y, w, h, h / 2 if box.kind == "blob" else 3, box.fill, "#333333")
        for i, line in enumerate(box.lines):
            canvas.text(line, x + w / 2, y + h / 2 + placed.line * (i - (len(box.lines) - 1) / 2), placed.font)
    return canvas.png()


__all__ = ["Picture", "draw", "edge_label", "layer_lines", "learning_rate", "picture", "pydot_graph"]

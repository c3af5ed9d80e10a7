"""netrun: neural networks written as configuration, trained from one command.

    netrun.Net, netrun.Solver, netrun.NetSpec      nets, solvers, and nets written as programs
    netrun.ForwardLayer                            a layer in Python: its forward pass, on every device
    netrun.load(file, weights)                     a trained net ready to classify

Importing this package touches no device and loads nothing heavy: these names load what they need when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .deploy import load
    from .layers.python_forward import ForwardLayer
    from .net import Blob, Net
    from .net_solver import NetSolver as Solver
    from .netspec import NetSpec

_LATER = {
    "Blob": ("net", "Blob"),
    "ForwardLayer": ("layers.python_forward", "ForwardLayer"),
    "Net": ("net", "Net"),
    "NetSpec": ("netspec", "NetSpec"),
    "Solver": ("net_solver", "NetSolver"),
    "load": ("deploy", "load"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LATER[name]
    found = globals()[name] = getattr(import_module(f".{module}", __name__), attribute)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


__all__ = ["Blob", "ForwardLayer", "Net", "NetSpec", "Solver", "__version__", "load"]

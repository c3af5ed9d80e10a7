"""The mirror under another name: after ``sys.modules["caffe"] = netrun.pycaffe`` scripts say ``import caffe.io`` and
``from caffe.proto import caffe_pb2``, and get these very modules, not second copies of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PACKAGE = __name__.rpartition(".")[0]


class _There(Loader):
    """Gives a module that is there already, as it is."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has put the alias's in its place


class Aliases(MetaPathFinder):
    """Finds the modules of the mirror below every other name under which the mirror itself stands in sys.modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The import system's question."""
        top, _, rest = fullname.partition(".")
        mirror = sys.modules.get(PACKAGE)
        if not rest or mirror is None or sys.modules.get(top) is not mirror:
            return None
        try:
            module = import_module(f"{PACKAGE}.{rest}")
        except ModuleNotFoundError:
            return None
        return ModuleSpec(fullname, _There(module), is_package=hasattr(module, "__path__"))


def install() -> None:
    """Let the import system ask; once is enough."""
    if not any(isinstance(finder, Aliases) for finder in sys.meta_path):
        sys.meta_path.insert(0, Aliases())


__all__ = ["Aliases", "install"]

"""A user's class behind a layer of type Python: where it is found, and how its mistakes are told."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import ConfigError, NetrunError
from ..formula.array import FormulaError
from .base import Layer


@contextmanager
def beside(folder: str) -> Iterator[list[str]]:
    """Modules are looked for in these folders first: the prototxt's and the working directory."""
    folders = [os.path.abspath(folder or "."), os.getcwd()]
    old = list(sys.path)
    sys.path[:0] = folders
    try:
        yield folders
    finally:
        sys.path[:] = old


def find(param: Any, folder: str) -> Any:
    """What python_param names, or None if it cannot be had: :meth:`UserLayer.load` says why."""
    if not param.module or not param.layer:
        return None
    try:
        with beside(folder):
            return getattr(importlib.import_module(param.module), param.layer, None)
    except Exception:
        return None


class UserLayer(Layer):
    """What layers share whose class is the user's."""

    type = ""
    param = "python_param"
    user: Any

    def load(self) -> Any:
        """The user's class.

        Raises:
            ConfigError: there is no such module or class, or the module fails to import.
        """
        if not self.p.module or not self.p.layer:
            missing = "layer" if self.p.module else "module"
            self.fail(f"has no {missing}", hint='write python_param { module: "my_layers" layer: "MyLayer" }, say')
        try:
            with beside(self.context.folder) as folders:
                module = importlib.import_module(self.p.module)
        except ModuleNotFoundError as error:
            if error.name and self.p.module.split(".")[0] == error.name.split(".")[0]:
                hint = f"looked in {folders[0]}, the working directory and PYTHONPATH"
                self.fail(f'there is no Python module "{self.p.module}"', at="module", hint=hint)
            raise self.explained("import", error) from error
        except Exception as error:
            raise self.explained("import", error) from error
        found = getattr(module, self.p.layer, None)
        if found is None:
            self.fail(f'the module "{self.p.module}" has no class "{self.p.layer}"', at="layer")
        return found

    def call(self, method: str, *given: Any) -> Any:
        """Call a method of the user's object.

        Raises:
            ConfigError: it raises; the error names the layer and the line in the user's file.
        """
        try:
            return getattr(self.user, method)(*given)
        except NetrunError:
            raise
        except Exception as error:
            raise self.explained(method, error) from error

    def explained(self, method: str, error: Exception) -> ConfigError:
        """The error of a user's class as netrun's: it names the layer, and the line in the user's file."""
        name, module_name = self._class_names()
        frames = traceback.extract_tb(error.__traceback__)
        module = sys.modules.get(module_name)
        theirs = [f for f in frames if module is not None and f.filename == getattr(module, "__file__", None)]
        notes = [f"at {f.filename}:{f.lineno}, in {f.name}: {f.line}" for f in (theirs or frames)[-1:]]
        if isinstance(error, SyntaxError):
            notes = [f"at {error.filename}:{error.lineno}"]
        what = f"{name}.{method}" if method != "import" else f"import {module_name}"
        text = f"{what} fails: {type(error).__name__}: {str(error) or 'no message'}"
        if isinstance(error, FormulaError):
            text, notes = f"{what}: {error.what}", [*(notes if theirs else []), *error.notes]
        return ConfigError(f"{self.name} ({self.type}): {text}", self.context.locate(), notes)

    def _class_names(self) -> tuple[str, str]:
        """Name of the user's class and of its module."""
        return self.p.layer, self.p.module


__all__ = ["UserLayer", "beside", "find"]

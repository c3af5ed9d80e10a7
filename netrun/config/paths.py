"""Which file a relative name in a configuration means."""

from __future__ import annotations

import os

from ..errors import ConfigError


def resolve(name: str, folder: str) -> str:
    """The path of a file or folder that a configuration names.

    Names are relative to the working directory, as in Caffe. If nothing is there, to ``folder``, the folder of the file
    that holds the name: so a net runs from anywhere. If nothing is there either, the name comes back as it is.

    Raises:
        ConfigError: no file can have that name.
    """
    check_name(name)
    if not name or os.path.isabs(name) or os.path.exists(name):
        return name
    beside = os.path.join(folder, name)
    return beside if folder and os.path.exists(beside) else name


def check_name(name: str) -> None:
    """Refuse what no file can be called.

    Raises:
        ConfigError: it holds a zero byte.
    """
    if "\0" in name:
        raise ConfigError(f"{name!r} is no name of a file: it holds a zero byte")

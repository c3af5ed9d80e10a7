"""netrun: neural networks written as configuration, trained from one command.

Importing this package touches no device and loads nothing heavy.
"""

from __future__ import annotations

from .version import __version__

__all__ = ["__version__"]

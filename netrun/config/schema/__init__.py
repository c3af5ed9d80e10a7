"""The message classes of the schema (proto/*.proto), made from the compiled descriptors that the build left here.

``from netrun.config import schema`` and then ``schema.NetParameter()``, ``schema.TRAIN``... The classes live in a
descriptor pool of their own, so that a real Caffe, or an old copy of its schema, may be imported beside netrun.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .layer_pb2 import *
    from .legacy_pb2 import *
    from .netrun_pb2 import *
else:
    from ._load import load_schema

    globals().update(load_schema())
    del load_schema

"""The schema's messages, as ``caffe.proto``."""

from __future__ import annotations

from . import caffe_pb2

__all__ = ["caffe_pb2"]

"""The layer that reads sequences: SequenceData."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..data.feeder import Feeder
from ..data.open import data_shapes, open_feeder
from ..types import Spec
from .base import Count
from .inputs import Opening, _Read


class SequenceData(_Read):
    """y = the next sequences of a source, side by side and padded to one length; or the next steps of a long one

    No bottom. Tops: what ``input`` names, by default the tops' own names. Of a text ``data``, the numbers of the tokens
    (characters or words), and ``label``, the next ones (a line ends in a token of its own); of a CTF, NumPy or HDF5
    file its streams. Values of each step are T N ..., those of a whole sequence N .... Besides ``cont``, T N, 0 where a
    sequence begins and in the padding, else 1; ``length``, N, the steps of each sequence.

    Whole sequences: batch_size of them, or as many as fit into batch_tokens places, those of similar lengths together
    then. continuous: the source as one sequence, cut into batch_size streams side by side, of which every batch has the
    next ``steps`` steps; cont is 0 at the beginning of an epoch only, so that a recurrent layer goes on from batch to
    batch.
    """

    param = "sequence_data_param"
    tops: ClassVar[Count] = (1, None)
    flexible = True

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        context = self.context
        shapes = context.measured
        if shapes is None:
            shapes = data_shapes(self.message, context.phase, folder=context.folder, where=context.locate())
        return [self.spec(shape) for shape in shapes]

    def open(self, how: Opening) -> Feeder:
        return open_feeder(self.message, self.context.phase, where=self.context.locate(), **vars(how))


__all__ = ["SequenceData"]

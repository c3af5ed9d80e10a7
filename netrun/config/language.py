"""The page of the config language: what ``netrun explain language`` prints."""

from __future__ import annotations

TOPICS = ("language", "let", "def", "repeat", "if")
"""Names that show the page (``include`` is a field, too, and shows that)."""

PAGE = """\
The config language: names, pieces and repetition in a prototxt

    A net or solver may say more than plain prototxt. netrun reads it wherever it reads a net or a solver;
    netrun expand FILE -o OUT writes the plain prototxt it stands for, which Caffe reads too. A file that uses
    none of this is read exactly as before.

Values
    $name and $(formula) stand where a plain value stands, and inside quotes:

        num_output: $width      kernel_size: $(2 * r + 1)      name: "block$i/conv"      bottom: "block$(i - 1)"

    A text that goes on with a letter: "$(stage)a". A dollar itself, inside quotes: $$.
    Texts go into text fields, words such as MAX into enumerations, lists into repeated fields.

let name: value
    Gives a name a value, from here to the end of the block it stands in (of all files, if in none).
    A name has one value: it cannot be given again. Values: 64  0.1  "text"  MAX  true  [64, 128]  $(6 * n + 2)

def name(a, b, c: 1) { ... }
    Names a piece of config: layers, or fields of a block. c has a default, which may use what stands before it.
    It is used as a block: name { a: "x" b: $(2 * n) }. A def stands outside of all blocks and before its uses.
    Inside, it knows its arguments, its own names, and those of the files, not those of the place of use.

repeat i in 1..n { ... }        repeat w in [64, 128] { ... }        repeat w in widths { ... }
    Once for each value; 1..n includes n, and is nothing if n is 0.

if formula { ... } else if formula { ... } else { ... }
    Keeps one of its bodies. Names given inside stay known behind it.

include "file.prototxt"
    The text of another file, looked up beside the file that includes it. Names of data and weights inside it are
    looked up as if they stood in the file that was opened first.

Formulas, strongest first
    (a)  list[i] from 0  f(a, b)    ^    -a    * / // %    + -    < <= > >= == !=    not    and    or
    Names stand bare in them: $(2 * width). Whole numbers stay whole: 6 / 2 is 3, 7 / 2 is 3.5, 7 // 2 is 3.
    + joins texts. Functions: min max abs sqrt floor ceil round len, and where(test, yes, no).

Mistakes name the line they stand in, and then the places that led there:

    net.prototxt:14:9: layer conv3: convolution_param has no field "num_outputs"; did you mean "num_output"?
        used at net.prototxt:30:20 (conv)
        repeated at net.prototxt:30:1 (i = 3)

Limits: 10,000 rounds a repeat, 40 levels, 1,000,000 words. A def that uses itself and a file that includes itself
are refused."""

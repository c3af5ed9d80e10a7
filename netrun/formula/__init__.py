"""Formulas over whole arrays: what an Expr layer's text and a Python layer's ``forward`` become.

parse.py      a text as statements, each part with its place in the text
functions.py  every function a formula may use
evaluate.py   statements as a graph of arrays
array.py      that graph: operations with their shapes
build.py      makes it: shape rules, common parts once
addends.py    x @ w + b as one operation
lower.py      the graph as kernel calls: elementwise pieces fused, products, slices and the rest one call each
rules.py      what shapes a kernel wants that a Python layer calls itself
trace.py      the ``k`` of a Python layer's forward: the functions and, in the same graph, every kernel
"""

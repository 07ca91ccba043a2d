"""One subject's graph as loops over numbers: what `em_ppl.kernels` compiles."""

from em_ppl.loops import indices, scans, shapes
from em_ppl.loops.code import Array, Code, Index, NotWritable
from em_ppl.loops.graph import write_graph

__all__ = ["Array", "Code", "Index", "NotWritable", "indices", "scans", "shapes", "write_graph"]

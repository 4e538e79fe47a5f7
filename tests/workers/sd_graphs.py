"""A program that has the image engine's library assert something, on two threads of its own.

`python -m tests.workers.sd_graphs build`: a graph that cannot be built. `compute`: one that can,
whose numbers are out of range. Says what it hears of it.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from workers.sd import engine, stop

Pointer, Int, Long = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
F32, I32 = 0, 26  # ggml_type
THREADS, WIDTH, ROWS, READ = 2, 32, 64, 48


class Place(ctypes.Structure):
    """ggml_init_params: where tensors are kept."""

    _fields_ = (("size", ctypes.c_size_t), ("buffer", Pointer), ("no_alloc", ctypes.c_bool))


def ggml(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(engine._lib, f"ggml_{name}")
    function.restype, function.argtypes = result, arguments
    return function


init = ggml("init", Pointer, Place)
vector = ggml("new_tensor_1d", Pointer, Pointer, Int, Long)
matrix = ggml("new_tensor_2d", Pointer, Pointer, Int, Long, Long)
data = ggml("get_data", Pointer, Pointer)
get_rows = ggml("get_rows", Pointer, Pointer, Pointer, Pointer)
mul_mat = ggml("mul_mat", Pointer, Pointer, Pointer, Pointer)
diag = ggml("diag", Pointer, Pointer, Pointer)
new_graph = ggml("new_graph", Pointer, Pointer)
expand = ggml("build_forward_expand", None, Pointer, Pointer)
cpu = ggml("backend_cpu_init", Pointer)
set_threads = ggml("backend_cpu_set_n_threads", None, Pointer, Int)
compute = ggml("backend_graph_compute", Int, Pointer, Pointer)


def reading(row: int) -> Any:
    """Build a graph that reads one row of a table again and again, and multiplies with it."""
    context = init(Place(1 << 22, None, no_alloc=False))
    table, rows = matrix(context, F32, WIDTH, ROWS), vector(context, I32, READ)
    (Int * READ).from_address(data(rows))[:] = [row] * READ
    graph = new_graph(context)
    expand(graph, mul_mat(context, table, get_rows(context, table, rows)))
    return graph


def main(what: str) -> None:
    stopper = engine.Engine(lambda _: None)._stopper
    assert stopper is not None, "this needs a C++ compiler"
    backend = cpu()
    set_threads(backend, THREADS)
    context = init(Place(1 << 22, None, no_alloc=False))
    call = {
        "build": (diag, context, matrix(context, F32, WIDTH, ROWS)),
        "compute": (compute, backend, reading(ROWS)),
    }[what]
    try:
        stopper.call(*call)
    except stop.Thrown as error:
        sys.stdout.write(f"caught {error}\n")
    stopper.call(compute, backend, reading(0))
    sys.stdout.write("computed\n")


if __name__ == "__main__":
    main(sys.argv[1])

"""From the source of a function to machine code, which numba makes, and keeps beside what PyTensor compiles."""

from __future__ import annotations

import gc
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from types import MappingProxyType, ModuleType
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from em_ppl.files import replacing
from em_ppl.kept import digest, folder

__all__ = [
    "Matrix",
    "NewFlags",
    "NewMatrix",
    "NewTensor",
    "Places",
    "Tensor",
    "compile_source",
    "in_machine_code",
]

Function = TypeVar("Function", bound=Callable[..., Any])

# what functions of `in_machine_code` may take, besides floats: arrays that are read, in any order in memory
Places: TypeAlias = NDArray[np.int64]
Matrix: TypeAlias = NDArray[np.float64]
Tensor: TypeAlias = NDArray[np.float64]
# and such that are written, in C order
NewFlags: TypeAlias = NDArray[np.bool_]
NewMatrix: TypeAlias = NDArray[np.float64]
NewTensor: TypeAlias = NDArray[np.float64]

IMPORTS = "from __future__ import annotations\n\nimport math\n\nimport numpy as np\n"


def in_machine_code(function: Function) -> Function:
    """Compile a function, when it is first called, for what its annotations say; it calls nothing but `math`.

    What it writes is given to it: memory of its own takes numba half as long again.
    """

    @cache
    def compiled() -> Callable[..., Any]:
        import numba  # takes a third of a second to load

        def array(kind: Any, n: int) -> Any:
            return numba.types.Array(kind, n, "A", readonly=True)

        def new(kind: Any, n: int) -> Any:
            return numba.types.Array(kind, n, "C")

        number, kinds = numba.float64, {"float": numba.float64, "Places": array(numba.int64, 1)}
        kinds |= {"Matrix": array(number, 2), "Tensor": array(number, 3)}
        kinds |= {"NewFlags": new(numba.bool_, 1), "NewMatrix": new(number, 2), "NewTensor": new(number, 3)}
        types = [kinds[parameter.annotation] for parameter in inspect.signature(function).parameters.values()]
        source = inspect.getsource(function)
        return compile_source(function.__name__, f"\n\n{source[source.index('def ') :]}", types)

    @wraps(function)
    def call(*arguments: Any) -> None:
        compiled()(*arguments)

    return call  # type: ignore[return-value]


def compile_source(
    name: str,
    source: str,
    types: Sequence[Any],
    *,
    depends_on: object = None,
    functions: Mapping[str, Callable[..., Any]] = MappingProxyType({}),
) -> Any:
    """Compile a function for arguments of these types and no others, or find it on disk.

    Parameters
    ----------
    name : str
        Of the function.
    source : str
        Where it is defined, and what it needs imported besides `math` and NumPy.
    types : sequence of Type
        Numba's.
    depends_on : object
        What else the machine code hangs on, besides numba's version and Python's.
    functions : mapping of str to callable
        Further ones that it calls.

    Returns
    -------
    Dispatcher
        Numba's; to be called. It does not hold Python's lock.
    """
    import numba

    source = f"{IMPORTS}{source}"
    module = _module(f"{name}_{digest(source, numba.__version__, sys.version, depends_on)}", source)
    vars(module).update(functions)
    function = numba.njit(cache=True, nogil=True, error_model="numpy")(vars(module)[name])
    with warnings.catch_warnings(), _garbage_left():
        # a function of PyTensor's may live in this process only
        warnings.filterwarnings("ignore", ".*Cannot cache compiled function", numba.NumbaWarning)
        try:
            function.compile(tuple(types))
        except Exception:  # machine code that cannot be read, as after a crash: it is thrown away, and made again
            function._cache.flush()  # type: ignore[attr-defined]
            function.compile(tuple(types))
    function.disable_compile()
    return function


@contextmanager
def _garbage_left() -> Iterator[None]:
    """Let Python not look for garbage: a compiler makes so many objects that this takes a sixth of its time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _module(name: str, source: str) -> ModuleType:
    """Put the source into a file, beside which numba keeps machine code, and run it as a module."""
    file, content = folder() / f"{name}.py", source.encode()
    if not file.exists() or file.read_bytes() != content:
        with replacing(file) as part:
            part.write_bytes(content)
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # where numba looks for it when it reads machine code
    exec(compile(source, file, "exec"), vars(module))
    return module

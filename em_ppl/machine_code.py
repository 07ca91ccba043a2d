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
    "Indices",
    "Matrix",
    "NewFlags",
    "NewMatrix",
    "NewTensor",
    "NewVector",
    "Tensor",
    "Vector",
    "compile_source",
    "in_machine_code",
]

Function = TypeVar("Function", bound=Callable[..., Any])

# what functions of `in_machine_code` may take, besides floats: arrays that are read, in any order in memory
Indices: TypeAlias = NDArray[np.int64]
Vector: TypeAlias = NDArray[np.float64]
Matrix: TypeAlias = NDArray[np.float64]
Tensor: TypeAlias = NDArray[np.float64]
# and such that are written, in C order
NewFlags: TypeAlias = NDArray[np.bool_]
NewVector: TypeAlias = NDArray[np.float64]
NewMatrix: TypeAlias = NDArray[np.float64]
NewTensor: TypeAlias = NDArray[np.float64]

IMPORTS = "from __future__ import annotations\n\nimport math\n\nimport numpy as np\n"


def in_machine_code(function: Function) -> Function:
    """Compile a function, when it is first called, for what its annotations say.

    It calls nothing but `math`, and uses no more of its module than numbers. What it writes is given to it: memory of
    its own takes numba half as long again.
    """

    @cache
    def compiled() -> Callable[..., Any]:
        types = [_kind(parameter.annotation) for parameter in inspect.signature(function).parameters.values()]
        return compile_source(function.__name__, _source(function), types)

    @wraps(function)
    def call(*arguments: Any) -> None:
        compiled()(*arguments)

    return call  # type: ignore[return-value]


def _kind(annotation: str) -> Any:
    """Return numba's type of what an annotation says."""
    import numba  # takes a third of a second to load

    number: Any = numba.float64
    read = {"Indices": (numba.int64, 1), "Vector": (number, 1), "Matrix": (number, 2), "Tensor": (number, 3)}
    written = {f"New{name}": read[name] for name in ("Vector", "Matrix", "Tensor")} | {"NewFlags": (numba.bool_, 1)}
    if annotation in read:
        return numba.types.Array(*read[annotation], "A", readonly=True)
    return numba.types.Array(*written[annotation], "C") if annotation in written else number


def _source(function: Callable[..., Any]) -> str:
    """Return the source of a function, and the numbers of its module that it uses."""
    used = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    numbers = "".join(f"{name} = {value!r}\n" for name, value in used.items() if isinstance(value, int | float))
    source = inspect.getsource(function)
    return f"{numbers}\n\n{source[source.index('def ') :]}"


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

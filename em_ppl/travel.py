"""How models travel to other processes, functions of a notebook among them."""

from __future__ import annotations

import io
from typing import Any

import cloudpickle
import numpy as np
import scipy

__all__ = ["dumps"]


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, which looks for `scipy.special`'s functions where they were imported to, such as a notebook."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ufunc):
            for module in (np, scipy.special):
                name = str(value.__name__)
                if getattr(module, name, None) is value:
                    return getattr, (module, name)
        return super().reducer_override(value)


def dumps(value: Any) -> bytes:
    """Pack what `pickle.loads` unpacks in another process."""
    with io.BytesIO() as file:
        _Pickler(file).dump(value)
        return file.getvalue()

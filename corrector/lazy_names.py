"""lazy_names: a package whose names are imported when they are first used."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The `__getattr__` and the `__dir__` of `package` (PEP 562).

    Args:
        modules: Module in the package -> the names that the package takes from it.
    """

    def getattr_(name: str) -> object:
        for module, names in modules.items():
            if name in names:
                return getattr(import_module(f"{package}.{module}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def dir_() -> list[str]:
        return [*vars(sys.modules[package]), *(name for names in modules.values() for name in names)]

    return getattr_, dir_

"""Packages whose names are imported when they are first used."""

from importlib import import_module
from pkgutil import iter_modules

import pytest


@pytest.mark.parametrize(
    "package",
    [
        "corrector",
        *(
            f"corrector.{name}"
            for name in (
                "adapters", "base", "detectors", "dreambooth", "evaluation", "exemplars", "exemplars.curation",
                "registry", "report", "sampling",
            )
        ),
    ],
)  # fmt: skip
def test_no_name_of_a_package_is_that_of_a_module_in_it(package: str) -> None:
    """An import of the module would hide the name."""
    found = import_module(package)
    modules = {module.name for module in iter_modules(found.__path__)}
    assert not modules & set(found.__all__)
    assert set(found.__all__) <= set(dir(found))

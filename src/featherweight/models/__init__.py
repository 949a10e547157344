"""Lightweight networks as Keras models, and their pretrained weights.

The package is also the verb of that name: `featherweight.models()` lists the zoo, `featherweight.models("ghostnet")`
explains one network.
"""

import sys
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    """A package that can be called, because the command line has a verb of its name."""

    def __call__(self, name: str | None = None) -> list[dict[str, Any]] | dict[str, Any]:
        from featherweight.models.catalog import models

        return models(name)


sys.modules[__name__].__class__ = _Verb

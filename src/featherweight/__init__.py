"""featherweight: weigh a lightweight CNN before you ship it.

Every verb of the command line is a function here, with the same name and arguments:

    import featherweight as fw
    result = fw.fit("photos/", "latency_p90=10ms,size=4MB")

`compare` is two: `fw.compare` of records, and `fw.versus` of files, which it measures.

Importing the package imports none of its parts; each verb brings in what it needs when it is first named.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featherweight import models, prune, quantize
    from featherweight.analyze import analyze
    from featherweight.compress import compress
    from featherweight.data import read_dataset as data
    from featherweight.demo import demo
    from featherweight.measure import measure
    from featherweight.measure.versus import versus
    from featherweight.models.darknet import import_darknet
    from featherweight.predict import predict
    from featherweight.report import compare
    from featherweight.reproduce import reproduce
    from featherweight.search import fit
    from featherweight.training.verbs import export, train
    from featherweight.tune import tune

# verb → (module, function)
VERBS = {
    "analyze": ("analyze", "analyze"),
    "compare": ("report", "compare"),
    "compress": ("compress", "compress"),
    "data": ("data", "read_dataset"),
    "demo": ("demo", "demo"),
    "export": ("training.verbs", "export"),
    "fit": ("search", "fit"),
    "import_darknet": ("models.darknet", "import_darknet"),
    "measure": ("measure", "measure"),
    "predict": ("predict", "predict"),
    "reproduce": ("reproduce", "reproduce"),
    "train": ("training.verbs", "train"),
    "tune": ("tune", "tune"),
    "versus": ("measure.versus", "versus"),
}
# Not verbs but packages: `fw.models()` can itself be called; the others have more than one thing to do.
PACKAGES = ("models", "prune", "quantize")
__all__ = [
    "analyze", "compare", "compress", "data", "demo", "export", "fit", "import_darknet", "measure", "models", "predict",
    "prune", "quantize", "reproduce", "train", "tune", "versus",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in PACKAGES:
        return importlib.import_module(f"featherweight.{name}")
    if name not in VERBS:
        raise AttributeError(f"module 'featherweight' has no attribute {name!r}; its verbs: {', '.join(VERBS)}")
    module, function = VERBS[name]
    return getattr(importlib.import_module(f"featherweight.{module}"), function)


class _Package(ModuleType):
    """Keeps `fw.measure` the verb. Importing a submodule binds its name on the package; where a verb has the same
    name, that would turn the function into a module as soon as any part imports another.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in VERBS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

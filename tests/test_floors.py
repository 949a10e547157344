"""The architecture as a test: who may import whom, and what the device world must never import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "featherweight"

# A file imports only from lower floors; the files of one folder may import each other.
FLOORS = (
    ("errors", "outputs", "progress", "stats"),
    ("boxes", "outlines"),
    ("image",),
    (
        "quantity", "device", "artifact", "modelfile", "moments", "annotations", "decode", "suppress",
        "matches", "masks",
    ),
    ("data", "record", "tasks", "runtimes", "page", "training_state", "draw", "tiles", "strips", "polygons"),
    ("budget", "compare", "models", "quantize", "worker", "frames", "boxes_in_graph", "masking"),
    ("analyze", "rewrite", "resume", "train", "predict", "report", "share"),
    (
        "fold", "factorize", "separate", "equalize", "sparsify", "prune", "distill", "detect", "segment", "export",
        "measure",
    ),
    ("qat", "training", "tune", "reproduce"),
    ("search",),
    ("compress", "demo"),
    ("cli",),
)  # fmt: skip
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
TRAINING_WORLD = {
    "models", "rewrite", "resume", "moments", "fold", "factorize", "separate", "equalize", "sparsify", "prune", "train",
    "detect", "segment", "distill", "export", "qat", "training", "search", "compress", "demo",
}  # fmt: skip
# Its classes are Keras layers, so that it is itself imported inside functions only.
KERAS_AT_TOP = {
    "models/blocks.py", "models/darknet/activations.py", "models/darknet/layers.py", "models/heads.py",
    "models/local.py", "qat/layers.py", "qat/places.py", "qat/spelling.py",
}  # fmt: skip
# Which modules may name which heavy library, and only inside a function.
HEAVY = {
    "keras": TRAINING_WORLD | {"analyze"},
    "tensorflow": TRAINING_WORLD | {"quantize"},
    "h5py": {"models"},
    "sklearn": {"demo"},
    "onnx": {"quantize", "analyze", "runtimes", "qat", "boxes_in_graph"},
    "onnxruntime": {"runtimes", "quantize"},
    "ai_edge_litert": {"runtimes", "quantize"},
    "openvino": {"runtimes"},
    "hotcoco": {"tasks"},
    "psutil": {"device"},
    "pynvml": {"device"},
    "mlflow": {"share"},
    "rich": {"progress", "report", "analyze"},
}
FILES = sorted(SOURCE.rglob("*.py"))


def module_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> list[tuple[str, ast.stmt]]:
    found: list[tuple[str, ast.stmt]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", node))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_only_from_lower_floors(path: Path) -> None:
    module = module_of(path)
    if module == "__init__":
        return
    tree = ast.parse(path.read_text())
    for name, _ in imports(tree):
        parts = name.split(".")
        if parts[0] == "featherweight" and len(parts) > 1 and parts[1] != module:
            assert FLOOR[parts[1]] < FLOOR[module], f"{module} (floor {FLOOR[module]}) imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_heavy_libraries_only_where_allowed_and_inside_functions(path: Path) -> None:
    tree = ast.parse(path.read_text())
    module = module_of(path)
    type_checking = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    for_types = {id(child) for block in type_checking for child in ast.walk(block)}
    at_top = {id(node) for node in tree.body}
    for name, node in imports(tree):
        library = name.split(".")[0]
        if library in HEAVY and id(node) not in for_types:
            assert module in HEAVY[library], f"{module} imports {library}"
            at_its_top = id(node) in at_top and str(path.relative_to(SOURCE)) not in KERAS_AT_TOP
            assert not at_its_top, f"{path.name} imports {library} at its top"


def test_every_file_has_a_floor() -> None:
    assert {module_of(path) for path in FILES} - {"__init__"} == set(FLOOR)


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("keras", "tensorflow", "tf2onnx", "h5py", "sklearn"):
            raise ImportError(f"{name} is not for the device world")
sys.meta_path.insert(0, Block())
"""


def test_the_device_world_imports_without_keras() -> None:
    modules = sorted(set(FLOOR) - TRAINING_WORLD)
    code = BLOCK + f"import importlib\nfor name in {modules}: importlib.import_module('featherweight.' + name)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_whole_package_imports_no_heavy_library_by_itself() -> None:
    code = (
        f"import importlib, sys\nfor name in {sorted(FLOOR)}: importlib.import_module('featherweight.' + name)\n"
        f"print([name for name in {sorted(HEAVY)} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_imports_nothing_but_the_standard_library() -> None:
    code = (
        "import sys\nfrom featherweight.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([n for n in ('numpy', 'PIL', 'onnx', 'rich', 'keras') if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_importing_a_part_does_not_turn_a_verb_into_a_module() -> None:
    code = (
        "import featherweight as fw\nimport featherweight.measure, featherweight.data\n"
        "from featherweight.predict import predict\n"
        "print(all(callable(getattr(fw, verb)) for verb in fw.__all__ if verb not in (*fw.PACKAGES, 'demo', 'fit')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"

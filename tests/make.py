"""Values for tests: a record, and an artifact folder made without any training framework."""

from pathlib import Path
from typing import Any

import numpy as np

from featherweight.artifact import Artifact, Step, write_artifact
from featherweight.record import Record

MODEL = b"\x08\x08\x12\x04test" + bytes(range(256)) * 4
CLASSES = ("cat", "dog", "owl")


def make_record(**changes: Any) -> Record:
    """A record with every number measured; `changes` are its fields."""
    fields: dict[str, Any] = {
        "name": "mobilenet_v1-0.25-128-int8",
        "artifact_sha256": "ab" * 32,
        "format": "onnx",
        "precision": "int8",
        "task": "classify",
        "steps": ({"name": "train", "settings": {"epochs": 3}, "skipped": [["mixup", "too few pictures"]]},),
        "device": {"name": "Testboard 5", "cores": 4, "instructions": ["asimd", "asimddp"]},
        "device_id": "0123456789ab",
        "runtime": "onnxruntime",
        "threads": 1,
        "compute_precision": "int8",
        "provider": "cpu",
        "environment": {"before": {"governor": "performance"}, "after": {"governor": "performance"}},
        "settings": {
            "protocol": {"min_runs": 100, "min_seconds": 10.0, "warmup_runs": 10, "warmup_seconds": 1.0},
            "inputs": "32 pictures of the test part",
            "command": "featherweight measure model --data photos",
        },
        "versions": {"featherweight": "0.1.0", "onnxruntime": "1.31.1"},
        "data": "feedc0de",
        "part": "test",
        "seed": 0,
        "created": "2026-01-02T03:04:05+00:00",
        "accuracy": 0.875,
        "latency_p50_ms": 4.25,
        "latency_p90_ms": 4.75,
        "latency_p99_ms": 6.5,
        "total_p50_ms": 5.125,
        "total_p90_ms": 6.0,
        "preprocess_p50_ms": 0.75,
        "postprocess_p50_ms": 0.0625,
        "cold_start_ms": 240.0,
        "throughput_per_s": 800.0,
        "memory_peak_bytes": 64_000_000,
        "memory_model_bytes": 16_000_000,
        "gpu_memory_bytes": 0.0,
        "energy_mj": 12.5,
        "size_bytes": 320_000,
        "parameters": 218_000,
        "macs": 13_600_000,
        "accuracy_interval": (0.81, 0.92),
        "accuracy_n": 160,
        "latency_p50_interval_ms": (4.125, 4.375),
        "latency_n": 700,
        "memory_baseline_bytes": 48_000_000,
        "energy_method": "measured:rapl-package",
        "missing": {},
        "warnings": (),
    }
    return Record(**{**fields, **changes})


def make_artifact(path: Path, **changes: Any) -> Artifact:
    """An artifact folder at `path` whose model file no runtime could load."""
    rng = np.random.default_rng(0)
    golden = rng.integers(0, 256, (2, 8, 8, 3), np.uint8), rng.random((2, 3), np.float32)
    fields: dict[str, Any] = {
        "path": path,
        "file": "model.onnx",
        "name": "tiny-8-float32",
        "format": "onnx",
        "precision": "float32",
        "sha256": "",
        "size_bytes": 0,
        "task": "classify",
        "classes": CLASSES,
        "height": 8,
        "width": 8,
        "resize": "stretch",
        "parameters": 99,
        "macs": 1234,
        "steps": (Step("train", {"epochs": 3}, (("mixup", "too few pictures"),)), Step("export", {"opset": 17})),
    }
    return write_artifact(Artifact(**{**fields, **changes}), MODEL, golden)


def tree(root: Path, files: dict[str, Any]) -> Path:
    """A folder with these files, as a system's root."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(text))
    return root

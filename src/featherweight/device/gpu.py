"""Graphics processors through NVML: name, driver, memory of one process.

NVML is read by nvidia-ml-py, which its maker keeps; where it or a GPU is missing, the answer is the reason. None of
this can run on the machines that it was built on: the tests feed a recorded stand-in for the module `pynvml`.
Imports nothing of the package.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class NoGpu(Exception):
    """Why NVML has no answer, in one line; does not leave this folder."""


@contextmanager
def nvml() -> Iterator[ModuleType]:
    """The module between its start and its end.

    Raises:
        NoGpu: the module or the driver is missing, or a call failed.
    """
    try:
        import pynvml
    except ImportError:
        raise NoGpu("nvidia-ml-py is not installed: pip install 'featherweight[energy]'") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoGpu(f"no NVIDIA GPU, or no driver of one: {error}") from None
    try:
        yield pynvml
    except pynvml.NVMLError as error:
        raise NoGpu(f"NVML: {error}") from None
    finally:
        pynvml.nvmlShutdown()


def gpus() -> tuple[list[dict[str, Any]] | None, str | None]:
    """(each GPU's name, driver and memory as plain values, `None`), or (`None`, the reason)."""
    try:
        with nvml() as module:
            driver = module.nvmlSystemGetDriverVersion()
            found = []
            for index in range(module.nvmlDeviceGetCount()):
                handle = module.nvmlDeviceGetHandleByIndex(index)
                memory = module.nvmlDeviceGetMemoryInfo(handle)
                name = module.nvmlDeviceGetName(handle)
                found.append({"index": index, "name": name, "driver": driver, "memory_bytes": memory.total})
    except NoGpu as reason:
        return None, str(reason)
    return (found, None) if found else (None, "the driver knows no GPU")


def first_gpu(visible: str | None = None) -> int | None:
    """NVML's number of the first GPU that this process may use; `None` where `CUDA_VISIBLE_DEVICES` names no number.

    CUDA counts the fastest GPU first unless `CUDA_DEVICE_ORDER=PCI_BUS_ID` is set, NVML counts by bus: on machines with
    different GPUs that has to be set.

    Args:
        visible: what `CUDA_VISIBLE_DEVICES` says; by default that of this process.
    """
    text = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
    if text is None:
        return 0
    first = text.split(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() else None


def gpu_memory_bytes(pid: int) -> tuple[int | None, str | None]:
    """(bytes that the process holds on all GPUs now, `None`), or (`None`, the reason).

    NVML keeps no peak for a process: asked after the runs it tells what is held then, which is less than the peak where
    the library has given memory back.
    """
    try:
        with nvml() as module:
            handles = [module.nvmlDeviceGetHandleByIndex(index) for index in range(module.nvmlDeviceGetCount())]
            seen = [process for handle in handles for process in module.nvmlDeviceGetComputeRunningProcesses(handle)]
    except NoGpu as reason:
        return None, str(reason)
    own = [process.usedGpuMemory for process in seen if process.pid == pid]
    if not own:
        return None, f"no GPU knows process {pid}: it uses none, or a container hides its number"
    if None in own:
        return None, "the driver does not tell the memory of single processes"
    return sum(own), None

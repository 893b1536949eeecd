"""An artifact's graph, loaded on a GPU or not at all."""

import onnxruntime as ort

from berth.artifact import Artifact
from berth.backends.cuda.devices import PROVIDER, preload
from berth.errors import ArtifactError, DeviceError

OUT_OF_MEMORY = (
    "Failed to allocate memory",  # the arena: the device has no more
    "is smaller than requested bytes",  # the arena: --gpu-memory-limit leaves no more
    "Failed to find a free memory block",  # the arena
    "out of memory",  # CUDA failure 2
    "STATUS_ALLOC_FAILED",  # cuBLAS and cuDNN
    "bad_alloc",
)
"""Words of ONNX Runtime's errors that say there is no memory; the first three are from its bfc_arena.cc."""


def open_session(artifact: Artifact, device: int, memory_limit: int | None = None) -> ort.InferenceSession:
    """Load a graph on a GPU; `memory_limit` bounds the arena of its activations, in bytes.

    Raises `ArtifactError` where ONNX Runtime cannot load the graph, `DeviceError` where it does not take the GPU.
    """
    preload()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A pattern of addresses is kept for every shape that was ever seen, and a packed batch hardly ever has the shape of
    # another: memory would grow for ever (microsoft/onnxruntime#11118).
    options.enable_mem_pattern = False
    # Weights lie beside the arena, so that what it gives back, or is bounded to, is activations alone.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    try:
        session = ort.InferenceSession(
            artifact.graph,
            options,
            providers=[(PROVIDER, provider_options(device, memory_limit))],
            enable_fallback=0,  # or it would print a few lines and go on without the GPU
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
        raise ArtifactError(f"ONNX Runtime cannot load {artifact.graph} on GPU {device}: {error}") from error
    if session.get_providers()[:1] != [PROVIDER]:
        raise DeviceError(f"ONNX Runtime does not take GPU {device}, and its own words, above, say why")
    return session


def provider_options(device: int, memory_limit: int | None) -> dict[str, str]:
    """Give the CUDA provider's options; those that are not here are at ONNX Runtime's defaults."""
    options = {
        "device_id": str(device),
        "arena_extend_strategy": "kSameAsRequested",  # the other one doubles: up to twice the memory that is needed
        "use_tf32": "0",  # fp32 means fp32
    }
    return options if memory_limit is None else options | {"gpu_mem_limit": str(memory_limit)}


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error of ONNX Runtime's means that there is no memory."""
    text = str(error)
    return any(words in text for words in OUT_OF_MEMORY)


def shrinking(device: int) -> ort.RunOptions:
    """Give options by which ONNX Runtime returns, after the run, what of the arena is not in use."""
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", f"gpu:{device}")
    return options

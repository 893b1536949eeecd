"""Where the model runs: what `--device` and `--precision` ask for, and what this machine and the artifact can do."""

import logging
from dataclasses import dataclass
from typing import get_args

from berth.artifact import DEFAULT_PRECISIONS, Manifest, Precision, Target, WeightBits
from berth.backends.cuda.devices import require_gpus
from berth.errors import DeviceError
from berth.processor import weight_bits_here

ELSEWHERE: dict[tuple[Target, Precision], str] = {
    ("cuda", "int8"): "int8 is for the CPU: on a GPU the precision is fp16 or fp32",
    ("cpu", "fp16"): "fp16 is for a GPU: on the CPU the precision is fp32 or int8",
}

DEVICES = "must be auto, cpu, cuda, cuda:1 or, for several GPUs, cuda:0,1"

THREADS_PER_GPU = 2
"""Of each priority: one has its batch run, the other packs and copies the next one."""

logger = logging.getLogger("berth")


@dataclass(frozen=True, slots=True)
class ExportTarget:
    """What a checkpoint is to be exported for."""

    target: Target
    precision: Precision
    weight_bits: WeightBits = 8
    """Of int8; nothing to the others."""

    def __str__(self) -> str:
        """Name the artifact's place in the cache, which machines with VNNI and without may share."""
        narrow = self.precision == "int8" and self.weight_bits == 7
        return f"{self.target}-{self.precision}{'w7' if narrow else ''}"


def choose(device: str, precision: Precision | None, int8_weights: WeightBits | None = None) -> ExportTarget:
    """Choose what to export for, and say what was chosen for the caller, and why.

    Raises `DeviceError` where the device that is asked for cannot be used, or not in that precision, or the bits of
    int8's weights are asked for in another precision.
    """
    if precision not in {None, *get_args(Precision)}:  # a library's caller may ask for anything
        raise DeviceError(f"--precision {precision}: must be one of {', '.join(get_args(Precision))}")
    target = _automatic(precision) if device == "auto" else "cuda" if indices(device) else "cpu"
    precision = precision or DEFAULT_PRECISIONS[target]
    if mismatch := ELSEWHERE.get((target, precision)):
        raise DeviceError(f"--device {device}, --precision {precision}: {mismatch}")
    export_target = ExportTarget(target, precision, _weight_bits(precision, int8_weights))
    if device != "auto" and target == "cuda":
        require_gpus(indices(device))
    return export_target


def gpus_for(device: str, manifest: Manifest) -> dict[int, str]:
    """Give the GPUs that an artifact will run on, by number, with their names; none where it is for the CPU.

    Raises `DeviceError` where the artifact is for another device, or the GPUs cannot be used.
    """
    asked = indices(device)
    if manifest.target == "cpu":
        if asked:
            raise DeviceError(f"--device {device}: the artifact is for the CPU; export the model with --target cuda")
        return {}
    if device == "cpu":
        raise DeviceError("--device cpu: the artifact is for CUDA; export the model with --target cpu")
    used = asked or (0,)
    names = require_gpus(used).gpus
    return {index: names[index] for index in used}


def check_precision(precision: Precision | None, manifest: Manifest, int8_weights: WeightBits | None = None) -> None:
    """Raise `DeviceError` where an artifact is in another precision, or of other weights, than is asked for.

    One for CUDA in fp32 is what an export for fp16 gives where fp16 does not do for the model.
    """
    given, bits = manifest.precision, manifest.weight_bits
    if precision not in (None, given) and (manifest.target, precision, given) != ("cuda", "fp16", "fp32"):
        raise DeviceError(f"--precision {precision}: the artifact is in {given}; export the model in {precision}")
    if int8_weights not in (None, bits):
        is_in = f"int8 with weights in {bits} bits" if bits else given
        cure = f"export the model in int8 with --int8-weights {int8_weights}"
        raise DeviceError(f"--int8-weights {int8_weights}: the artifact is in {is_in}; {cure}")


def indices(device: str) -> tuple[int, ...]:
    """Read the GPUs' numbers off `cuda` (the first), `cuda:1` or `cuda:0,1`; none for `auto` and `cpu`.

    Raises `DeviceError` for what is no device.
    """
    if device in {"auto", "cpu"}:
        return ()
    if device == "cuda":
        return (0,)
    numbers = device.removeprefix("cuda:").split(",")
    if not device.startswith("cuda:") or not all(map(str.isdecimal, numbers)) or len(set(numbers)) < len(numbers):
        raise DeviceError(f"--device {device}: {DEVICES}")
    return tuple(map(int, numbers))


def _weight_bits(precision: Precision, asked: WeightBits | None) -> WeightBits:
    """Decide how many bits int8's weights have, and say why; 8 where there are none."""
    if asked not in {None, *get_args(WeightBits)}:
        raise DeviceError(f"--int8-weights {asked}: must be one of {', '.join(map(str, get_args(WeightBits)))}")
    if asked is not None and precision != "int8":
        raise DeviceError(f"--int8-weights {asked}: is for --precision int8, and the precision is {precision}")
    if asked is not None or precision != "int8":
        return asked or 8
    bits, reason = weight_bits_here()
    logger.info("int8: weights in %d bits: %s", bits, reason)
    return bits


def _automatic(precision: Precision | None) -> Target:
    """Decide for `auto`, and say what and why."""
    target: Target
    if precision == "int8":
        target, reason = "cpu", "int8 is for it"
    else:
        try:
            target, reason = "cuda", require_gpus([0]).gpus[0]
        except DeviceError as error:
            if precision == "fp16":
                raise DeviceError(f"--precision fp16 is for a GPU: {error}") from error
            target, reason = "cpu", str(error)
    logger.info("--device auto chooses %s: %s", target, reason)
    return target

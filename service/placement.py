"""Where the model runs: what `--device` and `--precision` ask for, and what this machine and the artifact can do."""

import logging
from dataclasses import dataclass

from service.errors import DeviceError
from service.inference.artifact import DEFAULT_PRECISIONS, Manifest, Precision, Target
from service.inference.devices import require_gpus

ELSEWHERE: dict[tuple[Target, Precision], str] = {
    ("cuda", "int8"): "int8 is for the CPU: on a GPU the precision is fp16 or fp32",
    ("cpu", "fp16"): "fp16 is for a GPU: on the CPU the precision is fp32 or int8",
}

logger = logging.getLogger("berth")


@dataclass(frozen=True, slots=True)
class Goal:
    """What a checkpoint is to be exported for."""

    target: Target
    precision: Precision

    def __str__(self) -> str:
        """Name the artifact's place in the cache."""
        return f"{self.target}-{self.precision}"


def choose(device: str, precision: Precision | None) -> Goal:
    """Choose what to export for, and say what `auto` has chosen and why.

    Raises `DeviceError` where the device that is asked for cannot be used, or not in that precision.
    """
    target = _automatic(precision) if device == "auto" else "cuda" if indices(device) else "cpu"
    goal = Goal(target, precision or DEFAULT_PRECISIONS[target])
    if mismatch := ELSEWHERE.get((goal.target, goal.precision)):
        raise DeviceError(f"--device {device}, --precision {goal.precision}: {mismatch}")
    if device != "auto" and target == "cuda":
        require_gpus(indices(device))
    return goal


def gpus_for(device: str, manifest: Manifest) -> dict[int, str]:
    """Give the GPUs that an artifact will run on, by number, with their names; none where it is for the CPU.

    Raises `DeviceError` where the artifact is for another device, or the GPUs cannot be used.
    """
    wanted = indices(device)
    if manifest.target == "cpu":
        if wanted:
            raise DeviceError(f"--device {device}: the artifact is for the CPU; export the model with --target cuda")
        return {}
    if device == "cpu":
        raise DeviceError("--device cpu: the artifact is for CUDA; export the model with --target cpu")
    used = wanted or (0,)
    names = require_gpus(used).gpus
    return {index: names[index] for index in used}


def check_precision(precision: Precision | None, manifest: Manifest) -> None:
    """Raise `DeviceError` where an artifact is in another precision than is asked for.

    One for CUDA in fp32 is what an export for fp16 gives where fp16 does not do for the model.
    """
    given = manifest.precision
    if precision in (None, given) or (manifest.target, precision, given) == ("cuda", "fp16", "fp32"):
        return
    raise DeviceError(f"--precision {precision}: the artifact is in {given}; export the model in {precision}")


def indices(device: str) -> tuple[int, ...]:
    """Read the GPUs' numbers off `cuda` (the first), `cuda:1` or `cuda:0,1`; none for `auto` and `cpu`."""
    kind, _, numbers = device.partition(":")
    if kind != "cuda":
        return ()
    return tuple(int(number) for number in numbers.split(",")) if numbers else (0,)


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

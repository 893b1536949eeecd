"""The progress bar of a long step: on stderr, for people only."""

from collections.abc import Iterable

from tqdm import tqdm


def layers_of(count: int, doing: str) -> Iterable[int]:
    """Count the layers from 0 and show how far the work is; nothing is shown where stderr is not a terminal."""
    return tqdm(range(count), desc=doing, unit="layer", disable=None, leave=False)

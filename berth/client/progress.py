"""A progress bar for those who ask for one."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager


@contextmanager
def progress_bar(wanted: bool) -> Iterator[Callable[[int], object]]:
    """Give what is told how many more texts are done, and shows them on a bar of tqdm's where that is wanted."""
    if not wanted:
        yield lambda _: None
        return
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415  # an optional package
    except ImportError as error:
        raise ImportError("a progress bar needs tqdm: pip install tqdm") from error
    with closing(tqdm(unit="text")) as bar:
        yield bar.update

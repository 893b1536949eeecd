"""A progress bar for those who ask for one."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager


@contextmanager
def progress_bar(shown: bool) -> Iterator[Callable[[int], object]]:
    """Yield a function that is told how many more texts are done; where `shown`, it moves a bar of tqdm's."""
    if not shown:
        yield lambda _: None
        return
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415  # an optional package
    except ImportError as error:
        raise ImportError("a progress bar needs tqdm: pip install tqdm") from error
    with closing(tqdm(unit="text")) as bar:
        yield bar.update

"""A progress bar for those who ask for one."""

from types import TracebackType
from typing import Any, Self


class Progress:
    """Counts texts on a bar of tqdm's where that is wanted, else does nothing."""

    def __init__(self, wanted: bool) -> None:
        self._bar: Any = None
        if wanted:
            try:
                from tqdm.auto import tqdm  # noqa: PLC0415  # an optional package
            except ImportError as error:
                raise ImportError("a progress bar needs tqdm: pip install tqdm") from error
            self._bar = tqdm(unit="text")

    def __enter__(self) -> Self:
        """Show the bar."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def add(self, texts: int) -> None:
        """Count texts that are done."""
        if self._bar is not None:
            self._bar.update(texts)

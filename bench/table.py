"""Tables of plain text."""

from collections.abc import Sequence


def cell(value: float | str | None) -> str:
    """Write a number with three or four digits that say something."""
    if value is None or value != value:  # noqa: PLR0124  # NaN
        return "-"
    if isinstance(value, str):
        return value
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:.{digits}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[float | str | None]]) -> str:
    """Lay out a table that is also Markdown: the first column to the left, figures to the right."""
    lines = [list(head), *([cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def row(values: Sequence[str]) -> str:
        first, *rest = (
            value.ljust(width) if column == 0 else value.rjust(width)
            for column, (value, width) in enumerate(zip(values, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = "|" + "|".join(f"{'-' * (width + 1)}{':' if column else '-'}" for column, width in enumerate(widths)) + "|"
    return "\n".join([row(lines[0]), rule, *map(row, lines[1:])])

"""The most that one request may ask for; all of it is checked before the request is queued."""

from dataclasses import dataclass

from berth.errors import InvalidInputError
from berth.types import Text, TokenIds


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one request may ask for; a check raises `InvalidInputError`, naming field and limit."""

    texts: int
    text_chars: int
    reply_numbers: int
    tokens: int | None = None
    table_tokens: int = 1 << 20

    def check_count(self, field: str, count: int) -> None:
        """Raise where a field has too many texts."""
        if count > self.texts:
            raise InvalidInputError(field, f"{count} inputs, at most {self.texts} in one request")

    def error_of(self, text: Text) -> InvalidInputError | None:
        """Return the error of a text that is empty or too long."""
        length = len(text.value)
        if not length:
            return InvalidInputError(text.name, "must not be empty")
        if length > self.text_chars:
            noun = "token ids" if isinstance(text.value, TokenIds) else "characters"
            return InvalidInputError(text.name, f"{length} {noun}, at most {self.text_chars}")
        return None

    def check_tokens(self, field: str, tokens: int, *, table: bool = False) -> None:
        """Raise where the texts of a field come to too many tokens to encode or, in a table, to list."""
        most = self.table_tokens if table else self.tokens
        if most is not None and tokens > most:
            raise InvalidInputError(field, f"more than {most} tokens in one request")

    def check_reply(self, field: str, numbers: int) -> None:
        """Raise where a request's vectors, of windows those of each, would hold too many numbers."""
        if numbers > self.reply_numbers:
            raise InvalidInputError(field, f"the vectors would hold {numbers} numbers, at most {self.reply_numbers}")

"""The special tokens that a tokenizer puts around a text and between the two of a pair."""

from collections.abc import Sequence

from tokenizers import Encoding, Tokenizer

from berth.types import Frame
from model_export.errors import ExportError

WORDS = ("a", "1", "word", "好", "▁")
"""One of them leaves a token in any vocabulary."""


def read_frame(tokenizer: Tokenizer, cls_id: int | None, where: object) -> Frame:
    """Read the frame off a text and a pair, `cls_id` being the id of [CLS], if there is one.

    Raises `ExportError`, which names `where`, if there is no frame or if that of a pair is no part of a text's.
    """
    word = next((word for word in WORDS if tokenizer.encode(word, add_special_tokens=False).ids), None)
    if word is None:
        raise ExportError(f"{where}: the tokenizer leaves nothing of {', '.join(WORDS)}")
    inside = tokenizer.encode(word, add_special_tokens=False).ids
    pair = tokenizer.encode(word, word)
    first, second = (_span(pair.sequence_ids, number) for number in (0, 1))
    before, between, after = pair.ids[: first[0]], pair.ids[first[1] : second[0]], pair.ids[second[1] :]
    if not before and not after:
        raise ExportError(
            f"{where}: a text has no special tokens around it, and an empty one would have no token at all"
        )
    expected = {
        (word, word): [*before, *inside, *between, *inside, *after],
        (word,): [*before, *inside, *after],
        ("",): [*before, *after],
    }
    for texts, ids in expected.items():
        if encoded(tokenizer, texts).ids != ids:
            raise ExportError(
                f"{where}: a text's special tokens are not a pair's without those between: {texts} differ"
            )
    return Frame(tuple(before), tuple(between), tuple(after), _place_of(cls_id, before, after))


def encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> Encoding:
    """Tokenize a text, or a pair."""
    return tokenizer.encode(texts[0], texts[1] if len(texts) > 1 else None)


def _span(sequence_ids: list[int | None], number: int) -> tuple[int, int]:
    places = [place for place, text in enumerate(sequence_ids) if text == number]
    return (places[0], places[-1] + 1) if places else (len(sequence_ids), len(sequence_ids))


def _place_of(cls_id: int | None, before: list[int], after: list[int]) -> int | None:
    if cls_id is None:  # a class that names none: what stands there is what sentence-transformers pools as [CLS]
        return 0 if before else None
    return 0 if before[:1] == [cls_id] else -1 if after[-1:] == [cls_id] else None

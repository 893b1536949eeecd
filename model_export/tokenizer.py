"""The artifact's tokenizer: the checkpoint's own without its truncation and padding, or built from `vocab.txt`."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Encoding, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from berth.artifact import TokenizerFacts
from berth.types import Frame
from model_export.checkpoint import Checkpoint
from model_export.errors import ExportError
from model_export.network import Network

SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
BERT_CLASSES = ("BertTokenizer", "BertTokenizerFast")
TOKEN_DEFAULTS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": True}
"""AddedToken's options, where a token that is written as an object leaves one out."""
SAVE_IT = "load and save it with transformers to get a tokenizer.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadTokenizer:
    """A checkpoint's tokenizer, as the artifact has it."""

    tokenizer: Tokenizer
    frame: Frame
    facts: TokenizerFacts


def read_tokenizer(checkpoint: Checkpoint, network: Network, lower_case: bool) -> ReadTokenizer:
    """Read or build the tokenizer, and see to it that the network can take whatever it gives.

    With `lower_case` it lower-cases texts before anything else, as sentence-transformers' own setting asks for.
    """
    config = checkpoint.object("special_tokens_map.json") | checkpoint.object("tokenizer_config.json")
    kinds = (each.get("tokenizer_class") for each in (config, checkpoint.object("config.json")))  # as in transformers
    config["tokenizer_class"] = next(filter(None, kinds), BERT_CLASSES[0])
    if path := checkpoint.file("tokenizer.json"):
        tokenizer = _from_json(path, config)
    elif path := checkpoint.file("vocab.txt"):
        if checkpoint.object("added_tokens.json"):
            raise ExportError(f"{path.with_name('added_tokens.json')} is not read; {SAVE_IT}")
        tokenizer = _from_vocabulary(path, config)
    else:
        raise ExportError(f"{checkpoint.folder}: there is neither tokenizer.json nor vocab.txt; {SAVE_IT}")
    side = config.get("truncation_side") or (tokenizer.truncation or {}).get("direction", "right")
    if side != "right":
        raise ExportError(f"{checkpoint.folder}: the tokenizer's truncation_side {side!r} is not implemented")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.add_tokens(_extra_tokens(checkpoint, config, tokenizer))
    if lower_case:
        rest = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])
    _check_ids(tokenizer, network, path)
    _check_frame(tokenizer, path)
    tokenizer = _with_known_types(tokenizer, network, path)
    facts = TokenizerFacts(kind=config["tokenizer_class"], transformers_version="")
    return ReadTokenizer(tokenizer, _frame(tokenizer), facts)


def _frame(tokenizer: Tokenizer) -> Frame:
    pair = tokenizer.encode("a", "a")
    texts = [place for place, text in enumerate(pair.sequence_ids) if text is not None]
    first, last = texts[0], texts[-1]
    between = [
        id_ for id_, text in zip(pair.ids[first:last], pair.sequence_ids[first:last], strict=True) if text is None
    ]
    return Frame(tuple(pair.ids[:first]), tuple(between), tuple(pair.ids[last + 1 :]), 0 if first else None)


def _extra_tokens(checkpoint: Checkpoint, config: dict[str, Any], tokenizer: Tokenizer) -> list[AddedToken]:
    """List the model's own tokens, under all of transformers' names for them, that the tokenizer does not have yet."""
    names = ("added_tokens_decoder", "extra_special_tokens", "additional_special_tokens")
    decoder, extra, listed = (_values(config.get(name) or []) for name in names)
    tokens = [*decoder, *extra, *([] if extra and isinstance(config["extra_special_tokens"], list) else listed)]
    if not all(isinstance(token, str | dict) for token in tokens):
        raise ExportError(f"{checkpoint.folder / 'tokenizer_config.json'}: the special tokens are not a list of tokens")
    named = [value for key, value in config.items() if key.endswith("_token") and isinstance(value, str | dict)]
    tokens += [token for token in named if tokenizer.token_to_id(_text(token)) is not None]
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    new = [token if isinstance(token, dict) else {"content": token, "normalized": False} for token in tokens]
    usual = TOKEN_DEFAULTS.items()
    options = [(_text(token), {key: bool(token.get(key, value)) for key, value in usual}) for token in new]
    return [AddedToken(text, **each) for text, each in options if text not in known]


def _values(tokens: Any) -> list[Any]:
    return [*tokens.values()] if isinstance(tokens, dict) else tokens if isinstance(tokens, list) else [tokens]


def _from_json(path: Path, config: dict[str, Any]) -> Tokenizer:
    try:
        content = json.loads(path.read_bytes())
        normalizer = content.get("normalizer") or {}
        if normalizer.get("type") == "BertNormalizer" and config["tokenizer_class"] in BERT_CLASSES:
            normalizer |= _normalizer_options(config)  # which overrule it in transformers, defaults included
        return Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the tokenizers library raises this class itself
        raise ExportError(f"{path}: not a readable tokenizer: {error}") from error


def _from_vocabulary(path: Path, config: dict[str, Any]) -> Tokenizer:
    """Build BERT's WordPiece tokenizer as transformers does."""
    if config["tokenizer_class"] not in BERT_CLASSES:
        raise ExportError(f"{path}: a {config['tokenizer_class']} cannot be built from it; {SAVE_IT}")
    try:
        # Not `splitlines`, which also breaks at characters that are tokens themselves, U+2028 for one.
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ExportError(f"{path}: {error}") from error
    vocabulary = {token.rstrip(): number for number, token in enumerate(lines)}
    special = {role: _text(config.get(role) or token) for role, token in SPECIAL_TOKENS.items()}
    for role in ("unk_token", "sep_token", "cls_token"):
        if special[role] not in vocabulary:
            raise ExportError(f"{path}: the {role} {special[role]} is not in it")
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=special["unk_token"]))
    tokenizer.add_special_tokens([token for token in special.values() if token in vocabulary])
    tokenizer.normalizer = normalizers.BertNormalizer(clean_text=True, **_normalizer_options(config))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    cls, sep = special["cls_token"], special["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(token, vocabulary[token]) for token in (cls, sep)],
    )
    return tokenizer


def _normalizer_options(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "lowercase": bool(config.get("do_lower_case", True)),
        "strip_accents": config.get("strip_accents"),
        "handle_chinese_chars": bool(config.get("tokenize_chinese_chars", True)),
    }


def _text(token: str | dict[str, Any]) -> str:
    # A special token is written as its text, or as an object with the text and the way it is matched.
    return str(token.get("content")) if isinstance(token, dict) else str(token)


def _check_ids(tokenizer: Tokenizer, network: Network, path: Path) -> None:
    count = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if count > network.vocab_size:
        raise ExportError(f"{path}: ids up to {count - 1}, but config.json has vocab_size {network.vocab_size}")
    if count < network.vocab_size:
        logger.warning(
            "%s has %d tokens, config.json vocab_size %d; the rest is never used", path, count, network.vocab_size
        )


def _check_frame(tokenizer: Tokenizer, path: Path) -> None:
    empty, single, pair = (_encode(tokenizer, path, *texts) for texts in ([""], ["a"], ["a", "a"]))
    if len(empty) != 2 or len(single) < 3 or not (single.special_tokens_mask[0] and single.special_tokens_mask[-1]):
        raise ExportError(f"{path}: a text is not framed by two special tokens, as in [CLS] text [SEP]")
    if sum(pair.special_tokens_mask) < 3:
        raise ExportError(f"{path}: a pair is not framed by special tokens, as in [CLS] first [SEP] second [SEP]")


def _with_known_types(tokenizer: Tokenizer, network: Network, path: Path) -> Tokenizer:
    """Where the network does not tell the second text of a pair from the first, let the tokenizer not do so either."""
    if max(_encode(tokenizer, path, "a", "a").type_ids) < max(1, network.type_vocab_size):
        return tokenizer
    content = json.loads(tokenizer.to_str())
    for piece in content["post_processor"].get("pair", []):
        next(iter(piece.values()))["type_id"] = 0
    tokenizer = Tokenizer.from_str(json.dumps(content))
    if max(_encode(tokenizer, path, "a", "a").type_ids) >= max(1, network.type_vocab_size):
        raise ExportError(f"{path}: type ids beyond config.json's type_vocab_size {network.type_vocab_size}")
    return tokenizer


def _encode(tokenizer: Tokenizer, path: Path, text: str, pair: str | None = None) -> Encoding:
    try:
        return tokenizer.encode(text, pair)
    except Exception as error:
        raise ExportError(f"{path}: cannot tokenize: {error}") from error

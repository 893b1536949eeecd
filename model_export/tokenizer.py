"""The artifact's tokenizer: the one that transformers makes of the checkpoint, without its truncation and padding."""

import gc
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, processors

from berth.artifact import TokenizerFacts
from berth.types import Frame
from model_export.auto_tokenizer import load_tokenizer, version
from model_export.checkpoint import Checkpoint
from model_export.errors import ExportError
from model_export.frame import read_frame
from model_export.network import Network
from model_export.samples import GOLDEN_TEXTS
from model_export.token_comparison import compare, sample_inputs, tokens_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadTokenizer:
    """A checkpoint's tokenizer, as the artifact has it."""

    tokenizer: Tokenizer
    frame: Frame
    facts: TokenizerFacts


def read_tokenizer(
    checkpoint: Checkpoint, network: Network, lower_case: bool, tokenizer_class: str | None = None
) -> ReadTokenizer:
    """Have transformers read the tokenizer, and see to it that the artifact's gives the same and fits the network.

    With `lower_case` it lower-cases texts before anything else, as sentence-transformers' own setting asks for.
    `tokenizer_class` names the class in transformers where no file of the checkpoint does. Raises `ExportError`.
    """
    theirs, path = load_tokenizer(checkpoint, tokenizer_class)
    if rate := getattr(theirs.backend_tokenizer.model, "dropout", None):
        raise ExportError(f"{path}: the model's dropout {rate} would make a text's tokens a matter of chance")
    if lower_case:
        _lower_case(theirs.backend_tokenizer)
    facts = TokenizerFacts(
        kind=type(theirs).__name__, transformers_version=version(), truncation_side=theirs.truncation_side
    )
    tells_types = "token_type_ids" in theirs.model_input_names and network.type_vocab_size > 1
    try:
        inputs = sample_inputs(theirs.backend_tokenizer)
        expected = tokens_of(theirs, inputs, tells_types)
        frame = read_frame(theirs.backend_tokenizer, theirs.cls_token_id, path)
        saved = _saved(theirs.backend_tokenizer, frame, tells_types)
        del theirs  # of 250,000 tokens it takes 500 MiB, and so does the next one
        gc.collect()
        tokenizer = Tokenizer.from_str(saved)
        _check_types(tokenizer, network, path)
        _check_ids(tokenizer, network, path)
        compare(tokenizer, inputs, expected, path)
    except (ExportError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the tokenizers library raises bare Exceptions, and panics
        raise ExportError(f"{path}: cannot tokenize: {error}") from error
    return ReadTokenizer(tokenizer, frame, facts)


def _saved(tokenizer: Tokenizer, frame: Frame, tells_types: bool) -> str:
    """Give the JSON of a tokenizer that neither truncates nor pads; all types are 0 where the model is given none."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if not tells_types and _types(tokenizer) != {0}:
        tokenizer.post_processor = _without_types(tokenizer, frame)
    return tokenizer.to_str()


def _lower_case(backend: Tokenizer) -> None:
    present = backend.normalizer
    steps: list[normalizers.Normalizer] = [present] if present else []
    if isinstance(present, normalizers.Sequence):
        steps = [present[place] for place in range(len(present))]
    if not any(isinstance(step, normalizers.Lowercase) for step in steps):
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])


def _types(tokenizer: Tokenizer) -> set[int]:
    return {
        type_ for text in GOLDEN_TEXTS for pair in ((), (text,)) for type_ in tokenizer.encode(text, *pair).type_ids
    }


def _without_types(tokenizer: Tokenizer, frame: Frame) -> processors.PostProcessor:
    """Make a post-processor of the same frame in which all tokens are of type 0; byte-level offsets stay trimmed."""
    tokens = {id_: tokenizer.id_to_token(id_) for id_ in (*frame.before, *frame.between, *frame.after)}
    before, between, after = (
        [{"SpecialToken": {"id": tokens[id_], "type_id": 0}} for id_ in part]
        for part in (frame.before, frame.between, frame.after)
    )
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    template = {
        "type": "TemplateProcessing",
        "single": [*before, first, *after],
        "pair": [*before, first, *between, second, *after],
        "special_tokens": {token: {"id": token, "ids": [id_], "tokens": [token]} for id_, token in tokens.items()},
    }
    shell = Tokenizer(models.BPE())  # whose JSON is the post-processor's and little more
    if tokenizer.post_processor is not None:
        shell.post_processor = tokenizer.post_processor
    content = json.loads(shell.to_str())
    present = content["post_processor"] or {}
    trimming = [step for step in present.get("processors", [present]) if step.get("type") == "ByteLevel"]
    content["post_processor"] = {"type": "Sequence", "processors": [*trimming, template]}
    made: processors.PostProcessor = Tokenizer.from_str(json.dumps(content)).post_processor
    return made


def _check_types(tokenizer: Tokenizer, network: Network, path: Path) -> None:
    if (largest := max(_types(tokenizer))) >= max(network.type_vocab_size, 1):
        raise ExportError(
            f"{path}: type ids up to {largest}, but config.json has type_vocab_size {network.type_vocab_size}"
        )


def _check_ids(tokenizer: Tokenizer, network: Network, path: Path) -> None:
    """Raise where a text may have an id that the network has no row for, if not by an added token's own name."""
    added = {token.content: id_ for id_, token in tokenizer.get_added_tokens_decoder().items()}
    # Of an empty line in vocab.txt transformers makes a token; no text has it.
    words = [id_ for token, id_ in tokenizer.get_vocab(with_added_tokens=False).items() if token and token not in added]
    given = [id_ for text in GOLDEN_TEXTS for id_ in tokenizer.encode(text).ids]
    largest, size = max([*words, *given]), network.vocab_size
    if largest >= size:
        raise ExportError(f"{path}: ids up to {largest}, but config.json has vocab_size {size}")
    if beyond := [token for token, id_ in added.items() if id_ >= size]:
        logger.warning(
            "%s: config.json's vocab_size %d leaves no row to %s; a text that has one is refused",
            path,
            size,
            ", ".join(beyond),
        )
    elif (count := 1 + max(largest, *added.values(), -1)) < size:
        logger.warning("%s has %d tokens, config.json vocab_size %d; the rest is never used", path, count, size)

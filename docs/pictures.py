"""Draws the pictures of features.md from a running service and prints the figures of its tables.

    pip install matplotlib          # needed here and nowhere else
    python docs/pictures.py http://127.0.0.1:8080 --data FOLDER

FOLDER holds the STS Benchmark (Cer et al. 2017) as `stsbenchmark.tsv.gz`: tab-separated, without quoting, with a header
and among its columns split, score, sentence1 and sentence2.
"""

import argparse
import csv
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

import berth

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Span = tuple[int, int]
Cut = Literal["end", "start", "middle"]
Type = Literal["float32", "float16", "int8", "binary"]

OUT = Path(__file__).parent / "pictures"
DARK, LIGHT, FRAME = "#0072B2", "#A6CDE6", "#D55E00"  # Okabe and Ito's, which the colour-blind can tell apart

SOURCE, TARGET = "Where can I moor my boat?", "Ships tie up at the berth in the harbour."
LONG_TEXT = "the ship lies at the dock in the harbour . " * 60
STRIDE = 128

LOOKS = {
    "mean": (DARK, "o", "-"),
    "weighted_mean": ("#E69F00", "D", "--"),
    "max": ("#009E73", "s", "-"),
    "cls": (FRAME, "v", "-"),
    "last": ("#CC79A7", "^", "--"),
}
"""The poolings of the sweep: colour, marker and line."""
MERGES = ("mean", "concat")
MERGED = 4
"""Layers from the last that the sweep merges."""
PAIRS_AT_ONCE = 128


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description="Draw the pictures of features.md from a running service.")
    parser.add_argument("url", help="address of the service, as in http://127.0.0.1:8080")
    parser.add_argument("--data", type=Path, required=True, help="folder with stsbenchmark.tsv.gz")
    arguments = parser.parse_args()
    mpl.use("Agg")
    plt.rcParams.update({"savefig.dpi": 150, "savefig.facecolor": "white", "savefig.bbox": "tight", "font.size": 10})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    OUT.mkdir(exist_ok=True)
    with berth.Client(arguments.url) as client:
        info = client.info()
        draw_tokens(client)
        draw_windows(client, info["max_input_length"])
        human, sentences = read_pairs(arguments.data / "stsbenchmark.tsv.gz")
        types = [(kind, *of_type(client, kind, human, sentences)) for kind in get_args(Type)]
        figures = sweep(client, info["layers"], human, sentences)
    model = f"{info['model_id']}, {info['precision']} on {info['target']}"
    draw_sweep(figures, info["layers"], model)
    print(f"{model}, {len(human)} pairs\n")
    print_table(figures, info["layers"])
    print()
    for kind, size, figure in types:
        print(f"| `{kind}` | {size} | {figure:.2f} |")


def draw_tokens(client: berth.Client) -> None:
    """Draw the cosines of two sentences' tokens, each row's best framed: their sum is MaxSim."""
    answer = client.similarity(SOURCE, TARGET, granularity="token")
    scores: Floats = answer["scores"]
    rows, columns = ([token["text"] for token in answer[side]] for side in ("source_tokens", "target_tokens"))
    figure, axes = plt.subplots(figsize=(8, 5))
    image = axes.imshow(scores, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    for (row, column), score in np.ndenumerate(scores):
        colour = "white" if score > 0.55 else "black"
        axes.text(column, row, f"{score:.2f}", ha="center", va="center", color=colour, fontsize=8.5)
    for row, column in enumerate(scores.argmax(axis=1)):
        square = (column - 0.46, row - 0.46)
        axes.add_patch(Rectangle(square, 0.92, 0.92, fill=False, edgecolor=FRAME, linewidth=2.5))
    figure.colorbar(image, ax=axes, label="cosine", shrink=0.8)
    axes.set_xlabel(f"framed: the best of each row; their sum is max_sim, {answer['max_sim']:.2f}", labelpad=8)
    save(figure, "tokens.png")


def draw_windows(client: berth.Client, max_tokens: int) -> None:
    """Draw which tokens of a long text each way to truncate reads, and how many the encoder reads for it."""
    (tokens,) = client.tokenize(LONG_TEXT, add_special_tokens=False)
    starts = [int(token["start"]) for token in tokens]
    figure, axes = plt.subplots(figsize=(8.6, 4.2))
    names: dict[float, str] = {}
    costs = []
    line = 0.0
    for cut in get_args(Cut):
        kept = read_places(client, cut, starts)
        draw_places(axes, line, kept, DARK)
        names[line] = f'"{cut}"'
        costs.append(int(kept.sum()) + 2)
        line += 1.4
    for stride in (max_tokens - 2, STRIDE):
        truncate = {"window": max_tokens, "stride": stride}
        spans = spans_of(len(starts), max_tokens - 2, stride)
        read = 0
        for (first, last), given in zip(spans, given_places(client, truncate, starts, spans), strict=True):
            draw_places(axes, line, np.isin(np.arange(len(starts)), np.arange(first, last)), LIGHT)
            draw_places(axes, line, given, DARK)
            colour = "white" if given[last - 1] else "black"
            axes.text(last - 5, line, f"{last - read} new", ha="right", va="center", fontsize=8.5, color=colour)
            read = last
            line += 1
        names[line - (len(spans) + 1) / 2] = f'{{"window": {max_tokens},\n "stride": {stride}}}'
        costs.append(sum(last - first + 2 for first, last in spans))
        line += 0.4
    for place, cost in zip(names, costs, strict=True):
        axes.text(len(starts) * 1.02, place, f"{cost} tokens", va="center")
    axes.set_yticks(list(names), list(names.values()), family="monospace")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set(xlim=(0, len(starts)), ylim=(line - 0.8, -0.6), xlabel=f"place in a text of {len(starts)} tokens")
    axes.text(len(starts) * 1.02, -0.9, "encoded:", va="center", color="0.35")
    keys = [Patch(color=DARK, label="read, token vectors from here"), Patch(color=LIGHT, label="read")]
    axes.legend(handles=keys, ncols=2, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    save(figure, "windows.png")


def draw_places(axes: Any, line: float, places: Mask, colour: str) -> None:
    """Draw a bar for each run of places."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], places, [False]]).astype(int)))
    bars = [(first, last - first) for first, last in edges.reshape(-1, 2)]
    axes.broken_barh(bars, (line - 0.4, 0.8), facecolors=colour)


def read_places(client: berth.Client, cut: Cut, starts: Sequence[int]) -> Mask:
    """Ask which of the long text's tokens are read; `starts` is where each of them begins."""
    (item,) = answers(client.features([LONG_TEXT], [{"pooling": "cls"}], truncate=cut, include_tokens=True))
    return np.isin(starts, [token["start"] for token in item.tokens or () if not token["special"]])


def spans_of(count: int, room: int, stride: int) -> list[Span]:
    """Give the first place and the place past the last of each window; `given_places` finds out if they are these."""
    starts = range(0, max(count - room, 0) + stride, stride)
    return [(start, min(start + room, count)) for start in starts]


def given_places(client: berth.Client, truncate: Any, starts: Sequence[int], spans: Sequence[Span]) -> list[Mask]:
    """Say for each window whose token vectors the text's are, by encoding each window as a text of its own."""
    ends = [*starts[1:], len(LONG_TEXT)]
    windows = [LONG_TEXT[starts[first] : ends[last - 1]] for first, last in spans]
    tokens = [{"pooling": "none", "exclude_special": True}]
    whole = answers(client.features([LONG_TEXT], tokens, truncate=truncate))[0].features[0]
    masks = []
    for (first, last), own in zip(spans, answers(client.features(windows, tokens)), strict=True):
        mask = np.zeros(len(starts), dtype=bool)
        mask[first:last] = np.abs(whole[first:last] - own.features[0]).max(axis=1) < 1e-4
        masks.append(mask)
    assert np.all(np.sum(masks, axis=0) == 1), "each token's vector is that of one window"
    return masks


def read_pairs(path: Path) -> tuple[Floats, list[str]]:
    """Read the test pairs: people's scores, and the sentences, each pair's two one after the other."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row["split"] == "test"]
    sentences = [row[column] for row in rows for column in ("sentence1", "sentence2")]
    return np.array([float(row["score"]) for row in rows]), sentences


def sweep(client: berth.Client, layers: int, human: Floats, sentences: list[str]) -> dict[tuple[str, str], float]:
    """Give for each pooling and each layer, or merge of layers, the Spearman x 100 of the cosines and the scores."""
    choices: dict[str, dict[str, Any]] = {str(layer): {"layers": [layer]} for layer in range(layers + 1)}
    choices |= {merge: {"layers": list(range(-MERGED, 0)), "merge": merge} for merge in MERGES}
    wanted = [(pooling, name) for pooling in LOOKS for name in choices]
    features = [{"pooling": pooling, **choices[name]} for pooling, name in wanted]
    cosines = []
    for start in range(0, len(sentences), 2 * PAIRS_AT_ONCE):
        items = answers(client.features(sentences[start : start + 2 * PAIRS_AT_ONCE], features))
        for first, second in zip(items[::2], items[1::2], strict=True):
            cosines.append([cosine(*vectors) for vectors in zip(first.features, second.features, strict=True)])
    return {key: spearman(column, human) for key, column in zip(wanted, np.array(cosines).T, strict=True)}


def of_type(client: berth.Client, kind: Type, human: Floats, sentences: list[str]) -> tuple[int, float]:
    """Give the bytes of a vector of a type and the Spearman x 100 of the cosines, signs for `binary`."""
    vectors = client.embed(sentences, embedding_type=kind)
    size = vectors[0].nbytes
    if kind == "binary":
        bits = (vectors.astype(np.int16) + 128).astype(np.uint8)
        vectors = np.unpackbits(bits, axis=1).astype(np.float32) * 2 - 1
    cosines = [cosine(*pair) for pair in zip(vectors[::2], vectors[1::2], strict=True)]
    return size, spearman(np.array(cosines), human)


def cosine(first: Floats, second: Floats) -> float:
    """Compute in float64, for the [CLS] vectors of low layers are nearly the same for all texts."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def spearman(cosines: Floats, human: Floats) -> float:
    """Give the rank correlation x 100, or NaN where the cosines are the same for all pairs."""
    if np.ptp(cosines) < 1e-12:
        return float("nan")
    return 100 * float(np.corrcoef(ranks(cosines), ranks(human))[0, 1])


def ranks(values: Floats) -> Floats:
    """Give each value its rank, equal ones the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[places])


def draw_sweep(figures: dict[tuple[str, str], float], layers: int, model: str) -> None:
    """Draw a line a pooling over the layers, and beside it the merges."""
    figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(8.6, 4.6), width_ratios=(4, 1.3))
    for dodge, (pooling, (colour, marker, line)) in zip(np.linspace(-0.2, 0.2, len(LOOKS)), LOOKS.items(), strict=True):
        look = {"color": colour, "marker": marker, "linestyle": line, "markersize": 7, "markeredgecolor": "white"}
        left.plot(
            range(layers + 1), [figures[pooling, str(layer)] for layer in range(layers + 1)], label=pooling, **look
        )
        look["linestyle"] = "none"
        right.plot(np.arange(len(MERGES)) + dodge, [figures[pooling, merge] for merge in MERGES], **look)
    left.set(xlabel="layer (0: the embeddings)", ylabel="Spearman x 100", xticks=range(layers + 1))
    left.set_ylim(min(0, np.nanmin(list(figures.values())) - 5), max(90, np.nanmax(list(figures.values())) + 5))
    left.set_title(f"STS Benchmark, test\n{model}", loc="left", fontsize=10)
    best = max(figures[pooling, str(layers)] for pooling in LOOKS)
    left.annotate(f"{best:.2f}", (layers, best), xytext=(0, 8), textcoords="offset points", ha="center", weight="bold")
    left.legend(frameon=False, loc="lower right")
    right.set_title(f"last {MERGED} layers", loc="left", fontsize=10)
    right.set(xlabel="merge", xticks=range(len(MERGES)), xlim=(-0.6, len(MERGES) - 0.4))
    right.set_xticklabels(MERGES)
    for axes in (left, right):
        axes.grid(axis="y", color="0.88")
        axes.set_axisbelow(True)
    save(figure, "layers.png")


def print_table(figures: dict[tuple[str, str], float], layers: int) -> None:
    """Print the sweep as a Markdown table."""
    names = [*map(str, range(layers + 1)), *MERGES]
    heads = [*map(str, range(layers + 1)), *(f"last {MERGED}, {merge}" for merge in MERGES)]
    print("| pooling |", " | ".join(heads), "|")
    print("|---" * (len(names) + 1) + "|")
    best = max(figure for figure in figures.values() if not np.isnan(figure))
    for pooling in LOOKS:
        row = [figures[pooling, name] for name in names]
        cells = ["-" if np.isnan(cell) else f"**{cell:.2f}**" if cell == best else f"{cell:.2f}" for cell in row]
        print(f"| `{pooling}` |", " | ".join(cells), "|")


def answers(items: list[berth.Features | berth.ServiceError]) -> list[berth.Features]:
    """Narrow a reply's items to what they are where errors are not reported."""
    return [item for item in items if isinstance(item, berth.Features)]


def save(figure: Any, name: str) -> None:
    """Write a picture."""
    figure.savefig(OUT / name)
    plt.close(figure)


if __name__ == "__main__":
    main()

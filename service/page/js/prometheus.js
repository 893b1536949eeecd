// Prometheus' text format, read, and what two scrapes of it tell together.

/** @typedef {{labels: Record<string, string>, value: number}} Sample */
/** @typedef {Map<string, Sample[]>} Scrape samples by name */

const LINE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: \d+)?$/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/**
 * Read an exposition.
 * @param {string} text
 * @returns {Scrape}
 */
export function parse(text) {
  /** @type {Scrape} */
  const scrape = new Map();
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (!found) continue;
    const labels = Object.fromEntries(
      Array.from((found[2] ?? "").matchAll(LABEL), ([, name, value]) => [name, unescaped(value)]),
    );
    const samples = scrape.get(found[1]) ?? [];
    samples.push({ labels, value: number(found[3]) });
    scrape.set(found[1], samples);
  }
  return scrape;
}

/**
 * Add up a metric's samples that fit.
 * @param {Scrape} scrape
 * @param {string} name
 * @param {(labels: Record<string, string>) => boolean} [fits]
 */
export function total(scrape, name, fits = () => true) {
  const samples = scrape.get(name) ?? [];
  return samples.reduce((sum, { labels, value }) => (fits(labels) ? sum + value : sum), 0);
}

/**
 * Give a quantile of what a histogram was told between two scrapes, as `histogram_quantile` does: straight between a
 * bucket's bounds. Null where it was told nothing.
 * @param {Scrape} before
 * @param {Scrape} now
 * @param {string} name
 * @param {number} q
 * @param {(labels: Record<string, string>) => boolean} [fits]
 * @returns {number | null}
 */
export function quantile(before, now, name, q, fits) {
  const buckets = bucketsBetween(before, now, `${name}_bucket`, fits);
  const count = buckets.at(-1)?.count ?? 0;
  if (count <= 0) return null;
  const rank = q * count;
  const index = buckets.findIndex((bucket) => bucket.count >= rank);
  const below = index > 0 ? buckets[index - 1] : { bound: 0, count: 0 };
  const { bound, count: upTo } = buckets[index];
  if (bound === Infinity) return below.bound;
  return upTo === below.count
    ? bound
    : below.bound + ((bound - below.bound) * (rank - below.count)) / (upTo - below.count);
}

/**
 * @param {Scrape} before
 * @param {Scrape} now
 * @param {string} name
 * @param {(labels: Record<string, string>) => boolean} [fits]
 */
function bucketsBetween(before, now, name, fits = () => true) {
  /** @type {Map<number, number>} */
  const counts = new Map();
  for (const [scrape, sign] of /** @type {const} */ ([
    [now, 1],
    [before, -1],
  ])) {
    for (const { labels, value } of scrape.get(name) ?? []) {
      const bound = number(labels.le);
      if (fits(labels)) counts.set(bound, (counts.get(bound) ?? 0) + sign * value);
    }
  }
  return Array.from(counts, ([bound, count]) => ({ bound, count })).sort((one, other) => one.bound - other.bound);
}

/** @param {string} spelled */
function number(spelled) {
  return spelled === "+Inf" ? Infinity : spelled === "-Inf" ? -Infinity : Number(spelled);
}

/** @param {string} value */
function unescaped(value) {
  return value.replace(/\\(.)/g, (_, letter) => (letter === "n" ? "\n" : letter));
}

// What the live view shows, computed from scrapes of /metrics. What a metric tells: docs/metrics.md.

import { quantile, total } from "./prometheus.js";

/** @typedef {import("./prometheus.js").Scrape} Scrape */
/** @typedef {{time: number, scrape: Scrape}} Reading `time` in seconds */
/** @typedef {Record<string, number | null>} Figures */

/**
 * Routes that are no work: this page's own polls among them, which would be all there is at an idle service. GET / is
 * counted, for it shares its route with text-embeddings-inference's POST /.
 */
const UNCOUNTED = /^\/(page\/|metrics|info|health|docs|openapi|static-offline-docs)/;
/** Parts of a request that is answered with vectors. */
const STAGES = ["tokenize", "queue", "encode"];
const QUANTILES = [
  ["p50", 0.5],
  ["p95", 0.95],
  ["p99", 0.99],
];

/**
 * Compute all figures of the moment of the last reading.
 * @param {Reading} now
 * @param {Reading} before the reading before it: rates are between these two
 * @param {Reading} earlier one some seconds older: quantiles are between this and the last
 * @param {number | null} budget tokens of a full batch
 * @returns {Figures}
 */
export function figuresOf(now, before, earlier, budget) {
  const seconds = now.time - before.time;
  /** @param {string} name @param {(labels: Record<string, string>) => boolean} [fits] */
  const grown = (name, fits) => total(now.scrape, name, fits) - total(before.scrape, name, fits);
  /** @param {string} name @param {(labels: Record<string, string>) => boolean} [fits] */
  const rate = (name, fits) => grown(name, fits) / seconds;
  const batches = grown("berth_batch_tokens_count");
  const perBatch = batches ? grown("berth_batch_tokens_sum") / batches : null;
  return {
    requests: rate("berth_requests_total", counted),
    texts: rate("berth_texts_total"),
    tokens: rate("berth_tokens_total"),
    ...latencies(earlier.scrape, now.scrape),
    waiting: total(now.scrape, "berth_queue_tokens"),
    waitingUnits: total(now.scrape, "berth_queue_units"),
    // This poll is being answered while it counts.
    inFlight: Math.max(0, total(now.scrape, "berth_requests_in_flight") - 1),
    batches: batches / seconds,
    fill: perBatch !== null && budget ? perBatch / budget : null,
    rejected: rate("berth_rejected_requests_total"),
    // A start's 503 on /health/ready, for which this page asks too, is no error.
    failed: rate("berth_requests_total", ({ route, status }) => status.startsWith("5") && !route.startsWith("/health")),
    encoderErrors: rate("berth_encoder_errors_total"),
    memory: total(now.scrape, "process_resident_memory_bytes"),
    cores: rate("process_cpu_seconds_total"),
  };
}

/**
 * Say for each route what it did between two readings, the busiest first.
 * @param {Reading} before
 * @param {Reading} now
 */
export function routesOf(before, now) {
  const name = "berth_requests_total";
  const routes = new Set((now.scrape.get(name) ?? []).map(({ labels }) => labels.route));
  return [...routes]
    .filter((route) => counted({ route }))
    .map((route) => {
      const fits = (/** @type {Record<string, string>} */ labels) => labels.route === route;
      const requests = total(now.scrape, name, fits) - total(before.scrape, name, fits);
      return {
        route,
        rate: requests / (now.time - before.time),
        ...quantiles("", before.scrape, now.scrape, "berth_request_seconds", fits),
      };
    })
    .filter(({ rate }) => rate > 0)
    .sort((one, other) => other.rate - one.rate);
}

/**
 * Count the requests that were turned away since the service started, by reason.
 * @param {Scrape} scrape
 */
export function rejectionsOf(scrape) {
  const samples = scrape.get("berth_rejected_requests_total") ?? [];
  const reasons = samples.map(({ labels, value }) => ({ reason: labels.reason, count: value }));
  return reasons.filter(({ count }) => count > 0).sort((one, other) => other.count - one.count);
}

/**
 * @param {Scrape} before
 * @param {Scrape} now
 * @returns {Figures}
 */
function latencies(before, now) {
  const stages = STAGES.map((stage) =>
    quantiles(stage, before, now, "berth_stage_seconds", (labels) => labels.stage === stage),
  );
  const whole = quantiles("total", before, now, "berth_request_seconds", counted);
  return Object.assign({}, ...stages, whole);
}

/**
 * @param {string} prefix
 * @param {Scrape} before
 * @param {Scrape} now
 * @param {string} name
 * @param {(labels: Record<string, string>) => boolean} fits
 * @returns {Figures}
 */
function quantiles(prefix, before, now, name, fits) {
  return Object.fromEntries(
    QUANTILES.map(([label, q]) => [`${prefix}${label}`, quantile(before, now, name, Number(q), fits)]),
  );
}

/** @param {Record<string, string>} labels */
function counted({ route }) {
  return !UNCOUNTED.test(route);
}

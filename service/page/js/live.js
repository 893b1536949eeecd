// The view of the service's state: charts of its metrics, its routes, its model and settings.

import { ApiError } from "./api.js";
import { CARDS } from "./cards.js";
import { Chart } from "./chart.js";
import { find, make } from "./dom.js";
import { rejectionsOf, routesOf } from "./figures.js";
import { askForKey, keyEvents } from "./key.js";
import { total } from "./prometheus.js";
import { SPAN, Scraper } from "./scraper.js";
import { bytes, duration, plain, seconds } from "./spell.js";

/** Why there is nothing to show, in plain words. @type {Record<number, string>} */
const REASONS = {
  0: "The service does not answer.",
  401: "The metrics need an API key.",
  403: "The metrics are closed to this key.",
  404: "The metrics are not served here: they may have a port of their own. The charts need them at /metrics.",
};

/**
 * Make the view work.
 * @param {() => any} info the service's `/info`, once it is there
 */
export function startLive(info) {
  const groups = Object.entries(CARDS).map(([group, cards]) => {
    const charts = cards.map((card) => new Chart(card, SPAN));
    find(`live-${group}`).append(...charts.map((chart) => chart.element));
    return charts;
  });
  const charts = groups.flat();
  const scraper = new Scraper((error) => {
    tellState(scraper, error);
    show();
  });
  scraper.budget = () => info()?.max_batch_tokens ?? null;

  const show = () => {
    if (find("panel-live").hidden) return;
    for (const chart of charts) chart.show(scraper.times, scraper.figures);
    if (scraper.readings.length > 1 && scraper.last) {
      fillRoutes(routesOf(scraper.minuteAgo, scraper.last));
      fillRejections(rejectionsOf(scraper.last.scrape));
    }
  };

  find("live-pause").addEventListener("click", () => {
    scraper.pause(!scraper.paused);
    find("live-pause").setAttribute("aria-pressed", String(scraper.paused));
  });
  find("live-key").addEventListener("click", askForKey);
  keyEvents.addEventListener("change", () => scraper.now());
  document.addEventListener("themechange", () => charts.forEach((chart) => chart.recolour()));
  new ResizeObserver(() => charts.forEach((chart) => chart.fit())).observe(find("panel-live"));
  scraper.now();
  return { show };
}

/**
 * Show the model and the settings.
 * @param {any} info
 */
export function fillInfo(info) {
  const rows = {
    Model: info.model_id,
    Source: info.source,
    Family: `${info.family}, ${info.layers} layers of ${info.hidden_size}`,
    Runs: `${info.precision} on ${info.target}`,
    Pooling: pooling(info),
    Vectors: `of ${info.width} numbers`,
    Similarity: info.similarity,
    "Longest text": `${info.max_input_length} tokens; more is cut`,
    "A full batch": info.max_batch_tokens ? `${plain(info.max_batch_tokens)} tokens` : "being found",
    "Queue holds": `${plain(info.max_queue_tokens)} tokens`,
    "A request holds": `${plain(info.max_client_batch_size)} texts, ${bytes(info.max_body_bytes)}`,
    "A request takes at most": seconds(info.request_timeout),
    Prompts: info.prompts.join(", ") || "none",
    Berth: info.version,
  };
  const pairs = Object.entries(rows).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]);
  find("live-info").replaceChildren(...pairs);
}

/**
 * Say how a text's vector is made of its tokens'.
 * @param {any} info
 */
function pooling(info) {
  const parts = [[info.model_type.embedding.pooling, ...info.further_poolings].join(" + ")];
  if (!info.include_prompt) parts.push("without the prompt");
  const dense = info.projection.filter((/** @type {any} */ layer) => layer.kind === "dense");
  if (dense.length) parts.push(`projected to ${dense[dense.length - 1].outputs}`);
  if (info.normalize) parts.push("normalised");
  if (info.truncate_dim) parts.push(`cut to ${info.truncate_dim}`);
  return parts.join(", ");
}

/**
 * @param {Scraper} scraper
 * @param {ApiError | null} error
 */
function tellState(scraper, error) {
  const ready = !error && scraper.last && total(scraper.last.scrape, "berth_ready") > 0;
  const state = ready ? "ready" : error ? (error.status ? "no metrics" : "no answer") : "not ready";
  find("state").dataset.state = state.replace(" ", "-");
  find("state-text").textContent = state;
  find("live-problem").hidden = !error;
  find("live-problem-text").textContent = error ? (REASONS[error.status] ?? error.message) : "";
  find("live-key").hidden = error?.status !== 401;
  if (!scraper.last || error) return;
  const { scrape } = scraper.last;
  const uptime = Date.now() / 1e3 - total(scrape, "process_start_time_seconds");
  const workers = total(scrape, "berth_ready");
  find("live-uptime").textContent = `Up ${duration(Math.max(0, uptime))}${workers > 1 ? ` · ${workers} workers` : ""}`;
}

/** @param {ReturnType<typeof routesOf>} routes */
function fillRoutes(routes) {
  const rows = routes.map((route) => {
    const times = ["p50", "p95", "p99"].map((q) => make("td", {}, spelled(Reflect.get(route, q))));
    return make("tr", {}, make("th", { scope: "row" }, route.route), make("td", {}, plain(route.rate)), ...times);
  });
  find("live-routes").replaceChildren(...rows);
  find("live-no-routes").hidden = rows.length > 0;
}

/** @param {ReturnType<typeof rejectionsOf>} rejections */
function fillRejections(rejections) {
  const rows = rejections.map(({ reason, count }) =>
    make("tr", {}, make("th", { scope: "row" }, reason.replaceAll("_", " ")), make("td", {}, plain(count))),
  );
  find("live-rejections").replaceChildren(...rows);
  find("live-no-rejections").hidden = rows.length > 0;
}

/** @param {number | null} value */
function spelled(value) {
  return value === null ? "–" : seconds(value);
}

// Reads /metrics again and again, as long as somebody looks, and keeps the last minutes.

import { ApiError, read } from "./api.js";
import { figuresOf } from "./figures.js";
import { parse, total } from "./prometheus.js";

export const SPAN = 300;
const EVERY = 2;
/** Readings between the two whose difference gives quantiles, and a minute's worth, which gives the routes' figures. */
const SOME = 5;
const MINUTE = 30;
/** Statuses that another try does not change: each would be one more line in the service's log. */
const LASTING = [401, 403, 404];

export class Scraper {
  /** @param {(error: ApiError | null) => void} told after each reading */
  constructor(told) {
    this.told = told;
    this.paused = false;
    /** @type {import("./figures.js").Reading[]} */
    this.readings = [];
    /** @type {number[]} */
    this.times = [];
    /** @type {import("./figures.js").Figures[]} */
    this.figures = [];
    /** @type {() => number | null} */
    this.budget = () => null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    document.addEventListener("visibilitychange", () => this.now());
  }

  /** Read now, and from now on; where the metrics are refused, not before somebody looks anew or has another key. */
  async now() {
    clearTimeout(this.timer);
    if (document.hidden || this.paused) return;
    const timer = setTimeout(() => this.now(), EVERY * 1e3);
    this.timer = timer;
    try {
      const scrape = parse(await read("metrics"));
      this.add({ time: performance.now() / 1e3, scrape });
      this.told(null);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (LASTING.includes(error.status)) clearTimeout(timer);
      this.told(error);
    }
  }

  /** @param {boolean} paused */
  pause(paused) {
    this.paused = paused;
    this.now();
  }

  /** @returns {import("./figures.js").Reading | undefined} */
  get last() {
    return this.readings.at(-1);
  }

  /** The reading a minute ago, or the first. */
  get minuteAgo() {
    return this.readings.at(-1 - MINUTE) ?? this.readings[0];
  }

  /** @param {import("./figures.js").Reading} reading */
  add(reading) {
    if (this.last && startOf(this.last) !== startOf(reading)) this.readings = []; // another process: counts begin anew
    this.readings = [...this.readings, reading].slice(-1 - MINUTE);
    if (this.readings.length < 2) return;
    const [before] = this.readings.slice(-2);
    const earlier = this.readings.at(-1 - SOME) ?? this.readings[0];
    const most = SPAN / EVERY;
    this.times = [...this.times, Date.now() / 1e3].slice(-most);
    this.figures = [...this.figures, figuresOf(reading, before, earlier, this.budget())].slice(-most);
  }
}

/** @param {import("./figures.js").Reading} reading */
function startOf({ scrape }) {
  return total(scrape, "process_start_time_seconds");
}

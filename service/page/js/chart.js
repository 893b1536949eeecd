// One card of the live view: a title, the figures of the moment or of the time that is pointed at, and uPlot's curves.

import { make } from "./dom.js";

/** uPlot 1.6, which its file leaves as a global. @type {any} */
const UPlot = Reflect.get(globalThis, "uPlot");
const HEIGHT = 96;
/** Seconds that a chart shows at least. */
const LEAST = 60;
const FONT = "11px system-ui, sans-serif";

export class Chart {
  /**
   * @param {import("./cards.js").Card} card
   * @param {number} span seconds that the chart shows at most
   */
  constructor(card, span) {
    this.card = card;
    this.span = span;
    this.figures = card.series.map((_, index) => make("b", { class: `line-${index}` }, "–"));
    const legend = card.series.map(([, label], index) => make("span", { class: "figure" }, label, this.figures[index]));
    this.frame = make("div", { class: "chart", "aria-hidden": "true" });
    const head = make("h3", {}, card.title);
    this.element = make(
      "article",
      { class: "card" },
      head,
      make("p", { class: "about" }, card.about),
      make("p", { class: "figures" }, ...legend),
      this.frame,
    );
    /** @type {any} */
    this.plot = null;
    /** @type {(number | null)[][]} */
    this.data = [[], ...card.series.map(() => [])];
  }

  /**
   * Show the figures' course.
   * @param {number[]} times in seconds since 1970
   * @param {import("./figures.js").Figures[]} figures one of each time
   */
  show(times, figures) {
    this.data = [times, ...this.card.series.map(([key]) => figures.map((all) => all[key]))];
    if (!this.frame.clientWidth) return;
    this.plot ??= this.make();
    this.plot.setData(this.data);
    this.tell(this.plot.cursor.idx);
  }

  /** Fit the frame's width. */
  fit() {
    if (this.plot && this.frame.clientWidth) this.plot.setSize({ width: this.frame.clientWidth, height: HEIGHT });
  }

  /** Take the theme's colours. */
  recolour() {
    this.plot?.redraw(false);
  }

  /**
   * Spell the figures of one time; of the last where none is pointed at.
   * @param {number | null | undefined} index
   */
  tell(index) {
    this.figures.forEach((figure, series) => {
      const value = this.data[series + 1].at(index ?? -1);
      figure.textContent = value === null || value === undefined ? "–" : this.card.spell(value);
    });
  }

  /**
   * Say from when to when the chart goes: as far back as there is something, at least a minute, at most the span.
   * @param {number} first
   * @param {number} last
   */
  reach(first, last) {
    return [Math.max(last - this.span, Math.min(first, last - LEAST)), last];
  }

  make() {
    const colour = (/** @type {Element} */ element) => getComputedStyle(element).color;
    const axis = { stroke: () => colour(this.frame), font: FONT, ticks: { show: false } };
    const grid = { stroke: () => getComputedStyle(this.frame).borderTopColor, width: 1 };
    const options = {
      width: this.frame.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      padding: [6, 4, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, sync: { key: "live" }, points: { size: 5 } },
      scales: {
        x: {
          range: (/** @type {any} */ _, /** @type {number} */ first, /** @type {number} */ last) =>
            this.reach(first, last),
        },
        y: {
          range: (/** @type {any} */ _, /** @type {number} */ __, /** @type {number} */ most) => [
            0,
            most > 0 ? most * 1.1 : 1,
          ],
        },
      },
      axes: [
        {
          ...axis,
          grid: { show: false },
          size: 20,
          space: 80,
          values: (/** @type {any} */ _, /** @type {number[]} */ marks) => marks.map(clock),
        },
        {
          ...axis,
          grid,
          size: 54,
          space: 28,
          values: (/** @type {any} */ _, /** @type {number[]} */ marks) => marks.map(this.card.spell),
        },
      ],
      series: [
        {},
        ...this.figures.map((figure) => ({ stroke: () => colour(figure), width: 1.5, points: { show: false } })),
      ],
      hooks: { setCursor: [(/** @type {any} */ plot) => this.tell(plot.cursor.idx)] },
    };
    return new UPlot(options, this.data, this.frame);
  }
}

/** @param {number} time in seconds since 1970 */
function clock(time) {
  return new Date(time * 1e3).toLocaleTimeString([], { hour12: false });
}

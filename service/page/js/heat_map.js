// A matrix of scores as a table whose cells are coloured. The colours themselves are the style sheet's.

import { make } from "./dom.js";
import { rove } from "./roving.js";

/**
 * @typedef {object} Matrix
 * @property {string[]} rows
 * @property {string[]} columns
 * @property {string[]} heads what stands above the columns
 * @property {number[][]} scores
 * @property {boolean} framed whether the largest score of each row stands out
 * @property {boolean} symmetric rows are columns too, and the diagonal compares each with itself
 */

/** From white to full, the colours' own range where a score lies between 0 and 1, or -1. */
const UNIT = { low: 0, high: 1 };

/** Shares of the full colour from which the other ink reads better, in the dark theme and in the light one. */
const DEEP = 0.53;
const DEEPER = 0.87;

export class HeatMap {
  /**
   * @param {HTMLElement} frame
   * @param {HTMLElement} readout where the cell that is pointed at is spelled out
   */
  constructor(frame, readout) {
    this.frame = frame;
    this.readout = readout;
  }

  /**
   * @param {Matrix} matrix
   * @param {boolean} stretch spread the colours from the lowest score to the highest
   */
  draw(matrix, stretch) {
    const range = rangeOf(matrix, stretch);
    /** @type {HTMLElement[]} */
    const cells = [];
    const rows = matrix.scores.map((scores, row) => {
      const head = make("th", { scope: "row", title: matrix.rows[row] }, make("span", {}, matrix.rows[row]));
      return make(
        "tr",
        {},
        head,
        ...scores.map((score, column) => {
          const cell = make("td", { role: "gridcell" }, short(score));
          paint(cell, score, range);
          if (matrix.symmetric && row === column) cell.classList.add("self");
          if (matrix.framed && score === Math.max(...scores)) cell.classList.add("best");
          const tell = () => this.tell(score, matrix.rows[row], matrix.columns[column]);
          cell.addEventListener("focus", tell);
          cell.addEventListener("pointerenter", tell);
          cells.push(cell);
          return cell;
        }),
      );
    });
    const heads = matrix.heads.map((head, column) =>
      make("th", { scope: "col", title: matrix.columns[column] }, make("span", {}, head)),
    );
    const table = make(
      "table",
      { class: "heat", role: "grid", "aria-label": "Scores" },
      make("thead", {}, make("tr", {}, make("td"), ...heads)),
      make("tbody", {}, ...rows),
    );
    table.classList.toggle("many", matrix.heads.length > 16);
    this.frame.replaceChildren(table);
    this.readout.textContent = "";
    rove(table, cells, matrix.heads.length);
  }

  /**
   * @param {number} score
   * @param {string} row
   * @param {string} column
   */
  tell(score, row, column) {
    this.readout.replaceChildren(make("b", {}, exact(score)), make("span", {}, row), make("span", {}, column));
  }
}

/**
 * Colour an element by a score: the share of the full colour goes to the style sheet.
 * @param {HTMLElement} element
 * @param {number} score
 * @param {{low: number, high: number}} range
 */
export function paint(element, score, range) {
  const share = (score - range.low) / (range.high - range.low || 1);
  const heat = Math.min(1, Math.abs(share));
  element.style.setProperty("--heat", `${(100 * heat).toFixed(1)}%`);
  element.classList.toggle("deep", heat > DEEP);
  element.classList.toggle("deeper", heat > DEEPER);
  element.classList.toggle("negative", share < 0);
}

/**
 * Give the scores between which the colours go: from 0 to 1, unless they lie outside or are to be spread.
 * @param {{scores: number[][], symmetric: boolean}} matrix
 * @param {boolean} stretch
 */
export function rangeOf({ scores, symmetric }, stretch) {
  let low = Infinity;
  let high = -Infinity;
  scores.forEach((row, i) =>
    row.forEach((score, j) => {
      if (symmetric && i === j) return;
      low = Math.min(low, score);
      high = Math.max(high, score);
    }),
  );
  const isUnit = low >= -1 && high <= 1 + 1e-6;
  return low === Infinity || (isUnit && !stretch) ? UNIT : { low, high };
}

/** @param {number} score */
function short(score) {
  return minus(Math.abs(score) >= 100 ? score.toFixed(0) : Math.abs(score) >= 10 ? score.toFixed(1) : score.toFixed(2));
}

/** @param {number} score */
export function exact(score) {
  return minus(score.toFixed(4));
}

/** Give zero no sign and other negatives a real one. @param {string} digits */
function minus(digits) {
  return Number(digits) === 0 ? digits.replace("-", "") : digits.replace("-", "−");
}

// Points on a plane, drawn as SVG: labelled where there is room, spelled out when pointed at.

import { make, makeSvg } from "./dom.js";
import { rove } from "./roving.js";

const MARGIN = 18;
const RADIUS = 5;
/** The labels' font, and the height of a line of it in pixels. */
const FONT = "11.5px system-ui, sans-serif";
const LINE = 13;
const LONGEST_LABEL = 28;
const LONGEST_TIP = 60;
const COLOURS = 8;

export class Scatter {
  /**
   * @param {HTMLElement} frame
   * @param {HTMLElement} readout
   */
  constructor(frame, readout) {
    this.frame = frame;
    this.readout = readout;
    /** @type {[number, number][]} */
    this.points = [];
    /** @type {string[]} */
    this.texts = [];
    /** @type {number[]} */
    this.groups = [];
    /** @type {number[][]} */
    this.neighbours = [];
    this.width = 0;
  }

  /**
   * @param {[number, number][]} points
   * @param {string[]} texts
   * @param {number[]} groups each point's colour
   * @param {number[][]} neighbours the points that are joined to each when it is pointed at
   */
  draw(points, texts, groups, neighbours) {
    Object.assign(this, { points, texts, groups, neighbours, width: 0 });
    this.readout.textContent = "";
    this.fit();
  }

  /** Draw anew where the frame has another size. */
  fit() {
    const { clientWidth: width, clientHeight: height } = this.frame;
    if (!this.points.length || !width || width === this.width) return;
    this.width = width;
    const places = placed(this.points, width, height);
    const lines = makeSvg("g", { class: "joins" });
    const tip = makeSvg("g", { class: "tip", "aria-hidden": "true" });
    const dots = places.map((place, index) => this.dot(place, index));
    const svg = makeSvg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Map of the lines" });
    svg.append(lines, makeSvg("g", { "aria-hidden": "true" }, ...labels(places, this.texts, width)), ...dots, tip);
    dots.forEach((dot, index) => {
      const point = () => {
        this.point(index, places, dots, lines);
        tip.replaceChildren(tipAt(places[index], this.texts[index], width));
      };
      dot.addEventListener("pointerenter", point);
      dot.addEventListener("focus", point);
    });
    this.frame.replaceChildren(svg);
    rove(svg, dots, 1);
  }

  /**
   * @param {[number, number]} place
   * @param {number} index
   */
  dot([x, y], index) {
    const colour = (this.groups[index] ?? 0) % COLOURS;
    return makeSvg("circle", {
      cx: x,
      cy: y,
      r: RADIUS,
      class: `dot colour-${colour}`,
      role: "img",
      "aria-label": this.texts[index],
    });
  }

  /**
   * Spell a point out and join it to its nearest.
   * @param {number} index
   * @param {[number, number][]} places
   * @param {Element[]} dots
   * @param {Element} lines
   */
  point(index, places, dots, lines) {
    const near = this.neighbours[index];
    const [x, y] = places[index];
    lines.replaceChildren(
      ...near.map((other) => makeSvg("line", { x1: x, y1: y, x2: places[other][0], y2: places[other][1] })),
    );
    dots.forEach((dot, place) => {
      dot.classList.toggle("pointed", place === index);
      dot.classList.toggle("near", near.includes(place));
    });
    const nearTexts = near.map((other) => make("li", {}, this.texts[other]));
    this.readout.replaceChildren(
      make("b", {}, this.texts[index]),
      make("span", {}, "nearest in all dimensions:"),
      make("ol", {}, ...nearTexts),
    );
  }
}

/**
 * Scale points into a frame, alike on both axes, so that distances can be compared.
 * @param {[number, number][]} points
 * @param {number} width
 * @param {number} height
 * @returns {[number, number][]}
 */
function placed(points, width, height) {
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const scale = Math.min((width - 2 * MARGIN) / (right - left || 1), (height - 2 * MARGIN) / (high - low || 1));
  const [across, up] = [(width - scale * (right - left)) / 2, (height - scale * (high - low)) / 2];
  return points.map(([x, y]) => [across + scale * (x - left), height - up - scale * (y - low)]);
}

/**
 * Write as many labels as have room beside their points, and cover no other point or label.
 * @param {[number, number][]} places
 * @param {string[]} texts
 * @param {number} width
 */
function labels(places, texts, width) {
  const taken = places.map(([x, y]) => ({ left: x - RADIUS, right: x + RADIUS, top: y - RADIUS, bottom: y + RADIUS }));
  /** @type {any} */
  const pen = make("canvas").getContext("2d");
  pen.font = FONT;
  /** @type {Element[]} */
  const made = [];
  places.forEach(([x, y], index) => {
    const text = shortened(texts[index], LONGEST_LABEL);
    const length = pen.measureText(text).width;
    for (const left of [x + RADIUS + 3, x - RADIUS - 3 - length]) {
      const box = { left, right: left + length, top: y - LINE / 2, bottom: y + LINE / 2 };
      const inside = box.left >= 0 && box.right <= width;
      if (!inside || taken.some((other, place) => place !== index && overlap(box, other))) continue;
      taken.push(box);
      made.push(makeSvg("text", { x: left, y: y + 4, class: "dot-label" }, text));
      break;
    }
  });
  return made;
}

/**
 * Write a text above its point, towards the side on which there is more room.
 * @param {[number, number]} place
 * @param {string} text
 * @param {number} width
 */
function tipAt([x, y], text, width) {
  const anchor = x < width / 2 ? "start" : "end";
  return makeSvg(
    "text",
    { x, y: y < 2 * MARGIN ? y + 21 : y - 11, "text-anchor": anchor },
    shortened(text, LONGEST_TIP),
  );
}

/**
 * @param {string} text
 * @param {number} most letters
 */
function shortened(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** @typedef {{left: number, right: number, top: number, bottom: number}} Box */

/**
 * @param {Box} one
 * @param {Box} other
 */
function overlap(one, other) {
  return one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;
}

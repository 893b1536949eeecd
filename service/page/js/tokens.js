// The view that compares two sentences token by token.

import { Asker } from "./asker.js";
import { choice } from "./controls.js";
import { find, make } from "./dom.js";
import { HeatMap, exact, paint, rangeOf } from "./heat_map.js";
import { tokensRequest } from "./request.js";
import { rove } from "./roving.js";

/** Make the view work; gives its asker. */
export function startTokens() {
  const heatMap = new HeatMap(find("tokens-map"), find("tokens-readout"));
  /** @type {any} */
  let last = null;

  const redraw = () => {
    if (!last) return;
    const rows = last.source_tokens.map((/** @type {any} */ token) => token.text);
    const columns = last.target_tokens.map((/** @type {any} */ token) => token.text);
    const stretch = find("tokens-stretch").checked;
    const matrix = { rows, columns, heads: columns, scores: last.scores, symmetric: false, framed: true };
    heatMap.draw(matrix, stretch);
    drawChips(matrix, rangeOf(matrix, stretch));
    find("tokens-max-sim").textContent = exact(last.max_sim);
  };

  const request = () => {
    const [source, target] = ["tokens-source", "tokens-target"].map((id) => find(id).value.trim());
    return source && target ? tokensRequest(source, target, choice()) : null;
  };

  const asker = new Asker("tokens", request, ({ data }) => {
    last = data;
    redraw();
  });
  for (const id of ["tokens-source", "tokens-target"]) find(id).addEventListener("input", () => asker.soon());
  find("tokens-stretch").addEventListener("input", redraw);
  return asker;
}

/**
 * Show both sentences as tokens: each coloured by its nearest, or by how near it is to the one that is pointed at.
 * @param {import("./heat_map.js").Matrix} matrix
 * @param {{low: number, high: number}} range
 */
function drawChips({ rows, columns, scores }, range) {
  const turned = columns.map((_, column) => scores.map((row) => row[column]));
  const sides = [chips("tokens-first", rows), chips("tokens-second", columns)];
  const tables = [scores, turned];

  const rest = () => {
    sides.forEach((side, number) =>
      side.forEach((chip, index) => {
        paint(chip, Math.max(...tables[number][index]), range);
        chip.classList.remove("pointed");
      }),
    );
  };

  sides.forEach((side, number) =>
    side.forEach((chip, index) => {
      const others = sides[1 - number];
      const point = () => {
        rest();
        chip.classList.add("pointed");
        others.forEach((other, place) => paint(other, tables[number][index][place], range));
        const nearest = tables[number][index].indexOf(Math.max(...tables[number][index]));
        chip.setAttribute(
          "aria-label",
          `${chip.textContent}: nearest is ${others[nearest].textContent}, ${exact(tables[number][index][nearest])}`,
        );
      };
      chip.addEventListener("pointerenter", point);
      chip.addEventListener("focus", point);
      chip.addEventListener("pointerleave", rest);
      chip.addEventListener("blur", rest);
    }),
  );
  rest();
}

/**
 * @param {string} id
 * @param {string[]} texts
 * @returns {HTMLElement[]}
 */
function chips(id, texts) {
  const made = texts.map((text) => make("button", { type: "button", class: "token" }, text));
  find(id).replaceChildren(...made);
  rove(find(id), made, made.length);
  return made;
}

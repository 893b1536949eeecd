// The view that compares each sentence with each.

import { Asker } from "./asker.js";
import { choice } from "./controls.js";
import { find } from "./dom.js";
import { HeatMap } from "./heat_map.js";
import { droppedNote, linesOf } from "./lines.js";
import { sentencesRequest } from "./request.js";

const MOST = 50;

/** Make the view work; gives its asker. */
export function startSentences() {
  const heatMap = new HeatMap(find("sentences-map"), find("sentences-readout"));
  /** @type {import("./heat_map.js").Matrix | null} */
  let matrix = null;

  const redraw = () => matrix && heatMap.draw(matrix, find("sentences-stretch").checked);

  const request = () => {
    const { lines, dropped } = linesOf(find("sentences-text").value, MOST);
    find("sentences-note").textContent = droppedNote(MOST, dropped);
    return lines.length ? sentencesRequest(lines, choice()) : null;
  };

  const asker = new Asker("sentences", request, ({ data }, { body }) => {
    /** @type {string[]} */
    const lines = body.source;
    const heads = lines.map((_, index) => String(index + 1));
    const named = lines.map((line, index) => `${index + 1} ${line}`);
    matrix = { rows: named, columns: named, heads, scores: data.scores, symmetric: true, framed: false };
    redraw();
  });
  find("sentences-text").addEventListener("input", () => asker.soon());
  find("sentences-stretch").addEventListener("input", redraw);
  return asker;
}

// The view that lays up to 500 lines out on a plane.

import { Asker } from "./asker.js";
import { choice } from "./controls.js";
import { find } from "./dom.js";
import { blocksOf, droppedNote, linesOf } from "./lines.js";
import { nearest } from "./neighbours.js";
import { plane } from "./pca.js";
import { mapRequest } from "./request.js";
import { Scatter } from "./scatter.js";

const MOST = 500;

/**
 * Make the view work; gives its asker.
 * @param {() => any} info the service's `/info`, once it is there
 */
export function startMap(info) {
  const scatter = new Scatter(find("map-plot"), find("map-readout"));

  const request = () => {
    const { lines, dropped } = linesOf(find("map-text").value, MOST);
    find("map-note").textContent = droppedNote(MOST, dropped);
    return lines.length > 1 ? mapRequest(lines, choice(), info()?.normalize ?? false) : null;
  };

  const asker = new Asker("map", request, ({ data }, { body }) => {
    const vectors = data.data.map((/** @type {any} */ item) => floats(item.embedding ?? item.features[0]));
    const { points, shares } = plane(vectors);
    const blocks = blocksOf(find("map-text").value);
    scatter.draw(points, body.input ?? body.inputs, blocks, nearest(vectors));
    const [across, up] = shares.map((share) => `${(100 * share).toFixed(0)} %`);
    find("map-shares").textContent = `Across: ${across} of the vectors’ variance; up: ${up}.`;
  });
  find("map-text").addEventListener("input", () => asker.soon());
  new ResizeObserver(() => scatter.fit()).observe(find("map-plot"));
  return asker;
}

/**
 * Read a vector that is spelled as base64 of little-endian float32, which is how every browser's machine has them.
 * @param {string} base64
 */
function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

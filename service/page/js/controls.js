// What the reader chooses: pooling, layers, truncation, metric. One form, which moves to the view that is shown.

import { find, make } from "./dom.js";

/** Fields that a view has no use for. @type {Record<string, string[]>} */
const UNUSED = { sentences: [], tokens: ["pooling"], map: ["metric"] };

/**
 * Give what is chosen.
 * @returns {import("./request.js").Choice}
 */
export function choice() {
  const chosen = [...layerBoxes()].filter((box) => box.checked).map((box) => Number(box.value));
  return {
    pooling: find("pooling").value,
    layers: isLastAlone(chosen) ? [] : chosen,
    merge: find("merge").value,
    excludeSpecial: find("exclude-special").checked,
    truncate: find("truncate").value,
    window: number("window"),
    stride: number("stride"),
    metric: find("metric").value,
  };
}

/**
 * Fill the form with what the model has, and tell when something else is chosen.
 * @param {any} info the service's `/info`
 * @param {() => void} changed
 */
export function startControls(info, changed) {
  const own = [info.model_type.embedding.pooling, ...info.further_poolings].join(" + ");
  find("pooling").options[0].textContent = `the model's own (${own})`;
  find("metric").options[0].textContent = `the model's own (${info.similarity})`;
  find("pooling").querySelector("[value=pooler]").hidden = !info.has_pooler;
  const boxes = Array.from({ length: info.layers + 1 }, (_, layer) => layerBox(layer, layer === info.layers));
  find("layers").replaceChildren(...boxes);
  for (const id of ["window", "stride"]) find(id).max = info.max_input_length;
  find("window").value = info.max_input_length;
  find("controls").addEventListener("input", () => {
    settle();
    changed();
  });
  settle();
}

/**
 * Put the form into a view and leave out what that view has no use for.
 * @param {string} view
 */
export function moveControls(view) {
  find(`${view}-slot`).append(find("controls-frame"));
  for (const id of ["pooling", "metric"]) find(`${id}-field`).hidden = UNUSED[view].includes(id);
  find("truncate").querySelector("[value=window]").disabled = view === "tokens";
  if (view === "tokens" && find("truncate").value === "window") find("truncate").value = "";
  settle();
}

/** Show the fields that go with what is chosen. */
function settle() {
  const boxes = [...layerBoxes()];
  const checked = boxes.filter((box) => box.checked);
  if (boxes.length && !checked.length) boxes[boxes.length - 1].checked = true;
  const pooler = find("pooling").value === "pooler" && !find("pooling-field").hidden;
  find("layers-field").disabled = pooler;
  find("exclude-special").disabled = pooler;
  find("merge-field").hidden = checked.length < 2 || pooler;
  find("window-field").hidden = find("truncate").value !== "window";
}

/**
 * @param {number} layer
 * @param {boolean} checked
 */
function layerBox(layer, checked) {
  const box = make("input", { type: "checkbox", value: layer });
  box.checked = checked;
  return make("label", { class: "chip" }, box, make("span", {}, layer === 0 ? "0 embeddings" : String(layer)));
}

/** @returns {NodeListOf<HTMLInputElement>} */
function layerBoxes() {
  return find("layers").querySelectorAll("input");
}

/** @param {number[]} chosen */
function isLastAlone(chosen) {
  return chosen.length === 1 && chosen[0] === layerBoxes().length - 1;
}

/** @param {string} id */
function number(id) {
  const value = find(id).valueAsNumber;
  return Number.isNaN(value) ? null : value;
}

// Starts the page: its tabs, its views, and what the service says of itself.

import { ApiError, ask, read } from "./api.js";
import { moveControls, startControls } from "./controls.js";
import { find } from "./dom.js";
import { askForKey, keyEvents, startKey } from "./key.js";
import { fillInfo, startLive } from "./live.js";
import { startMap } from "./map.js";
import { startSentences } from "./sentences.js";
import { startTabs } from "./tabs.js";
import { startTokens } from "./tokens.js";

/** Milliseconds after which the service is asked again what it is, if it could not say. */
const LATER = 2000;

/** @type {any} */
let info = null;
let shown = "";
/** @type {ReturnType<typeof setTimeout> | undefined} */
let later;

startKey();
/** @type {Record<string, import("./asker.js").Asker>} */
const askers = { sentences: startSentences(), tokens: startTokens(), map: startMap(() => info) };
const live = startLive(() => info);

startTabs((view) => {
  askers[shown]?.rest();
  shown = view;
  if (view === "live") live.show();
  else moveControls(view);
  if (info) learn(); // the best batch may have been found since
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) askers[shown]?.now();
});

// On a telephone the choices would stand between the text and its picture.
find("controls-frame").open = matchMedia("(min-width: 60rem)").matches;

keyEvents.addEventListener("change", () => {
  learn();
  askers[shown]?.now();
});
learn();

/** Ask the service what it is; while it is starting, again. */
async function learn() {
  try {
    const told = (await ask("info")).data;
    if (!info) startControls(told, () => askers[shown]?.soon());
    info = told;
    find("model").textContent = info.model_id;
    document.title = `Berth · ${info.model_id}`;
    fillInfo(info);
    await read("health/ready");
    askers[shown]?.refresh();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) askForKey();
    else {
      clearTimeout(later); // another tab was shown meanwhile: that asks too, and one of them goes on
      later = setTimeout(learn, LATER);
    }
  }
}

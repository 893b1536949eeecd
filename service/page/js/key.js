// The API key: kept for this tab alone, asked for when the service wants one.

import { find } from "./dom.js";

const NAME = "berth-key";

/** Tells `change` when there is another key. */
export const keyEvents = new EventTarget();

/** @type {string} */
let key = "";
try {
  key = sessionStorage.getItem(NAME) ?? "";
} catch {
  // A browser that forbids storage: the key then lasts as long as the page.
}

/**
 * Give the headers that carry the key.
 * @returns {Record<string, string>}
 */
export function keyHeaders() {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Say whether there is a key. */
export function hasKey() {
  return key !== "";
}

/** @param {string} value */
function keep(value) {
  key = value;
  try {
    if (value) sessionStorage.setItem(NAME, value);
    else sessionStorage.removeItem(NAME);
  } catch {
    // as above
  }
  find("key-open").hidden = false;
  keyEvents.dispatchEvent(new Event("change"));
}

/** Ask for a key, and say whether the one there is was refused. */
export function askForKey() {
  /** @type {HTMLDialogElement} */
  const dialog = find("key-dialog");
  if (dialog.open) return;
  find("key-open").hidden = false;
  find("key-refused").hidden = !hasKey();
  find("key-forget").hidden = !hasKey();
  find("key-input").value = "";
  dialog.showModal();
}

/** Make the dialog and its button work. */
export function startKey() {
  /** @type {HTMLDialogElement} */
  const dialog = find("key-dialog");
  find("key-open").hidden = !hasKey();
  find("key-open").addEventListener("click", () => {
    askForKey();
    find("key-refused").hidden = true;
  });
  find("key-cancel").addEventListener("click", () => dialog.close());
  find("key-forget").addEventListener("click", () => {
    dialog.close();
    keep("");
  });
  find("key-form").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    dialog.close();
    keep(find("key-input").value.trim());
  });
}

// Light, dark, or as the system is. A classic script in the head, so that the choice is there before the first paint.
"use strict";

(() => {
  const KEY = "berth-theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  /** What is shown now. */
  const shown = () => root.dataset.theme ?? (system.matches ? "dark" : "light");

  const announce = () => document.dispatchEvent(new Event("themechange"));

  /** Browsers that forbid storage throw. @param {() => string | null | void} action */
  const tried = (action) => {
    try {
      return action();
    } catch {
      return null;
    }
  };

  const kept = tried(() => localStorage.getItem(KEY));
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  system.addEventListener("change", announce);

  document.addEventListener("DOMContentLoaded", () => {
    const button = /** @type {HTMLButtonElement} */ (document.getElementById("theme"));
    const label = () => button.setAttribute("aria-pressed", String(shown() === "dark"));
    button.addEventListener("click", () => {
      const theme = shown() === "dark" ? "light" : "dark";
      root.dataset.theme = theme;
      tried(() => localStorage.setItem(KEY, theme));
      announce();
    });
    document.addEventListener("themechange", label);
    label();
  });
})();

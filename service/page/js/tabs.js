// The tabs at the top: arrow keys among them, and the one that is shown in the address.

import { find } from "./dom.js";
import { rove } from "./roving.js";

const VIEWS = ["sentences", "tokens", "map", "live"];

/** @param {(view: string) => void} shown */
export function startTabs(shown) {
  const tabs = VIEWS.map((view) => find(`tab-${view}`));
  rove(find("tabs"), tabs, tabs.length);

  const show = () => {
    const wanted = location.hash.slice(1);
    const current = VIEWS.includes(wanted) ? wanted : VIEWS[0];
    VIEWS.forEach((view, index) => {
      tabs[index].setAttribute("aria-selected", String(view === current));
      tabs[index].tabIndex = view === current ? 0 : -1;
      find(`panel-${view}`).hidden = view !== current;
    });
    shown(current);
  };

  tabs.forEach((tab, index) => {
    const choose = () => {
      if (location.hash !== `#${VIEWS[index]}`) history.replaceState(null, "", `#${VIEWS[index]}`);
      show();
    };
    tab.addEventListener("click", choose);
    tab.addEventListener(
      "focus",
      () => tab.matches(":focus-visible") && tab.getAttribute("aria-selected") === "false" && choose(),
    );
  });
  addEventListener("hashchange", show);
  show();
}

// One view's requests: asked while one types, one at a time, the last one last; with its `curl` line, status and errors.

import { ApiError, ask } from "./api.js";
import { curlLine } from "./curl.js";
import { find } from "./dom.js";
import { askForKey } from "./key.js";

/** Milliseconds without a keystroke after which a request is sent. */
const PAUSE = 400;
/** Characters above which one is sent only when asked for. */
const LONG = 5000;

export class Asker {
  /**
   * @param {string} view its elements are `view-run`, `view-status`, `view-error`, `view-curl` and `view-copy`
   * @param {() => import("./request.js").Request | null} request what is to be asked now; null for nothing
   * @param {(answer: import("./api.js").Answer, request: import("./request.js").Request) => void} show
   */
  constructor(view, request, show) {
    this.view = view;
    this.request = request;
    this.show = show;
    this.busy = false;
    this.again = false;
    this.asked = "";
    this.timer = 0;
    this.part("run").addEventListener("click", () => this.now());
    this.part("copy").addEventListener("click", () => this.copy());
  }

  /** Ask soon, if it is little; show the `curl` line at once. */
  soon() {
    clearTimeout(this.timer);
    const request = this.spell();
    const long = request !== null && JSON.stringify(request.body).length > LONG;
    this.part("run").classList.toggle("waiting", long);
    if (request && !long) this.timer = setTimeout(() => this.now(), PAUSE);
  }

  /** Ask now, unless an answer is awaited: then after it. */
  async now() {
    clearTimeout(this.timer);
    const request = this.spell();
    if (!request) return;
    if (this.busy) {
      this.again = true;
      return;
    }
    this.busy = true;
    this.part("run").classList.remove("waiting");
    this.part("result").setAttribute("aria-busy", "true");
    this.asked = JSON.stringify(request);
    try {
      const answer = await ask(request.path, request.body);
      this.fail("");
      this.show(answer, request);
      this.part("status").textContent = status(answer);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.asked = "";
      this.fail(error.message);
      if (error.status === 401) askForKey();
    } finally {
      this.busy = false;
      this.part("result").setAttribute("aria-busy", "false");
    }
    if (this.again) {
      this.again = false;
      await this.now();
    }
  }

  /** Ask nothing any more that was to be asked soon: another view is shown. */
  rest() {
    clearTimeout(this.timer);
    this.again = false;
  }

  /** Ask, if what is to be asked has changed, or was not answered. */
  refresh() {
    if (JSON.stringify(this.spell()) !== this.asked) this.soon();
  }

  spell() {
    const request = this.request();
    this.part("curl").textContent = request ? curlLine(request) : "";
    this.part("copy").disabled = request === null;
    return request;
  }

  /** @param {string} message */
  fail(message) {
    this.part("error").textContent = message;
    this.part("error").hidden = message === "";
    if (message) this.part("status").textContent = "";
  }

  async copy() {
    const code = this.part("curl");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      // No clipboard without https; the old way asks for a selection.
      getSelection()?.selectAllChildren(code);
      document.execCommand("copy");
    }
    const button = this.part("copy");
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  }

  /** @param {string} name */
  part(name) {
    return find(`${this.view}-${name}`);
  }
}

/** @param {import("./api.js").Answer} answer */
function status({ data, stages, truncated }) {
  const named = ["tokenize", "queue", "encode"].filter((name) => name in stages);
  const times = named.map((name) => `${name} ${stages[name].toFixed(1)}`).join(", ");
  return [
    `${data.usage.prompt_tokens.toLocaleString("en")} tokens`,
    `${stages.total.toFixed(1)} ms in the service (${times})`,
    ...(truncated ? [`${truncated} ${truncated === 1 ? "text was" : "texts were"} cut`] : []),
  ].join(" · ");
}

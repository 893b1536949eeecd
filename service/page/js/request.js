// From what was typed and chosen to a request; what is as the service has it anyway is left out.

/**
 * @typedef {object} Request
 * @property {string} path
 * @property {Record<string, any>} body
 */

/**
 * @typedef {object} Choice
 * @property {string} pooling "" for the model's own
 * @property {number[]} layers none for the last
 * @property {string} merge
 * @property {boolean} excludeSpecial
 * @property {string} truncate
 * @property {number | null} window
 * @property {number | null} stride
 * @property {string} metric "" for the model's own
 */

/**
 * Compare each line with each.
 * @param {string[]} lines
 * @param {Choice} choice
 * @returns {Request}
 */
export function sentencesRequest(lines, choice) {
  return {
    path: "v1/similarity",
    body: { source: lines, target: lines, ...features(choice), ...metric(choice), ...truncation(choice) },
  };
}

/**
 * Compare two texts token by token, in which there is nothing to pool.
 * @param {string} source
 * @param {string} target
 * @param {Choice} choice
 * @returns {Request}
 */
export function tokensRequest(source, target, choice) {
  const fields = { ...features({ ...choice, pooling: "" }), ...metric(choice), ...truncation(choice) };
  return { path: "v1/similarity", body: { source, target, granularity: "token", ...fields } };
}

/**
 * Have a vector of each line: the model's own where no other is chosen.
 * @param {string[]} lines
 * @param {Choice} choice
 * @param {boolean} normalize
 * @returns {Request}
 */
export function mapRequest(lines, choice, normalize) {
  const chosen = features(choice);
  if (!Object.keys(chosen).length)
    return { path: "v1/embeddings", body: { input: lines, ...truncation(choice), encoding_format: "base64" } };
  const feature = { ...chosen, ...(normalize && { normalize }) };
  return {
    path: "v1/features",
    body: { inputs: lines, features: [feature], ...truncation(choice), encoding_format: "base64" },
  };
}

/** @param {Choice} choice */
function features({ pooling, layers, merge, excludeSpecial }) {
  if (pooling === "pooler") return { pooling };
  return {
    ...(pooling && { pooling }),
    ...(layers.length && { layers }),
    ...(layers.length > 1 && merge !== "concat" && { merge }),
    ...(excludeSpecial && { exclude_special: true }),
  };
}

/** @param {Choice} choice */
function metric({ metric }) {
  return metric ? { metric } : {};
}

/** @param {Choice} choice */
function truncation({ truncate, window, stride }) {
  if (!truncate) return {};
  if (truncate !== "window") return { truncate };
  return { truncate: { window, ...(stride && { stride }) } };
}

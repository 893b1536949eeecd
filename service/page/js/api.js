// Calls of the service that this page came from.

import { keyHeaders } from "./key.js";

/**
 * @typedef {object} Answer
 * @property {any} data what the service said
 * @property {Record<string, number>} stages milliseconds by stage, as `Server-Timing` tells them
 * @property {number} truncated inputs of which something was cut off
 */

/** An answer that is an error. `status` 0: there was none. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * Give the address of a route; relative to the page, so that a path that a proxy puts before it stays.
 * @param {string} path without a slash at its start
 */
export function address(path) {
  return new URL(path, document.baseURI).href;
}

/**
 * Send a request and read its JSON.
 * @param {string} path
 * @param {object} [body]
 * @returns {Promise<Answer>}
 * @throws {ApiError}
 */
export async function ask(path, body) {
  const response = await reach(path, body);
  return {
    data: await response.json(),
    stages: stagesOf(response.headers.get("server-timing") ?? ""),
    truncated: Number(response.headers.get("x-truncated-inputs") ?? 0),
  };
}

/**
 * Read a text.
 * @param {string} path
 * @throws {ApiError}
 */
export async function read(path) {
  return (await reach(path)).text();
}

/**
 * @param {string} path
 * @param {object} [body]
 */
async function reach(path, body) {
  /** @type {RequestInit} */
  const options = body
    ? { method: "POST", headers: { "Content-Type": "application/json", ...keyHeaders() }, body: JSON.stringify(body) }
    : { headers: keyHeaders(), cache: "no-store" };
  /** @type {Response} */
  let response;
  try {
    response = await fetch(address(path), options);
  } catch {
    throw new ApiError(0, "The service does not answer.");
  }
  if (!response.ok) throw new ApiError(response.status, await messageOf(response));
  return response;
}

/** @param {Response} response */
async function messageOf(response) {
  const retry = response.headers.get("retry-after");
  const later = retry ? ` Try again in ${retry} s.` : "";
  try {
    return `${(await response.json()).error.message}${later}`;
  } catch {
    return `The service answered ${response.status}.${later}`;
  }
}

/** @param {string} header */
function stagesOf(header) {
  const stages = header.matchAll(/([a-z]+);dur=([\d.]+)/g);
  return Object.fromEntries(Array.from(stages, ([, name, milliseconds]) => [name, Number(milliseconds)]));
}

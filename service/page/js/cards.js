// The charts of the live view: which figures stand together, and how they are spelled.

import { bytes, percent, plain, seconds } from "./spell.js";

/**
 * @typedef {object} Card
 * @property {string} title
 * @property {string} about what it tells, in a line
 * @property {[key: string, label: string][]} series
 * @property {import("./spell.js").Spell} spell
 */

/** @param {string} title @param {string} about @param {string} stage @returns {Card} */
function latency(title, about, stage) {
  return {
    title,
    about,
    spell: seconds,
    series: [
      [`${stage}p50`, "p50"],
      [`${stage}p95`, "p95"],
      [`${stage}p99`, "p99"],
    ],
  };
}

/** @type {Record<string, Card[]>} */
export const CARDS = {
  work: [
    { title: "Requests", about: "answered", spell: plain, series: [["requests", "a second"]] },
    { title: "Texts", about: "encoded", spell: plain, series: [["texts", "a second"]] },
    { title: "Tokens", about: "encoded, no padding", spell: plain, series: [["tokens", "a second"]] },
    { title: "In flight", about: "requests being answered", spell: plain, series: [["inFlight", "now"]] },
  ],
  latency: [
    latency("Total", "all of a request", "total"),
    latency("Tokenize", "text to tokens", "tokenize"),
    latency("Queue", "until the first batch starts", "queue"),
    latency("Encode", "until the last batch ends", "encode"),
  ],
  room: [
    {
      title: "Queue",
      about: "waits for the encoder",
      spell: plain,
      series: [
        ["waiting", "tokens"],
        ["waitingUnits", "units"],
      ],
    },
    { title: "Batch fill", about: "tokens of a batch, of its most", spell: percent, series: [["fill", "on average"]] },
    { title: "Memory", about: "resident, of all workers", spell: bytes, series: [["memory", "now"]] },
    { title: "Processor", about: "time of all workers", spell: plain, series: [["cores", "cores"]] },
  ],
  trouble: [
    { title: "Turned away", about: "requests without vectors", spell: plain, series: [["rejected", "a second"]] },
    {
      title: "Errors",
      about: "5xx; what the encoder failed on",
      spell: plain,
      series: [
        ["failed", "answers a second"],
        ["encoderErrors", "texts a second"],
      ],
    },
  ],
};

// A request as a line for a POSIX shell.

import { address } from "./api.js";
import { hasKey } from "./key.js";

/** Bytes of a body above which it is fed to curl: Linux takes no single argument above 131,072. */
const LONGEST_ARGUMENT = 100_000;
const END = "END_OF_BODY";

/**
 * Spell a request as a `curl` command that can be pasted. The key is not in it, only a variable that holds it.
 * @param {import("./request.js").Request} request
 */
export function curlLine({ path, body }) {
  const json = JSON.stringify(body);
  const long = new TextEncoder().encode(json).length > LONGEST_ARGUMENT;
  return [
    `curl -s ${quoted(address(path))}`,
    ...(hasKey() ? ['-H "Authorization: Bearer $API_KEY"'] : []),
    "-H 'Content-Type: application/json'",
    long ? `-d @- <<'${END}'\n${json}\n${END}` : `-d ${quoted(json)}`,
  ].join(" \\\n  ");
}

/**
 * Put a text between single quotes, in which a shell reads nothing but another single quote.
 * @param {string} text
 */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

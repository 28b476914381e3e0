// Asking the gateway.

let token = sessionStorage.getItem("token") ?? "";

export function useToken(value) {
  token = value;
  sessionStorage.setItem("token", value); // until the tab is closed
}

// Denied is an answer that a token, or a better one, would have changed.
export class Denied extends Error {}

// The role that the last answer told.
export let role = "operator";

async function send(path, options = {}) {
  const headers = token ? { Authorization: "Bearer " + token } : {};
  const answer = await fetch(path, { ...options, headers, cache: "no-store", signal: AbortSignal.timeout(15000) });
  role = answer.headers.get("Gateway-Role") ?? role;
  const type = answer.headers.get("Content-Type") ?? "";
  const body = type.includes("json") ? await answer.json() : await answer.text();
  if (answer.status === 401) throw new Denied(body.detail);
  if (!answer.ok && answer.status !== 503) throw new Error(body.errors?.join("\n") ?? body.detail ?? `${answer.status} ${answer.statusText}`);
  return body;
}

export const get = path => send(path);
export const post = (path, parameters = {}) => send(path + "?" + new URLSearchParams(parameters), { method: "POST" });

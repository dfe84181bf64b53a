// The address after # says what is shown, so that a reload, a bookmark and a second tab show the
// same: `#/`, `#/jobs`, `#/jobs/{id}`, `#/compare?jobs=a,b`.

import { useEffect, useState } from "../vendor/preact.js";

/** @returns {{view: string, id: string | null, query: URLSearchParams}} */
export function parseRoute(hash) {
  const [path, query] = hash.replace(/^#/, "").split(/\?(.*)/s);
  const [view, id] = path.split("/").filter(Boolean).map(decodeURIComponent);
  return { view: view ?? "prune", id: id ?? null, query: new URLSearchParams(query ?? "") };
}

/** Address of a view. */
export function link(view, { id, query } = {}) {
  const path = [view === "prune" && !id ? "" : view, id && encodeURIComponent(id)];
  const text = new URLSearchParams(query ?? {}).toString();
  return `#/${path.filter(Boolean).join("/")}${text ? `?${text}` : ""}`;
}

export function goTo(address) {
  location.hash = address;
}

/** Change the address without a step in the history. */
export function replaceAddress(address) {
  history.replaceState(null, "", address);
  dispatchEvent(new Event("hashchange"));
}

/**
 * Change some parts of the present address's query; null removes one. It is read anew, as two
 * uploads may end one right after the other.
 */
export function changeQuery(part) {
  const { view, id, query } = parseRoute(location.hash);
  for (const [name, value] of Object.entries(part)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  replaceAddress(link(view, { id, query }));
}

export function useRoute() {
  const [route, setRoute] = useState(() => parseRoute(location.hash));
  useEffect(() => {
    const update = () => setRoute(parseRoute(location.hash));
    addEventListener("hashchange", update);
    return () => removeEventListener("hashchange", update);
  }, []);
  return route;
}

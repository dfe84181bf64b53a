// The API key: entered by the user, kept for this tab alone, sent as a bearer token.

const NAME = "onnx-filter-pruner.api-key";
const events = new EventTarget();

export function readKey() {
  return sessionStorage.getItem(NAME) ?? "";
}

/** Keep a key, or forget it where the text is empty; whoever shows data loads it again. */
export function keepKey(key) {
  if (key) sessionStorage.setItem(NAME, key);
  else sessionStorage.removeItem(NAME);
  events.dispatchEvent(new Event("change"));
}

/** Headers that say who asks. */
export function keyHeaders() {
  const key = readKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** The server refused a request for want of a good key. */
export function announceRefusal() {
  events.dispatchEvent(new Event("refused"));
}

/** Call `listener` at each event of this type: `change` or `refused`. Returns how to stop. */
export function onKey(type, listener) {
  events.addEventListener(type, listener);
  return () => events.removeEventListener(type, listener);
}

// Downloads. A plain link does where no key is needed; with a key the bytes are fetched first, as
// a link cannot send it.

import { request } from "./client.js";

/** Save what `path` answers with, under the name that the service gives it. */
export async function save(path) {
  const response = await request(path);
  const disposition = response.headers.get("Content-Disposition") ?? "";
  const url = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = nameIn(disposition) ?? path.split("/").pop();
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** File name in a Content-Disposition header (RFC 6266); null where there is none. */
export function nameIn(disposition) {
  const extended = /filename\*=utf-8''([^;]+)/i.exec(disposition);
  if (extended) return decodeURIComponent(extended[1]);
  return /filename="([^"]+)"/i.exec(disposition)?.[1] ?? null;
}

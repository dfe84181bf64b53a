// The run on this page as curl, Python and command line.

import { readKey } from "../api/key.js";
import { cli, curl, python } from "../options/snippets.js";

/** Texts for CopyTabs; `options` are those that differ from the defaults. */
export function snippetsOf(model, bundle, options) {
  const run = { model, bundle, options, origin: location.origin, hasKey: readKey() !== "" };
  return [
    { name: "curl", text: curl(run) },
    { name: "Python", text: python(run) },
    { name: "Command line", text: cli(run) },
  ];
}

// Bundles the report's charts into the file that the Python package ships. Run it by `make charts`.
// The banner has the licences of what is inside, and the digest of the sources, which a test compares.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

const SOURCES = "src";
const OUT = "../../graph_ops/report_page/assets/charts.js";

/** Digest of the sources and of the versions of what they import. */
function digest() {
  const hash = createHash("sha256");
  for (const name of readdirSync(SOURCES).sort()) hash.update(`${name}\n`).update(readFileSync(join(SOURCES, name)));
  return hash.update(readFileSync("package.json")).digest("hex");
}

/** Packages whose code is in a bundle, from the paths that went into it. */
function packagesIn(metafile) {
  const used = Object.entries(Object.values(metafile.outputs)[0].inputs).filter(([, input]) => input.bytesInOutput);
  const names = used.flatMap(([path]) => path.match(/.*node_modules\/((?:@[^/]+\/)?[^/]+)/)?.slice(0, 2).reverse() ?? []);
  return new Map(names.flatMap((name, i) => (i % 2 ? [] : [[name, names[i + 1]]])));
}

function licenceOf(folder) {
  const file = readdirSync(folder).find((name) => /^licen[cs]e/i.test(name));
  if (file === undefined) throw new Error(`${folder} has no licence file`);
  return readFileSync(join(folder, file), "utf8").trim();
}

/** Each distinct licence text once, with the packages it is for. */
function noticesOf(packages) {
  const byText = new Map();
  for (const [name, folder] of [...packages].sort()) {
    const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const licence = licenceOf(folder);
    byText.set(licence, [...(byText.get(licence) ?? []), `${name} ${version}`]);
  }
  return [...byText].map(([licence, names]) => `${names.join(", ")}\n\n${licence}`).join("\n\n---\n\n");
}

const options = {
  entryPoints: [join(SOURCES, "charts.js")],
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2020",
  metafile: true,
  legalComments: "none",
  charset: "utf8",
};
const { metafile } = await build({ ...options, write: false });
const notices = noticesOf(packagesIn(metafile)).replaceAll("*/", "* /").replaceAll("</", "<\\/");
await build({ ...options, outfile: OUT, banner: { js: `/* sources: ${digest()}\n\n${notices}\n*/` } });

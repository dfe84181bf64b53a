// Bundles the two libraries of the dashboard into service/web/vendor/. Its own modules are served
// as they are written: only a change of package.json needs this (`make vendor`).

import { readFile, writeFile } from "node:fs/promises";

import { build } from "esbuild";

const TARGET = "../../service/web/vendor";

const result = await build({
  entryPoints: ["src/preact.js", "src/plot.js"],
  outdir: TARGET,
  bundle: true,
  format: "esm",
  minify: true,
  legalComments: "none",
  metafile: true,
  target: "es2022",
});

const used = new Set();
for (const input of Object.keys(result.metafile.inputs)) {
  const match = input.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//);
  if (match) used.add(match[1]);
}

const parts = [];
for (const name of [...used].sort()) {
  const { version, license } = JSON.parse(await readFile(`node_modules/${name}/package.json`));
  const text = await licenceOf(name);
  parts.push(`${name} ${version} (${license})\n\n${text.trim()}\n`);
}
await writeFile(`${TARGET}/LICENSES.txt`, parts.join(`\n${"-".repeat(80)}\n\n`));

async function licenceOf(name) {
  for (const file of ["LICENSE", "LICENSE.md", "LICENSE.txt"]) {
    try {
      return await readFile(`node_modules/${name}/${file}`, "utf8");
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
    }
  }
  throw new Error(`${name} has no licence file`);
}

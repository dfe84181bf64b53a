// The options as the service describes them (JSON schema), made ready for a form. An option that
// the service learns later appears in the form by itself.

/**
 * @param {object} schema of `/v1/options/schema`
 * @returns {{targets: Field[], options: Field[]}} options without `target`
 *
 * Field: {name, type, isList, isOptional, choices, min, max, isMinOpen, isMaxOpen, default,
 * description}; type is "integer", "number", "string" or "boolean".
 */
export function readSchema(schema) {
  const resolve = (part) =>
    part.$ref ? { ...schema.$defs[part.$ref.split("/").pop()], ...part } : part;
  const fields = (part) =>
    Object.entries(part.properties).map(([name, property]) => readField(name, resolve(property), resolve));
  const { target } = schema.properties;
  return {
    targets: fields(resolve(targetPart(target))),
    options: fields(schema).filter((field) => field.name !== "target" && field.type !== null),
  };
}

function targetPart(target) {
  return target.anyOf ? target.anyOf.find((part) => part.type !== "null") : target;
}

function readField(name, property, resolve) {
  const variants = (property.anyOf ?? [property]).map(resolve);
  const main = variants.find((variant) => variant.type !== "null") ?? {};
  const isList = main.type === "array";
  const inner = isList ? resolve(main.items ?? {}) : main;
  const isSimple = ["integer", "number", "string", "boolean"].includes(inner.type);
  return {
    name,
    type: isSimple ? inner.type : null,
    isList,
    isOptional: variants.some((variant) => variant.type === "null"),
    choices: inner.enum ?? null,
    min: inner.minimum ?? inner.exclusiveMinimum ?? null,
    max: inner.maximum ?? inner.exclusiveMaximum ?? null,
    isMinOpen: inner.exclusiveMinimum !== undefined,
    isMaxOpen: inner.exclusiveMaximum !== undefined,
    default: property.default ?? null,
    description: (property.description ?? inner.description ?? "").replace(/\s+/g, " "),
  };
}

/** What of a job's full options differs from the defaults; null targets are left out. */
export function notDefault(options, { options: fields }) {
  const kept = {};
  if (options.target) {
    kept.target = Object.fromEntries(
      Object.entries(options.target).filter(([, value]) => value != null),
    );
  }
  const defaults = Object.fromEntries(fields.map((field) => [field.name, field.default]));
  for (const [name, value] of Object.entries(options)) {
    if (name === "target") continue;
    if (JSON.stringify(value) !== JSON.stringify(defaults[name] ?? null)) kept[name] = value;
  }
  return kept;
}

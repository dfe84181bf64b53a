// What the dashboard's modules import: Preact, its hooks, and htm in place of JSX.
import htm from "htm";
import { h } from "preact";

export const html = htm.bind(h);
export { Fragment, render } from "preact";
export { useCallback, useEffect, useId, useMemo, useRef, useState } from "preact/hooks";

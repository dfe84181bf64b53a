// The marks of Observable Plot that the dashboard draws with.
export { axisX, barY, dot, gridX, gridY, line, plot, pointer, ruleY, text, tip } from "@observablehq/plot";

// Light, dark, or as the system has it.

const NAME = "onnx-filter-pruner.theme";
export const THEMES = ["system", "light", "dark"];

export function readTheme() {
  const theme = localStorage.getItem(NAME);
  return THEMES.includes(theme) ? theme : "system";
}

export function applyTheme(theme) {
  if (theme === "system") {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem(NAME);
  } else {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem(NAME, theme);
  }
}

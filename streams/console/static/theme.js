// Light, dark, or as the system has it. The choice is a cookie, so that the server sends a page that
// is right from its first frame on.

const ORDER = ["auto", "light", "dark"];
const YEAR_S = 31_536_000;

/** Changes to the next theme; which it is. */
export function nextTheme() {
  const theme = ORDER[(ORDER.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % ORDER.length];
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  document.cookie = `driftgate_theme=${theme}; path=/; max-age=${theme === "auto" ? 0 : YEAR_S}; samesite=strict`;
  return theme;
}

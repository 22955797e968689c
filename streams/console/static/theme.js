// Runs before anything is drawn, so that a dark page never flashes white.
(() => {
  const order = ["auto", "light", "dark"];
  const apply = (theme) => {
    if (theme === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset.theme = theme;
  };
  const read = () => {
    try {
      const theme = localStorage.getItem("driftgate-theme");
      return order.includes(theme) ? theme : "auto";
    } catch {
      return "auto";
    }
  };
  apply(read());
  window.driftgateTheme = {
    next() {
      const theme = order[(order.indexOf(read()) + 1) % order.length];
      try {
        localStorage.setItem("driftgate-theme", theme);
      } catch {
        // A browser that keeps nothing: the choice lasts for this page.
      }
      apply(theme);
      return theme;
    },
  };
})();

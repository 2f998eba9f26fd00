"use strict";
(() => {
  const settings = JSON.parse(document.getElementById("settings").textContent);
  const root = document.documentElement;
  const said = document.getElementById("said");

  // Tables: sorted by their headings, downloaded as CSV.

  const valueOf = (cell) => cell.dataset.value ?? cell.textContent;

  const numberOf = (text) => Number(text.replace("inf", "Infinity"));

  function compare(one, other, numeric) {
    if (!numeric) return one.localeCompare(other, "en", { numeric: true });
    const [first, second] = [numberOf(one), numberOf(other)];
    return (first > second) - (first < second); // the difference of two infinite ones is no number
  }

  function sort(button) {
    const head = button.closest("th");
    const table = head.closest("table");
    const falling = head.getAttribute("aria-sort") === "ascending";
    const numeric = head.classList.contains("number");
    const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row.cells[head.cellIndex]), row]);
    const missing = rows.filter(([value]) => value === "");
    const present = rows.filter(([value]) => value !== "");
    present.sort(([one], [other]) => (falling ? -1 : 1) * compare(one, other, numeric));
    table.tBodies[0].append(...[...present, ...missing].map(([, row]) => row));
    for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    said.textContent = `Sorted by ${button.textContent}, ${falling ? "descending" : "ascending"}`;
  }

  // A spreadsheet takes a text for a formula that starts like one (OWASP, CSV injection): an apostrophe keeps it a text.
  const field = (text, numeric) => {
    const safe = !numeric && /^[=+\-@\t\r\n]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };

  function csv(table) {
    const heads = [...table.tHead.rows[0].cells];
    const numeric = heads.map((head) => head.classList.contains("number"));
    const lines = [heads.map((head) => field(head.textContent, false))];
    for (const row of table.tBodies[0].rows) {
      lines.push([...row.cells].map((cell, place) => field(valueOf(cell), numeric[place])));
    }
    return lines.map((line) => line.join(",") + "\r\n").join("");
  }

  function download(button) {
    const table = document.getElementById(button.dataset.table).querySelector("table");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv(table)], { type: "text/csv;charset=utf-8" }));
    link.download = `${button.dataset.table}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.classList.contains("sort")) sort(button);
    if (button?.classList.contains("download")) download(button);
  });

  // Light and dark: the reader's preference, until the button is pressed.

  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const toggle = document.getElementById("theme");
  let printing = false;

  const themeName = () =>
    printing ? "day" : root.dataset.theme || (prefersDark.matches ? "night" : "day");

  function showTheme() {
    const dark = themeName() === "night";
    toggle.textContent = dark ? "Light" : "Dark";
    toggle.setAttribute("aria-label", `Switch to ${dark ? "light" : "dark"} colours`);
    recolorAll();
  }

  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    root.dataset.theme = themeName() === "night" ? "day" : "night";
    showTheme();
  });
  prefersDark.addEventListener("change", showTheme);

  // Figures: drawn when they come into sight, in the colours of the theme.

  const narrow = matchMedia(`(max-width: ${settings.narrow - 1}px)`);
  const plots = [...document.querySelectorAll(".plot")];
  const documents = new Map();
  const drawn = new Map(); // plot to {theme, variant} that it shows

  const hex = (parts) => "#" + parts.map((part) => (+part).toString(16).padStart(2, "0")).join("").toUpperCase();

  function exchanged(color, colors) {
    const found = /^rgba\((\d+),\s*(\d+),\s*(\d+),\s*([0-9.e+-]+)\)$/.exec(color);
    if (!found) return colors.get(color) ?? color;
    const next = colors.get(hex(found.slice(1, 4)));
    if (next === undefined) return color;
    const parts = [1, 3, 5].map((place) => parseInt(next.slice(place, place + 2), 16));
    return `rgba(${parts.join(",")},${found[4]})`;
  }

  // The same as delphi_jax.plots.theme.recolor: only values of keys that hold colours change.
  function recolored(node, colors, ofColor = false) {
    if (typeof node === "string") return ofColor ? exchanged(node, colors) : node;
    if (Array.isArray(node)) return node.map((each) => recolored(each, colors, ofColor));
    if (node === null || typeof node !== "object" || ArrayBuffer.isView(node)) return node;
    return Object.fromEntries(
      Object.entries(node).map(([key, value]) => [key, recolored(value, colors, key.includes("color"))]),
    );
  }

  function hosted(layout, theme, variant) {
    const font = { ...theme.font, size: settings.fontSizes[variant] };
    return { height: settings.height, ...layout, template: theme.template, font: { ...layout.font, ...font } };
  }

  function draw(plot) {
    const key = plot.dataset.figure;
    if (!documents.has(key)) {
      documents.set(key, JSON.parse(document.getElementById(`data-${key}`).textContent));
    }
    const figure = documents.get(key);
    const variant = !printing && narrow.matches && figure.mobile ? "mobile" : "wide";
    const theme = themeName();
    const shown = drawn.get(plot);
    if (shown?.theme === theme && shown.variant === variant) return;
    const colors = new Map(settings.themes[theme].colors);
    let { data, layout, frames } = figure[variant];
    data = data.map((place) => figure.traces[place]);
    if (shown?.variant === variant) {
      // Drawn before: what the reader chose in it stays, only its colours change, from one theme's to the other's.
      const before = new Map(settings.themes[shown.theme].colors.map(([brand, color]) => [color, brand]));
      const turn = (node) => recolored(recolored(node, before), colors);
      Plotly.react(plot, turn(plot.data), hosted(turn(plot.layout), settings.themes[theme], variant), config());
    } else {
      Plotly.newPlot(plot, recolored(data, colors), hosted(recolored(layout, colors), settings.themes[theme], variant), config());
    }
    if (frames) {
      if (shown) Plotly.deleteFrames(plot);
      Plotly.addFrames(plot, recolored(frames, colors));
    }
    drawn.set(plot, { theme, variant });
  }

  // Over a narrow figure the mode bar would cover the dropdowns and take their clicks.
  const config = () => ({
    ...settings.config,
    displayModeBar: !printing && narrow.matches ? false : "hover",
  });

  function recolorAll() {
    if (window.Plotly) for (const plot of drawn.keys()) draw(plot);
  }

  async function unpack(id) {
    const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (sign) => sign.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  function say(text) {
    for (const plot of plots) {
      plot.textContent = text;
      plot.removeAttribute("style");
    }
  }

  async function start() {
    if (!window.DecompressionStream) {
      say("This figure needs a browser of 2023 or later. The table below holds its data.");
      return;
    }
    const library = document.createElement("script");
    library.textContent = await unpack("library");
    document.head.append(library);

    const seen = new IntersectionObserver(
      (entries) => {
        for (const { isIntersecting, target } of entries) {
          if (isIntersecting) {
            seen.unobserve(target);
            draw(target);
          }
        }
      },
      { rootMargin: "600px 0px" },
    );
    for (const plot of plots) seen.observe(plot);
    narrow.addEventListener("change", recolorAll);

    const print = (on) => {
      printing = on;
      root.classList.toggle("printing", on);
      for (const plot of on ? plots : drawn.keys()) {
        draw(plot);
        Plotly.Plots.resize(plot);
      }
    };
    addEventListener("beforeprint", () => print(true));
    addEventListener("afterprint", () => print(false));
    root.dataset.ready = "yes";
  }

  showTheme();
  start();
})();

"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const options = {
    responsive: true,
    displaylogo: false,
    displayModeBar: window.matchMedia("(hover: hover) and (min-width: 640px)").matches ? "hover" : false,
    modeBarButtonsToRemove: ["lasso2d", "select2d"],
    showSendToCloud: false, /* nothing leaves this file */
    plotlyServerURL: "",
  };

  /* The vertical axis of candles follows what is visible; Plotly itself only looks at the whole range. */
  function rescale(place) {
    const candles = place.data.find((trace) => trace.type === "candlestick");
    const time = place.candleTimes || (place.candleTimes = candles.x.map((x) => Date.parse(x.replace(" ", "T") + (x.length > 10 ? "Z" : ""))));
    const range = place.layout.xaxis.range.map((x) => Date.parse(String(x).replace(" ", "T").replace(/(T[\d:.]+)$/, "$1Z")));
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < time.length; i += 1) {
      if (time[i] >= range[0] && time[i] <= range[1]) {
        low = Math.min(low, candles.low[i]);
        high = Math.max(high, candles.high[i]);
      }
    }
    if (low < high) {
      const pad = 0.05 * (high - low);
      Plotly.relayout(place, { "yaxis.range": [low - pad, high + pad], "yaxis.autorange": false });
    }
  }

  for (const figure of figures) {
    const place = document.getElementById(figure.name);
    Plotly.newPlot(place, figure.data, figure.layout, options).then(() => {
      if (figure.rescale) {
        place.on("plotly_relayout", (change) => {
          if (Object.keys(change).some((key) => key.startsWith("xaxis."))) rescale(place);
        });
      }
    });
  }
})();

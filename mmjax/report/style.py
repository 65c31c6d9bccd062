"""The report's style sheet."""

STYLE = """\
:root { --ink: #1d2433; --muted: #5d6779; --line: #e4e7ec; --paper: #fff; --ground: #f6f7f9;
  --right: #14695e; --wrong: #b4400f; --accent: #2b6cb0; --bar: #f1f3f7; --hit: #d9f1ec;
  --good: #ddf3ee; --fair: #eaf1fb; --fair-ink: #22568d; --cell-right: #2f9e8f;
  --cell-wrong: #dd6b20; --on-cell: #111620; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaf0; --muted: #a5aebd; --line: #2c3342;
  --paper: #1a1f2b; --ground: #12151d; --right: #5cc8b8; --wrong: #f0995a; --accent: #7fb2e8;
  --bar: #252c3a; --hit: #17423c; --good: #17423c; --fair: #22304a; --fair-ink: #a8cdf3;
  --cell-right: #1a6b5f; --cell-wrong: #a84b0c; --on-cell: #fff; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
header { max-width: 1228px; margin: 0 auto; padding: 20px 24px 6px; display: flex; flex-wrap: wrap;
  gap: 4px 36px; align-items: baseline; }
h1 { margin: 0; font-size: 26px; letter-spacing: -.02em; overflow-wrap: anywhere; }
h2 { margin: 0 0 10px; font-size: 18px; letter-spacing: -.01em; }
h3 { margin: 24px 0 10px; font-size: 12px; text-transform: uppercase; letter-spacing: .07em;
  color: var(--muted); }
dl { display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 0 0 10px; }
dt { font-size: 12px; color: var(--muted); }
dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
nav { position: sticky; top: 0; z-index: 5; background: var(--ground);
  border-bottom: 1px solid var(--line); padding: 7px 24px; white-space: nowrap; overflow-x: auto;
  padding-left: max(24px, calc((100vw - 1228px) / 2 + 24px)); }
nav a { color: var(--muted); text-decoration: none; font-size: 13px; margin-right: 20px; }
nav a:hover { color: var(--accent); }
main { max-width: 1228px; margin: 0 auto; padding: 14px 24px 60px; display: grid; gap: 14px;
  grid-template-columns: repeat(12, minmax(0, 1fr)); align-items: stretch; }
section { grid-column: 1 / -1; min-width: 0; background: var(--paper);
  border: 1px solid var(--line); border-radius: 12px; padding: 16px 20px 18px;
  scroll-margin-top: 50px; }
@media (min-width: 900px) { #headline { grid-column: span 7; } #training { grid-column: span 5; } }
@media (max-width: 500px) { header { padding: 14px 12px 4px; } nav { padding-left: 12px; }
  main { padding: 10px 8px 40px; } section { padding: 14px 12px; } }
.note { color: var(--muted); margin: 0 0 14px; font-size: 13.5px; max-width: 90ch; }
.note.last { margin: 8px 0 0; font-size: 12.5px; }
.right { color: var(--right); font-weight: 700; }
small { color: var(--muted); font-weight: 400; }

.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; }
caption { text-align: left; color: var(--muted); font-size: 12.5px; padding-bottom: 4px; }
th { text-align: left; font-weight: 600; }
td, th { padding: 5px 10px; }

.verdict { margin: 0 0 8px; font-weight: 600; }
.headline { width: 100%; table-layout: fixed; font-variant-numeric: tabular-nums; }
.headline td, .headline th { padding: 3px 14px 3px 0; vertical-align: top; }
.headline thead th { font-size: 13px; line-height: 1.25; overflow-wrap: anywhere; }
.headline thead > tr > :first-child { width: 19%; }
.headline thead small { display: block; font-size: 12px; }
.headline .metric { color: var(--muted); font-size: 12.5px; font-weight: 500; padding-top: 8px;
  border-bottom: 1px solid var(--line); }
.headline tbody th { font-weight: 400; }
.headline .mine th { font-weight: 700; }
.headline small { font-size: 12px; }
.headline td small { white-space: nowrap; }
.meter { position: relative; height: 8px; margin: 1px 0 3px; background: var(--bar);
  border-radius: 2px; }
.meter i, .meter u { position: absolute; top: 0; bottom: 0; left: 0; display: block; }
.meter i { background: var(--muted); border-radius: 2px; }
.mine .meter i { background: var(--accent); }
.meter u { top: 3px; bottom: 3px; background: var(--ink); outline: 1px solid var(--paper); }
.checks { list-style: none; margin: 0; padding: 0; font-size: 14px; }
.checks li { display: grid; grid-template-columns: 20px 116px minmax(0, 1fr); gap: 8px;
  padding: 4px 0; border-top: 1px solid var(--line); align-items: baseline; }
.checks li:first-child { border-top: 0; }
.checks b { font-weight: 500; color: var(--muted); }
.checks span { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
#training .cards { margin-top: 12px; }
.mark { text-align: center; border-radius: 99px; width: 20px; height: 20px; line-height: 20px;
  font-weight: 700; font-size: 12.5px; color: var(--muted); }
.mark.good { background: var(--good); color: var(--right); }
.mark.bad { background: var(--wrong); color: var(--paper); }

.results { margin-bottom: 18px; }
.results.wide { width: 100%; }
.results thead th { color: var(--muted); font-size: 12px; font-weight: 500; }
.results thead tr:last-child th { border-bottom: 1px solid var(--line); }
.results .group { text-align: center; color: var(--ink); font-weight: 600; }
.results tbody tr.first > * { border-top: 1px solid var(--line); }
.results tbody th { vertical-align: top; white-space: nowrap; }
.results tbody th small { display: block; font: 11px ui-monospace, monospace; }
.results tbody .model { font-weight: 400; }
.results td { white-space: nowrap; }
.number { text-align: right !important; font-variant-numeric: tabular-nums; }
.edge { padding-left: 22px; }
.baseline td, .baseline .model { color: var(--muted); }
.best { font-weight: 700; color: var(--ink) !important; }

.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr));
  gap: 22px 18px; }
figure { margin: 0; min-width: 0; }
figcaption { display: flex; justify-content: space-between; gap: 12px; align-items: baseline;
  margin: 0 2px 4px; font-size: 13.5px; }
figcaption b { white-space: nowrap; }
figcaption span { color: var(--muted); font-size: 12.5px; text-align: right; }
.figure { width: 100%; max-width: 640px; display: block; margin: 0 auto; }

.image { display: block; width: 76px; height: 76px; object-fit: contain; border-radius: 8px;
  background: #fff; border: 1px solid var(--line); }
.image.grid { width: 100%; height: auto; image-rendering: pixelated; }
.rank { display: inline-block; font-size: 12px; border-radius: 99px; padding: 1px 9px;
  white-space: nowrap; font-variant-numeric: tabular-nums; }
.rank.good { background: var(--good); color: var(--right); }
.rank.fair { background: var(--fair); color: var(--fair-ink); }
.rank.poor { background: var(--bar); color: var(--muted); }

.queries { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 500px), 1fr));
  gap: 22px 32px; }
.queries article { display: flex; gap: 16px; min-width: 0; }
.queries .asked { text-align: center; flex: none; }
.queries .asked .image { width: 104px; height: 104px; margin-bottom: 6px; }
.answers { min-width: 0; flex: 1; }
ol { list-style: none; margin: 0; padding: 0; }
ol li { position: relative; display: flex; gap: 10px; padding: 2px 8px; border-radius: 5px;
  overflow: hidden; margin-bottom: 2px; }
ol li i { position: absolute; inset: 0 auto 0 0; background: var(--bar); }
ol li.hit i { background: var(--hit); }
ol li span { position: relative; flex: 1; overflow-wrap: anywhere; }
ol li.hit span { font-weight: 600; color: var(--right); }
ol li.hit span::after { content: " ✓"; }
em { position: relative; font-style: normal; color: var(--muted); font-size: 12.5px;
  font-variant-numeric: tabular-nums; }
.own { margin: 5px 8px 0; color: var(--muted); font-size: 12.5px; }

.rows article { display: grid; grid-template-columns: minmax(150px, 1fr) minmax(0, 3fr); gap: 20px;
  align-items: center; padding: 10px 0; border-top: 1px solid var(--line); }
.rows article:first-child { border-top: 0; padding-top: 0; }
.rows .asked q { display: block; font-size: 16px; font-weight: 600; margin-bottom: 4px;
  overflow-wrap: anywhere; }
.rows .answers { display: flex; gap: 14px; flex-wrap: wrap; }
.rows .answers div { text-align: center; }
.rows .image { width: 84px; height: 84px; }
.rows .missed { margin-left: auto; }
.rows .missed .image { border: 2px dashed var(--right); }
.rows .hit .image { border-color: var(--right); box-shadow: 0 0 0 2px var(--right); }
.rows .hit em { color: var(--right); font-weight: 700; }
.rows .hit em::before { content: "✓ "; }

.side { display: flex; flex-wrap: wrap; gap: 28px; align-items: flex-start; }
.matrix { font-size: 12.5px; margin-right: 84px; }
.matrix th { font-weight: 500; white-space: nowrap; padding: 2px 10px 2px 0; text-align: right; }
.matrix th small { margin-left: 6px; }
.matrix td { min-width: 34px; height: 30px; padding: 0 3px; text-align: center;
  border: 2px solid var(--paper); background-clip: padding-box; border-radius: 6px;
  font-variant-numeric: tabular-nums; }
.matrix td { background-color: color-mix(in srgb, var(--cell-wrong) var(--of), var(--paper)); }
.matrix td.same { background-color: color-mix(in srgb, var(--cell-right) var(--of), var(--paper)); }
.matrix td.dark { color: var(--on-cell); font-weight: 600; }
.matrix .tilt { height: 116px; vertical-align: bottom; padding: 0; width: 34px; min-width: 34px; }
.matrix .tilt span { display: block; width: 20px; transform-origin: 0 100%; text-align: left;
  transform: translate(22px, -4px) rotate(-50deg); }
.mistakes { font-size: 13px; }
.mistakes th { color: var(--muted); font-size: 12px; font-weight: 500;
  border-bottom: 1px solid var(--line); }
.mistakes td { padding: 3px 10px; }

.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(226px, 1fr)); gap: 18px; }
.pair { display: flex; gap: 4px; }
.pair .image { width: 112px; height: auto; }

.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr));
  gap: 18px 14px; }
.examples article { min-width: 0; font-variant-numeric: tabular-nums; }
.examples .image { width: 100%; height: auto; aspect-ratio: 1; image-rendering: auto; }
.examples .bar { height: 4px; margin: 6px 0 3px; border-radius: 2px; background: var(--bar); }
.examples .bar i { display: block; height: 100%; border-radius: 2px; background: var(--accent); }
.examples small { float: right; }
.examples p { margin: 0; font-size: 13px; line-height: 1.35; overflow-wrap: anywhere; }
.examples.wide { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
.examples.wide .image { margin-bottom: 6px; }
.examples .own { margin-top: 3px; }
.examples .spectrogram { aspect-ratio: 2; }
.examples audio { width: 100%; height: 32px; margin-top: 4px; }

summary { cursor: pointer; color: var(--accent); }
pre { background: var(--ground); border-radius: 8px; padding: 14px; overflow-x: auto;
  font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, monospace; }
@media print { nav { display: none; } section { break-inside: avoid; } body { background: #fff; } }
"""

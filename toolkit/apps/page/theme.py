"""How the page looks: Streamlit's theme as options, and the style of what Streamlit has no element for.

Nothing is fetched: fonts are those that Streamlit brings along or the system has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

LIGHT = {
    "primaryColor": "#2b6270", "backgroundColor": "#fbfaf7", "secondaryBackgroundColor": "#ffffff",
    "textColor": "#23262b", "borderColor": "#d8d4ca", "linkColor": "#2b6270",
}  # fmt: skip
DARK = {
    "primaryColor": "#6fb3c2", "backgroundColor": "#16181b", "secondaryBackgroundColor": "#1c1f23",
    "textColor": "#e4e2dc", "borderColor": "#3a3e44", "linkColor": "#8cc6d3",
}  # fmt: skip
SHARED: Mapping[str, str] = {"baseRadius": "0.5rem", "baseFontSize": "16", "showWidgetBorder": "true"}


def theme_flags() -> Iterator[str]:
    """The theme as flags of ``streamlit run``; light or dark is what the system says."""
    for section, colours in (("theme", SHARED), ("theme.light", LIGHT), ("theme.dark", DARK)):
        for name, value in colours.items():
            yield f"--{section}.{name}={value}"


# light-dark() follows the color-scheme that Streamlit sets for the theme that is on.
STYLE = """<style>
.stApp { --soft: light-dark(#5a5f66, #a4a6a6); --line: light-dark(#d8d4ca, #3a3e44); --card: light-dark(#ffffff, #1c1f23);
  --track: light-dark(#e9e6de, #2d3136); --positive: light-dark(#24735a, #68bd9c); --negative: light-dark(#a6402f, #e78b78);
  --ambiguous: light-dark(#8a5d00, #dcae55); --neutral: light-dark(#3d6588, #8ab3d8);
  --unsure: light-dark(#62676e, #a4a6a6) }
.stMainBlockContainer { max-width: 62rem; padding-top: 2rem; padding-bottom: 4rem }
.stButtonGroup > div button { min-height: 2.5rem }
.st-key-examples button { justify-content: flex-start; text-align: left }
.stHtml { overflow-wrap: anywhere }
.stHtml h1, .stHtml h2, .stHtml h3, .stHtml p, .stHtml ol, .stHtml dl, .stHtml blockquote { margin: 0; padding: 0 }
.stHtml .masthead { display: flex; flex-wrap: wrap; align-items: baseline; gap: .1rem 1rem }
.stHtml .masthead h1 { font-size: 1.5rem; font-weight: 650; letter-spacing: -.01em }
.stHtml .masthead p, .stHtml .small { color: var(--soft); font-size: .875rem; line-height: 1.45 }
.stHtml .pair { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)) }
.stHtml .reading, .stHtml .parting, .stHtml .chart { background: var(--card); border: 1px solid var(--line);
  border-radius: .75rem; padding: 1.1rem 1.25rem }
.stHtml .reading { display: flex; flex-direction: column; gap: .85rem; --hue: var(--neutral);
  border-top: 3px solid var(--hue) }
.stHtml .positive { --hue: var(--positive) } .stHtml .negative { --hue: var(--negative) }
.stHtml .ambiguous { --hue: var(--ambiguous) } .stHtml .unsure { --hue: var(--unsure) }
.stHtml .lens { color: var(--soft); font-size: .875rem }
.stHtml .reading h2 { font-size: 1.75rem; font-weight: 650; line-height: 1.15; color: var(--hue); margin-top: -.7rem }
.stHtml .reading h2 b { font-weight: 400; font-variant-numeric: tabular-nums }
.stHtml .reading .meaning { margin-top: -.4rem } .stHtml .reading .small + .small { margin-top: -.6rem }
.stHtml .bars { list-style: none; display: grid; gap: .3rem }
.stHtml .bars li { display: grid; grid-template-columns: 8.5rem 1fr 3.2rem; gap: .6rem; align-items: center; margin: 0;
  font-size: .9375rem }
.stHtml .bars.wide li { grid-template-columns: 8.5rem 1fr 7rem }
.stHtml .bars .share { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.stHtml .track { display: block; height: .55rem; border-radius: .3rem; background: var(--track); overflow: hidden }
.stHtml .fill { display: block; height: 100%; border-radius: .3rem; background: var(--hue, var(--neutral)) }
.stHtml .weak { color: var(--soft) } .stHtml .weak .fill { opacity: .5 } .stHtml .strong .name { font-weight: 600 }
.stHtml details { margin-top: -.4rem } .stHtml details .bars { margin-top: .4rem }
.stHtml summary { cursor: pointer; color: var(--soft); font-size: .875rem; padding: .25rem 0; width: fit-content }
.stHtml .reasoning { line-height: 1.55 }
.stHtml blockquote { border-left: 3px solid var(--line); padding-left: .9rem; white-space: pre-wrap; line-height: 1.6 }
.stHtml mark { color: inherit; font-weight: 600; border-radius: .2rem; padding: .05em .15em;
  background: color-mix(in srgb, var(--hue) 18%, transparent); box-shadow: inset 0 -2px 0 var(--hue) }
.stHtml .hidden { color: var(--ambiguous); font-family: monospace; font-size: .875em }
.stHtml .parting { margin-bottom: 1rem; --hue: var(--ambiguous) }
.stHtml .parting h2, .stHtml .chart h3 { font-size: 1.0625rem; font-weight: 600; line-height: 1.4 }
.stHtml .scale { position: relative; margin-top: .8rem }
.stHtml .scale .line { position: absolute; top: -.25rem; width: 2px; height: 1.05rem; background: currentColor }
.stHtml .ends { position: relative; display: flex; justify-content: space-between; color: var(--soft); font-size: .8125rem;
  margin: .3rem 0 .5rem }
.stHtml .parting .ends span[style] { position: absolute; transform: translateX(-50%) }
.stHtml .problem { border: 1px solid var(--negative); border-left-width: 4px; border-radius: .5rem; padding: .75rem 1rem;
  background: color-mix(in srgb, var(--negative) 8%, transparent); display: grid; gap: .2rem }
.stHtml .tiles { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fit, minmax(7rem, 1fr)) }
.stHtml .tiles div { border: 1px solid var(--line); border-radius: .6rem; padding: .6rem .9rem; background: var(--card) }
.stHtml .tiles b { display: block; font-size: 1.375rem; font-weight: 650; font-variant-numeric: tabular-nums }
.stHtml .tiles span { color: var(--soft); font-size: .875rem }
.stHtml .chart h3 { margin-bottom: .7rem }
.stHtml .columns { display: flex; align-items: flex-end; gap: 2px; height: 7rem; border-bottom: 1px solid var(--line) }
.stHtml .columns span { flex: 1; min-height: 1px; border-radius: .2rem .2rem 0 0; background: var(--neutral) }
.stHtml .preview { list-style: none; border-left: 3px solid var(--line); padding-left: .9rem }
.stHtml .preview li { margin: 0; padding: .1rem 0; font-size: .9375rem }
.stHtml .facts { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .35rem 1.2rem }
.stHtml .facts dt { color: var(--soft); font-weight: 400 } .stHtml .facts dd { margin: 0 }
.stHtml .wide-table { overflow-x: auto; border: 1px solid var(--line); border-radius: .6rem; background: var(--card) }
.stHtml table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
.stHtml th, .stHtml td { padding: .45rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line);
  font-weight: 400 }
.stHtml th:first-child { text-align: left } .stHtml tbody tr:last-child > * { border-bottom: 0 }
.stHtml thead th { color: var(--soft); font-size: .875rem }
.stHtml .wide-table + .small { margin-top: .5rem }
@media (max-width: 30rem) {
  .stMainBlockContainer { padding-left: 1rem; padding-right: 1rem; padding-top: 1rem }
  .stHtml .reading, .stHtml .parting, .stHtml .chart { padding: .9rem 1rem }
  .stHtml .bars li { grid-template-columns: 7.2rem 1fr 2.8rem } .stHtml .bars.wide li { grid-template-columns: 7rem 1fr 6rem }
  .stHtml .facts { grid-template-columns: 1fr; gap: 0 } .stHtml .facts dd { margin-bottom: .5rem }
}
@media (prefers-reduced-motion: reduce) { * { transition: none !important; animation-duration: .01s !important } }
</style>"""

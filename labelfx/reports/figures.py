"""Figures as plain SVG text and the page that holds them, for `labelfx.report`: no script, nothing from outside."""

import base64
import colorsys
import html
import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400, 260, 50, 24, 22, 40  # of a figure and its margins, in pixels
LINE = 17  # from one line of text to the next
# Okabe and Ito's colours without yellow: they differ for colour-blind readers too. More lines than that are dashed.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
DASHES = ("", "6 3", "2 2", "8 2 2 2")
GREY = "#888888"
LONG = ' class="long"'  # a cell that is broken into lines
# A table that is wider than the page has a shadow at the side to which there is more of it: two gradients stay at the
# edges, and two that lie over them move with the table.
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#222;max-width:60rem;margin:0 auto;padding:0 1rem 3rem}
h1,h2{line-height:1.2;overflow-wrap:anywhere}h2{margin-top:2.5rem;border-bottom:1px solid #ccc}
figure{display:inline-block;vertical-align:top;width:27rem;max-width:100%;margin:.5rem 1.5rem 1rem 0}
svg{width:100%;height:auto;font:12px system-ui,sans-serif}figcaption,summary,.note{font-size:.9rem;color:#555}
.wide{overflow-x:auto;background:linear-gradient(90deg,#fff 50%,#fff0) 0 0/3rem 100% no-repeat local,
linear-gradient(270deg,#fff 50%,#fff0) 100% 0/3rem 100% no-repeat local,
linear-gradient(90deg,#0003,#0000) 0 0/.8rem 100% no-repeat,
linear-gradient(270deg,#0003,#0000) 100% 0/.8rem 100% no-repeat}
table{border-collapse:collapse;font-size:.85rem;white-space:nowrap}
td,th{border-bottom:1px solid #ddd;padding:.15rem .6rem;text-align:right}td:first-child,th:first-child{text-align:left}
td.long{white-space:normal;min-width:16rem;text-align:left}
pre{overflow-x:auto;background:#f5f5f5;padding:.5rem;font-size:.8rem}
.row{display:flex;flex-wrap:wrap;gap:.5rem;margin:.6rem 0}.shot{width:6rem;font-size:.75rem;line-height:1.25}
.shot img{display:block;width:4rem;height:4rem;object-fit:contain;image-rendering:pixelated;border:3px solid #bbb}
.right img{border-color:#009e73}.wrong img{border-color:#d55e00}
@media(max-width:30rem){figure{margin-right:0}}
"""


class Line(NamedTuple):
    """y over x, each [T]; `sd` [T], where given, is a band around it. A reference is grey."""

    name: str
    x: Any
    y: Any
    sd: Any = None
    reference: bool = False


class Page:
    """The report in HTML and in Markdown, written side by side."""

    def __init__(self, title: str):
        self.html, self.markdown = [f"<h1>{html.escape(title)}</h1>"], [f"# {title}"]
        self.title = title

    def heading(self, text: str) -> None:
        self.html.append(f"<h2>{html.escape(text)}</h2>")
        self.markdown.append(f"## {text}")

    def lead(self, text: str) -> None:
        """What the page is read for."""
        self.html.append(f"<p><b>{html.escape(text)}</b></p>")
        self.markdown.append(f"**{text}**")

    def text(self, text: str) -> None:
        self.html.append(f'<p class="note">{html.escape(text)}</p>')
        self.markdown.append(text)

    def table(self, rows: list, fold: str = "") -> None:
        """The first row is the head. With `fold` it is shown by a click."""
        cells = [[f"{c:.4g}" if isinstance(c, float) else "-" if c is None else str(c) for c in row] for row in rows]
        head, *body = (
            "<tr>" + "".join(f"<{tag}{LONG * (len(c) > 40)}>{html.escape(c)}</{tag}>" for c in row) + "</tr>"
            for tag, row in zip(["th", *["td"] * len(cells)], cells, strict=False)
        )
        text = f'<div class="wide"><table>{head}{"".join(body)}</table></div>'
        self.html.append(f"<details><summary>{fold}</summary>{text}</details>" if fold else text)
        lines = [" | ".join(c.replace("|", "\\|") for c in row) for row in cells]
        lines.insert(1, " | ".join(["---", *["---:"] * (len(cells[0]) - 1)]))
        self.markdown.append("\n".join(f"| {line} |" for line in lines))

    def figure(self, svg: str, title: str, caption: str, numbers: list) -> None:
        named = svg.replace("<svg ", f'<svg aria-label="{html.escape(title)}" ', 1)
        self.html.append(f"<figure>{named}<figcaption><b>{html.escape(title)}.</b> {html.escape(caption)}</figcaption>")
        self.markdown.append(f"**{title}.** {caption}".strip())
        if numbers:
            self.table(numbers, fold="numbers")
        self.html.append("</figure>")

    def pictures(self, images: np.ndarray, texts: Sequence[str], kinds: Sequence[str]) -> None:
        """A row of images, each with a text and a kind, "right", "wrong" or ""."""
        self.html.append('<div class="row">')
        for image, text, kind in zip(images, texts, kinds, strict=False):
            picture = f'<img alt="" src="{png(image)}">'
            self.html.append(f'<div class="shot {kind}">{picture}{html.escape(text)}</div>')
        self.html.append("</div>")

    def code(self, title: str, text: str) -> None:
        self.html.append(f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>")
        self.markdown.append(f"{title}:\n\n```json\n{text}\n```")

    def whole(self) -> str:
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head>\n<body>"
            + "\n".join(self.html)
            + "</body></html>\n"
        )


def lines(found: Sequence[Line], x: str, y: str, *, log: bool = False) -> str:
    """Lines over common axes with a legend below; x and y name the axes. With `log` x is logarithmic, and its ticks are
    the values that there are."""
    across, up = (np.concatenate([np.asarray(line[i], float) for line in found]) for i in (1, 2))
    spread = np.concatenate([np.zeros(len(line.y)) if line.sd is None else np.asarray(line.sd) for line in found])
    bottom, top = _room(np.min(up - spread), np.max(up + spread))
    left, right = _room(*np.log([across.min(), across.max()])) if log else (across.min(), across.max() or 1)
    left, right = (left, right) if right > left else (left - 1, right + 1)
    plot_right, plot_bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def at(values, low, high, begin, end):
        return begin + (np.asarray(values, float) - low) / (high - low) * (end - begin)

    def place(xs, ys):
        xs = at(np.log(xs) if log else xs, left, right, LEFT, plot_right)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(xs, at(ys, bottom, top, plot_bottom, TOP), strict=True))

    parts = []
    for tick in _ticks(bottom, top):
        (height,) = at([tick], bottom, top, plot_bottom, TOP)
        parts.append(f'<path d="M{LEFT} {height:.1f}H{plot_right}" stroke="#e4e4e4"/>')
        parts.append(_text(LEFT - 5, height + 4, _short(tick), "end"))
    free = math.inf
    for tick in sorted(np.unique(across) if log else _ticks(left, right), reverse=True):
        (along,) = at([math.log(tick) if log else tick], left, right, LEFT, plot_right)
        parts.append(f'<path d="M{along:.1f} {plot_bottom}v4" stroke="#666"/>')
        half = 3.5 * len(_short(tick))
        if along + half < free:  # where ticks are close the larger one has its number
            parts.append(_text(along, plot_bottom + LINE, _short(tick), "middle"))
            free = along - half
    parts.append(f'<path d="M{LEFT} {TOP}V{plot_bottom}H{plot_right}" fill="none" stroke="#666"/>')
    parts.append(_text((LEFT + plot_right) / 2, HEIGHT - 6, x, "middle"))
    parts.append(_text(4, 12, y))
    for row, line in enumerate(found):
        colour, dash = _style(row, line)
        if line.sd is not None:
            low, high = np.asarray(line.y) - line.sd, np.asarray(line.y) + line.sd
            around = place(line.x, high) + " " + place(line.x[::-1], low[::-1])
            parts.append(f'<polygon points="{around}" fill="{colour}" opacity="0.15"/>')
        points = place(line.x, line.y)
        stroke = f'stroke="{colour}" stroke-width="1.7" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{points}" fill="none" {stroke}/>')
        if len(line.x) <= 20 and not line.reference:
            dots = (f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="2.5"/>' for p in points.split())
            parts.append(f'<g fill="{colour}">{"".join(dots)}</g>')
        if len(found) > 1:
            below = HEIGHT + 6 + LINE * row
            parts.append(f'<path d="M{LEFT} {below}h26" {stroke}/>')
            parts.append(_text(LEFT + 34, below + 4, line.name, limit=50))
    return _svg(parts, HEIGHT + (LINE * len(found) if len(found) > 1 else 0))


def bars(found: Sequence[Line]) -> str:
    """Horizontal bars from 0 to 1, of each line's first value, with that in % and a whisker of one sd."""
    begin, parts = 16 + 7 * min(max(len(line.name) for line in found), 24), []
    scale = WIDTH - begin - 62
    for row, line in enumerate(found):
        top, value, sd = 4 + 20 * row, line.y[0], line.sd[0] if line.sd else 0
        parts.append(_text(begin - 6, top + 12, line.name, "end", limit=24))
        colour = GREY if line.reference else COLOURS[0]
        parts.append(f'<rect x="{begin}" y="{top}" width="{value * scale:.1f}" height="15" fill="{colour}"/>')
        if sd:
            low, high = (begin + max(value + sign * sd, 0) * scale for sign in (-1, 1))
            parts.append(f'<path d="M{low:.1f} {top + 7.5}H{high:.1f}" stroke="#000" stroke-width="2"/>')
        parts.append(_text(begin + min(value + sd, 1.02) * scale + 5, top + 12, f"{100 * value:.1f}"))
    return _svg(parts, 8 + 20 * len(found))


def matrix(counts: np.ndarray, names: Sequence[str]) -> str:
    """Confusion matrix [true, predicted]: a row's cells are shaded by their share of the row."""
    begin = 24 + 7 * min(max(map(len, names)), 10)
    size = (WIDTH - begin - 4) / len(names)
    turn = -90 if max(map(len, names)) * 7 > size else 0
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    parts = [_text(begin + size * len(names) / 2, 12, "predicted", "middle")]
    parts.append(f'<g transform="rotate(-90 12 {begin + 100})">{_text(12, begin + 100, "true", "middle")}</g>')
    for i, name in enumerate(names):
        along = begin + size * (i + 0.5)
        parts.append(_text(begin - 4, along + 4, name, "end", limit=10))
        above = _text(along + 4, begin - 4, name, limit=10) if turn else _text(along, begin - 4, name, "middle")
        parts.append(f'<g transform="rotate({turn} {along + 4:.1f} {begin - 4})">{above}</g>')
        for j, count in enumerate(counts[i]):
            x, y = begin + size * j, begin + size * i
            fill = COLOURS[0] if i == j else COLOURS[1]
            parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{size:.1f}" height="{size:.1f}" fill="#f4f4f4"/>')
            if count:
                at = f'x="{x:.1f}" y="{y:.1f}" width="{size:.1f}" height="{size:.1f}"'
                parts.append(f'<rect {at} fill="{fill}" opacity="{0.15 + 0.85 * share[i, j]:.2f}"/>')
            if count and size > 20:
                colour = "#fff" if share[i, j] > 0.5 else "#000"
                parts.append(_text(x + size / 2, y + size / 2 + 4, str(count), "middle", colour))
    return _svg(parts, math.ceil(begin + size * len(names) + 4))


def scatter(points: np.ndarray, classes: np.ndarray, names: Sequence[str]) -> str:
    """Points [N, 2] in the colour of their class [N], whose name stands at their median."""
    low, high = points.min(0, keepdims=True), points.max(0, keepdims=True)
    places = 10 + (points - low) / np.maximum(high - low, 1e-9) * np.array([[WIDTH - 20, WIDTH - 20]])
    parts = []
    for index in np.unique(classes):
        own, colour = places[classes == index], _colour(int(index), len(names))
        dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in own)
        parts.append(f'<g fill="{colour}" opacity="0.7">{dots}</g>')
    parts.append('<g stroke="#fff" stroke-width="4" paint-order="stroke" font-weight="bold">')
    for index in np.unique(classes):
        x, y = np.median(places[classes == index], 0)
        parts.append(_text(x, y + 4, names[index], "middle", limit=12))
    return _svg([*parts, "</g>"], WIDTH)


def png(image: np.ndarray, most: int = 96) -> str:
    """An image, uint8 [H, W, C], as the address of an inline PNG of at most `most` pixels a side."""
    grey = image.shape[-1] != 3
    picture = Image.fromarray(image.mean(-1).astype(np.uint8) if grey else image)
    picture.thumbnail((most, most))
    file = io.BytesIO()
    picture.save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def alone(svg: str) -> str:
    """A figure as a file of its own, on white."""
    style = "font:12px system-ui,sans-serif;background:#fff"
    return svg.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" style="{style}" ', 1) + "\n"


def _svg(parts: Sequence[str], height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">' + "".join(parts) + "</svg>"


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#222", limit: int = 60) -> str:
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{html.escape(text)}</text>'


def _style(number: int, line: Line) -> tuple[str, str]:
    """Colour and dashes of a line; references come last."""
    if line.reference:
        return GREY, DASHES[1 + number % 3]
    return COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]


def _colour(index: int, count: int) -> str:
    """Hues around the circle, light and dark by turns."""
    channels = colorsys.hls_to_rgb(index / max(count, 1), (0.45, 0.6, 0.32)[index % 3], 0.75)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


def _room(low: float, high: float) -> tuple[float, float]:
    margin = 0.04 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _ticks(low: float, high: float) -> np.ndarray:
    """About five round numbers within."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    return np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step


def _short(value: float) -> str:
    if 1e3 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) < 1e3 else f"{value:.3g}".replace("e+0", "e").replace("e+", "e")

"""Figures as plain SVG text and the page that holds them, for `labelfx.report`: no script, nothing from outside. Values
are shown by the browser where the pointer rests, lines are switched by style sheets."""

import base64
import colorsys
import contextlib
import html
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

# Of a figure and its margins, in pixels. Text is so large that it has 13 pixels where a phone is 390 wide.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400, 280, 62, 36, 28, 50
WIDE = 900, 440  # of the figure that is as wide as the page
LETTER, LINE = 9, 20  # width of a letter, from one line to the next
MANY = 20  # points on a line, up to which each has a dot; classes, up to which each has its name
# Okabe and Ito's colours without yellow: they differ for colour-blind readers too. More lines than that are dashed.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
DASHES = {"solid": "", "dashed": "6 3", "dotted": "2 2", "double": "8 2 2 2"}  # by the border that looks alike
GREY = "#767676"
FULL = '<figure class="full">'
LONG = ' class="long"'  # a cell that is broken into lines
SMALL = 64  # pixels a side, up to which an image loses none of them
# A table that is wider than the page has a shadow at the side to which there is more of it: two gradients stay at the
# edges, and two that lie over them move with the table. On a phone each row becomes a paragraph.
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#222;max-width:60rem;margin:0 auto;padding:0 1rem 3rem}
h1,h2{line-height:1.2;overflow-wrap:anywhere}h2{margin-top:2.5rem;border-bottom:1px solid #ccc}
summary h2{display:inline}.answer{font-size:1.15rem}p,summary,figcaption{overflow-wrap:anywhere}
figure{display:inline-block;vertical-align:top;width:27rem;max-width:100%;margin:.5rem 1.5rem 1rem 0}
figure.full{display:block;width:auto;margin-right:0}.full .narrow{display:none;max-width:30rem}
svg{width:100%;height:auto;font:15px system-ui,sans-serif}figcaption,summary,.note{font-size:.9rem;color:#555}
.switches label{display:inline-block;margin-right:1.2rem;font-size:.9rem;overflow-wrap:anywhere}
.full .band{opacity:.07}.full g:hover>.band{opacity:.25}
i{display:inline-block;width:1.6rem;border-top:3px solid;margin-right:.4rem;vertical-align:middle}
.wide{overflow-x:auto;background:linear-gradient(90deg,#fff 50%,#fff0) 0 0/3rem 100% no-repeat local,
linear-gradient(270deg,#fff 50%,#fff0) 100% 0/3rem 100% no-repeat local,
linear-gradient(90deg,#0003,#0000) 0 0/.8rem 100% no-repeat,
linear-gradient(270deg,#0003,#0000) 100% 0/.8rem 100% no-repeat}
table{border-collapse:collapse;font-size:.85rem;white-space:nowrap;margin-bottom:1rem}
td,th{border-bottom:1px solid #ddd;padding:.15rem .6rem;text-align:right}td:first-child,th:first-child{text-align:left}
.long{white-space:normal;min-width:12rem;text-align:left}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f5f5f5;padding:.5rem;font-size:.85rem}
.row{display:flex;flex-wrap:wrap;gap:.5rem;margin:.6rem 0}
.shot{width:6.6rem;font-size:.82rem;line-height:1.3;overflow-wrap:anywhere}
.shot img{display:block;width:4rem;height:4rem;object-fit:contain;border:3px solid #bbb}
.shot .small{image-rendering:pixelated}
.sample{width:5.3rem}.right img{border-color:#009e73}.wrong img{border-color:#d55e00}
@media(max-width:56rem){.full .broad{display:none}.full .narrow{display:block}}
@media(max-width:40rem){figure{margin-right:0}table,tbody,tr,td,th:first-child{display:block;white-space:normal;overflow-wrap:anywhere}
th:not(:first-child){display:none}tr{border-bottom:1px solid #ddd;padding:.3rem 0}
td,th,.long{border:0;padding:0;min-width:0;text-align:left}
td:first-child{font-weight:bold}td:not(:first-child)::before{content:attr(data-head) ": ";color:#555}}
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
        self.missing: list[str] = []  # what could not be shown, and why

    def heading(self, text: str) -> None:
        self.html.append(f"<h2>{html.escape(text)}</h2>")
        self.markdown.append(f"## {text}")

    def lead(self, head: str, text: str) -> None:
        """What the page is read for."""
        self.html.append(f'<p class="answer"><b>{html.escape(head)}</b>: {html.escape(text)}</p>')
        self.markdown.append(f"**{head}**: {text}")

    def text(self, text: str) -> None:
        self.html.append(f'<p class="note">{html.escape(text)}</p>')
        self.markdown.append(text)

    @contextlib.contextmanager
    def folded(self, heading: str) -> Iterator[None]:
        """What is written within is shown by a click."""
        self.heading(heading)
        self.html[-1] = f"<details><summary>{self.html[-1]}</summary>"
        yield
        self.html.append("</details>")

    def table(self, rows: list, fold: str = "", marks: Mapping[str, str] | None = None) -> None:
        """The first row is the head. With `fold` it is shown by a click. marks: of first cells, see `mark`."""
        cells = [[f"{c:.4g}" if isinstance(c, float) else "-" if c is None else str(c) for c in row] for row in rows]
        long = [LONG * any(len(c) > 30 for c in column[1:]) for column in zip(*cells, strict=True)]
        heads = [f'{kind} data-head="{html.escape(head)}"' for head, kind in zip(cells[0], long, strict=True)]
        lines = ["".join(f"<th{kind}>{html.escape(c)}</th>" for c, kind in zip(cells[0], long, strict=True))]
        for first, *rest in cells[1:]:
            first = f"<td{long[0]}>{(marks or {}).get(first, '')}{html.escape(first)}</td>"
            pairs = zip(heads[1:], rest, strict=True)
            lines.append(first + "".join(f"<td{h}>{html.escape(c)}</td>" for h, c in pairs))
        text = f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'
        self.html.append(f"<details><summary>{fold}</summary>{text}</details>" if fold else text)
        lines = [" | ".join(c.replace("|", "\\|") for c in row) for row in cells]
        lines.insert(1, " | ".join(["---", *["---:"] * (len(cells[0]) - 1)]))
        self.markdown.append("\n".join(f"| {line} |" for line in lines))

    def figure(self, svg: str, title: str, caption: str, numbers: list, full: bool = False) -> None:
        """With `full` it is as wide as the page."""
        named = svg.replace("<svg ", f'<svg aria-label="{html.escape(title)}" ', 1)
        said = f"<figcaption><b>{html.escape(title)}.</b> {html.escape(caption)}</figcaption>"
        self.html.append(f"{FULL if full else '<figure>'}{named}{said}")
        self.markdown.append(f"**{title}.** {caption}".strip())
        if numbers:
            self.table(numbers, fold="numbers")
        self.html.append("</figure>")

    def pictures(self, images: Sequence[np.ndarray], texts: Sequence[str], kinds: Sequence[str]) -> None:
        """Images [H, W, C], or some [K, H, W, C] above each other, each with a text and a kind, "right", "wrong",
        "sample" or ""."""
        self.html.append('<div class="row">')
        for found, text, kind in zip(images, texts, kinds, strict=True):
            small = ' class="small"' * (max(found.shape[-3:-1]) <= SMALL)
            every = found if found.ndim == 4 else found[None]
            each = "".join(f'<img{small} alt="" src="{inline(image)}">' for image in every)
            self.html.append(f'<div class="shot {kind}">{each}{html.escape(text)}</div>')
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


def lines(found: Sequence[Line], x: str, y: str, *, log: bool = False, full: bool = False, legend: bool = True) -> str:
    """Lines over common axes; x and y name the axes. A dot, and the column of all that are above each other, tell their
    values where the pointer rests. With `log` x is logarithmic, and its ticks are the values that there are. With
    `full` it is as wide as the page."""
    width, height = WIDE if full else (WIDTH, HEIGHT)
    across, up = (np.concatenate([np.asarray(line[i], float) for line in found]) for i in (1, 2))
    spread = np.concatenate([np.zeros(len(line.y)) if line.sd is None else np.asarray(line.sd) for line in found])
    bottom, top = _room(np.min(up - spread), np.max(up + spread))
    left, right = _room(*np.log([across.min(), across.max()])) if log else (across.min(), across.max() or 1)
    left, right = (left, right) if right > left else (left - 1, right + 1)
    plot_right, plot_bottom = width - RIGHT, height - BOTTOM

    def at(values, low, high, begin, end):
        return begin + (np.asarray(values, float) - low) / (high - low) * (end - begin)

    def place(xs, ys):
        xs = at(np.log(xs) if log else xs, left, right, LEFT, plot_right)
        return [f"{a:.1f},{b:.1f}" for a, b in zip(xs, at(ys, bottom, top, plot_bottom, TOP), strict=True)]

    parts = []
    for tick in _ticks(bottom, top):
        (up_to,) = at([tick], bottom, top, plot_bottom, TOP)
        parts.append(f'<path d="M{LEFT} {up_to:.1f}H{plot_right}" stroke="#e4e4e4"/>')
        parts.append(_text(LEFT - 5, up_to + 5, _short(tick), "end"))
    free = math.inf
    for tick in sorted(np.unique(across) if log else _ticks(left, right), reverse=True):
        (along,) = at([math.log(tick) if log else tick], left, right, LEFT, plot_right)
        parts.append(f'<path d="M{along:.1f} {plot_bottom}v4" stroke="#666"/>')
        half = LETTER / 2 * len(_short(tick)) + 2
        if along + half < free:  # where ticks are close the larger one has its number
            parts.append(_text(along, plot_bottom + LINE, _short(tick), "middle"))
            free = along - half
    parts.append(f'<path d="M{LEFT} {TOP}V{plot_bottom}H{plot_right}" fill="none" stroke="#666"/>')
    parts.append(_text((LEFT + plot_right) / 2, height - 7, x, "middle"))
    parts.append(_text(4, 15, y))
    for one in np.unique(across) if len(np.unique(across)) <= MANY else ():  # where dots lie over each other
        (along,) = (float(point.split(",")[0]) for point in place([one], [top]))
        here = [(y_, line.name) for line in found for x_, y_ in zip(line.x, line.y, strict=True) if x_ == one]
        said = html.escape(
            "\n".join([f"{_short(one)} {x}", *(f"{name}: {_short(y_)}" for y_, name in sorted(here)[::-1])])
        )
        size = f'width="40" height="{plot_bottom - TOP}"'
        parts.append(f'<rect x="{along - 20:.1f}" y="{TOP}" {size} opacity="0"><title>{said}</title></rect>')
    for row, line in enumerate(found):
        colour, dash = _style(row, line)
        parts.append(f'<g class="s{row}"><title>{html.escape(line.name)}</title>')
        if line.sd is not None:
            low, high = np.asarray(line.y) - line.sd, np.asarray(line.y) + line.sd
            around = " ".join([*place(line.x, high), *place(line.x[::-1], low[::-1])])
            parts.append(
                f'<polygon points="{around}" fill="{colour}" class="band" opacity="0.15" pointer-events="none"/>'
            )
        points = place(line.x, line.y)
        stroke = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{DASHES[dash]}"'
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" {stroke}/>')
        sds = [0.0] * len(points) if line.sd is None else line.sd
        for point, one, value, sd in zip(points, line.x, line.y, sds, strict=True) if len(points) <= MANY else ():
            said = f"{line.name}: {_short(value)}{f' ± {_short(sd)}' if sd else ''} ({y}), {_short(one)} {x}"
            dot = 'cx="{}" cy="{}"'.format(*point.split(","))
            parts.append(f'<g><title>{html.escape(said)}</title><circle {dot} r="3" fill="{colour}"/>')
            parts.append(f'<circle {dot} r="6" opacity="0"/></g>')  # that is easy to point at
        parts.append("</g>")
        if len(found) > 1 and legend:
            below = height + 6 + LINE * row
            parts.append(f'<path d="M{LEFT} {below}h26" {stroke}/>')
            parts.append(_text(LEFT + 34, below + 5, line.name, limit=38))
    return _svg(parts, height + (LINE * len(found) if len(found) > 1 and legend else 0), width)


def switches(found: Sequence[Line], x: str, y: str, *, log: bool = False) -> str:
    """HTML of `lines` as wide as the page, with boxes that switch each of them off; narrower on narrow screens."""
    broad, narrow = (lines(found, x, y, log=log, full=full, legend=False) for full in (True, False))
    boxes = (
        f'<label><input type="checkbox" class="t{row}" checked> {mark(row, line)}{html.escape(line.name)}</label>'
        for row, line in enumerate(found)
    )
    rules = (f".full:has(.t{row}:not(:checked)) .s{row}{{display:none}}" for row in range(len(found)))
    narrow = narrow.replace("<svg ", '<svg class="narrow" ', 1)
    broad = broad.replace("<svg ", '<svg class="broad" ', 1)
    return f'{broad}{narrow}<style>{"".join(rules)}</style><div class="switches">{"".join(boxes)}</div>'


def mark(number: int, line: Line) -> str:
    """HTML of the colour and dashes of a line."""
    colour, dash = _style(number, line)
    return f'<i style="border-top:3px {dash} {colour}"></i>'


def bars(found: Sequence[Line], x: str) -> str:
    """Horizontal bars from 0 to 1, of each line's first value, with that in % and a whisker of one sd; x names the
    axis."""
    begin, parts, below = 12 + LETTER * min(max(len(line.name) for line in found), 20), [], 6 + 24 * len(found)
    scale = WIDTH - begin - 64
    for share in (0, 0.5, 1):
        parts.append(f'<path d="M{begin + share * scale:.1f} 2V{below}" stroke="#ccc"/>')
        parts.append(_text(begin + share * scale, below + 16, f"{100 * share:.0f}", "middle"))
    parts.append(_text(begin + scale / 2, below + 36, x, "middle"))
    for row, line in enumerate(found):
        top, value, sd = 4 + 24 * row, line.y[0], line.sd[0] if line.sd else 0
        said = f"{line.name}: {100 * value:.2f}{f' ± {100 * sd:.2f}' if sd else ''} ({x})"
        parts.append(f"<g><title>{html.escape(said)}</title>")
        parts.append(_text(begin - 6, top + 14, line.name, "end", limit=20))
        colour = GREY if line.reference else COLOURS[0]
        parts.append(f'<rect x="{begin}" y="{top}" width="{value * scale:.1f}" height="18" fill="{colour}"/>')
        if sd:
            low, high = (begin + max(value + sign * sd, 0) * scale for sign in (-1, 1))
            parts.append(f'<path d="M{low:.1f} {top + 9}H{high:.1f}" stroke="#000" stroke-width="2"/>')
        parts.append(_text(begin + min(value + sd, 1.02) * scale + 5, top + 14, f"{100 * value:.1f}") + "</g>")
    return _svg(parts, below + 42)


def matrix(counts: np.ndarray, names: Sequence[str]) -> str:
    """Confusion matrix [true, predicted]: a row's cells are shaded by their share of the row."""
    begin = 36 + LETTER * min(max(map(len, names)), 10)
    size = (WIDTH - begin - 4) / len(names)
    turn = -90 if max(map(len, names)) * LETTER > size else 0
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    parts = [_text(begin + size * len(names) / 2, 15, "predicted", "middle")]
    parts.append(f'<g transform="rotate(-90 15 {begin + 100})">{_text(15, begin + 100, "true", "middle")}</g>')
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
                said = html.escape(f"{count} of {name} taken for {names[j]}")
                shade = f'fill="{fill}" opacity="{0.15 + 0.85 * share[i, j]:.2f}"'
                parts.append(f"<rect {at} {shade}><title>{said}</title></rect>")
            if count and size > LETTER * len(str(count)):
                colour = "#fff" if share[i, j] > 0.5 else "#000"
                parts.append(_text(x + size / 2, y + size / 2 + 5, str(count), "middle", colour))
    return _svg(parts, math.ceil(begin + size * len(names) + 4))


def scatter(points: np.ndarray, classes: np.ndarray, names: Sequence[str]) -> str:
    """Points [N, 2] in the colour of their class [N], whose name stands at their median, unless there are too many."""
    low, high = points.min(0, keepdims=True), points.max(0, keepdims=True)
    places = 10 + (points - low) / np.maximum(high - low, 1e-9) * np.array([[WIDTH - 20, WIDTH - 20]])
    parts = []
    for index in np.unique(classes):
        own, colour = places[classes == index], _colour(int(index), len(names))
        dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in own)
        parts.append(f'<g fill="{colour}" opacity="0.7"><title>{html.escape(names[index])}</title>{dots}</g>')
    parts.append('<g stroke="#fff" stroke-width="4" paint-order="stroke" font-weight="bold">')
    for index in np.unique(classes) if len(names) <= MANY else ():
        x, y = np.median(places[classes == index], 0)
        half = LETTER / 2 * min(len(names[index]), 12)
        x = min(max(x, half), WIDTH - half)
        parts.append(_text(x, y + 4, names[index], "middle", limit=12))
    return _svg([*parts, "</g>"], WIDTH)


def to_picture(pixels: np.ndarray) -> Image.Image:
    """Of an image uint8 [H, W, C], or float in [0, 1]; grey unless C is 3."""
    if pixels.dtype != np.uint8:
        pixels = np.round(255 * pixels.clip(0, 1)).astype(np.uint8)
    return Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels.mean(-1).astype(np.uint8))


def inline(image: np.ndarray, most: int = 96) -> str:
    """An image, see `to_picture`, as the address of an inline PNG or, where it is large, JPEG, of at most `most` pixels
    a side."""
    picture, file = to_picture(image), io.BytesIO()
    kind = "jpeg" if max(picture.size) > SMALL else "png"
    picture.thumbnail((most, most))
    picture.save(file, kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def alone(svg: str) -> str:
    """A figure as a file of its own, on white."""
    style = "font:15px system-ui,sans-serif;background:#fff"
    return svg.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" style="{style}" ', 1) + "\n"


def _svg(parts: Sequence[str], height: int, width: int = WIDTH) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img">' + "".join(parts) + "</svg>"


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#222", limit: int = 60) -> str:
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{html.escape(text)}</text>'


def _style(number: int, line: Line) -> tuple[str, str]:
    """Colour and a key of `DASHES` of a line; references come last."""
    if line.reference:
        return GREY, [*DASHES][1 + number % 3]
    return COLOURS[number % len(COLOURS)], [*DASHES][number // len(COLOURS) % len(DASHES)]


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

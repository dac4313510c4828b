"""Pictures as SVG, written by hand: bars for comparisons, lines on two logarithmic axes for curves."""

import math
from html import escape

COLOURS = ("#1b6ca8", "#d1495b", "#edae49", "#66a182", "#8d6a9f", "#5c5c5c", "#00798c", "#a44a3f")
STYLE = "font-family:sans-serif;font-size:12px"


def bars(title, groups, show):
    """Horizontal bars: groups are (name, [(series, value)]); `show` makes a text of a value."""
    series = list(dict.fromkeys(name for _, values in groups for name, _ in values))
    left, width, bar, gap = 110, 560, 14, 14
    most = max((value for _, values in groups for _, value in values), default=0) or 1
    parts, y = [], 62 + gap
    for number, name in enumerate(series):
        x = left + number * 95
        parts.append(f'<rect x="{x}" y="34" width="11" height="11" fill="{colour(series, name)}"/>')
        parts.append(text(x + 15, 44, name))
    for group, values in groups:
        parts.append(text(left - 8, y + bar * len(values) / 2 + 4, group, "end"))
        for name, value in values:
            length = max(1, width * value / most)
            parts.append(
                f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 2}" fill="{colour(series, name)}"/>'
            )
            parts.append(text(left + length + 5, y + bar - 4, show(value)))
            y += bar
        y += gap
    return picture(left + width + 90, y, title, parts)


def lines(title, across, up, curves):
    """Lines over two logarithmic axes: curves are (name, [(x, y)], whether dashed); one colour for a name."""
    points = [point for _, line, _ in curves for point in line if point[0] > 0 and point[1] > 0]
    if not points:
        return None
    left, top, width, height = 80, 52, 520, 340
    low_x, high_x = decades(x for x, _ in points)
    low_y, high_y = decades(y for _, y in points)

    def at(x, y):
        return (
            left + width * (math.log10(x) - low_x) / (high_x - low_x),
            top + height * (1 - (math.log10(y) - low_y) / (high_y - low_y)),
        )

    parts = []
    for power in range(low_x, high_x + 1):
        x, _ = at(10**power, 10**low_y)
        parts.append(
            f'<path d="M{x:.1f} {top}V{top + height}" stroke="#ddd"/>'
            + text(x, top + height + 18, label(power), "middle")
        )
    for power in range(low_y, high_y + 1):
        _, y = at(10**low_x, 10**power)
        parts.append(
            f'<path d="M{left} {y:.1f}H{left + width}" stroke="#ddd"/>' + text(left - 8, y + 4, label(power), "end")
        )
    parts.append(text(left + width / 2, top + height + 40, across, "middle"))
    parts.append(text(left - 70, top - 10, up))
    names = list(dict.fromkeys(name for name, _, _ in curves))
    for name, line, dashed in curves:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in sorted(line) if min(point) > 0))
        dash = ' stroke-dasharray="6 4"' if dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour(names, name)}" stroke-width="2"{dash}/>')
        for point in path.split():
            x, y = point.split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour(names, name)}"/>')
    for number, name in enumerate(names):
        y = top + 12 + number * 20
        parts.append(
            f'<rect x="{left + width + 15}" y="{y - 10}" width="11" height="11" fill="{colour(names, name)}"/>'
        )
        parts.append(text(left + width + 31, y, name))
    return picture(left + width + 130, top + height + 55, title, parts)


def decades(values):
    """The powers of ten around values, at least one apart."""
    values = list(values)
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def label(power):
    return f"{10**power:g}" if -3 <= power <= 3 else f"1e{power}"


def colour(names, name):
    return COLOURS[names.index(name) % len(COLOURS)]


def text(x, y, what, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(str(what))}</text>'


def picture(width, height, title, parts):
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" style="{STYLE}">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        f'<text x="12" y="20" style="font-size:14px;font-weight:bold">{escape(title)}</text>\n{body}\n</svg>\n'
    )

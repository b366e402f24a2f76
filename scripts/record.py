"""Records a terminal program as an animated SVG: `scripts/record.py docs/demo.svg trunkline demo`.

The program runs in a pseudo-terminal, pyte (extra `docs`) keeps the screen, and a picture is taken each
time it has changed for a while. The SVG shows one picture after the other by CSS alone, so it plays in a
README.
"""

from __future__ import annotations

import contextlib
import fcntl
import html
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from pathlib import Path

import pyte

COLUMNS, ROWS = 110, 34
EVERY_S = 0.5
CELL_W, CELL_H, MARGIN = 8.4, 17, 14
BACKGROUND, FOREGROUND = "#10141c", "#d6dbe5"
PIECES = re.compile(r"[│┃]|[^\s│┃]+(?: [^\s│┃]+)*")
COLOURS = {
    "black": "#3b4252", "red": "#ff6b6b", "green": "#6bd66b", "brown": "#e5c76b", "blue": "#6ba6ff",
    "magenta": "#d68bff", "cyan": "#5ad1d1", "white": "#d6dbe5", "default": FOREGROUND,
    "brightblack": "#7a8499", "brightred": "#ff8f8f", "brightgreen": "#8fe88f", "brightbrown": "#f2dc8f",
    "brightblue": "#8fbcff", "brightmagenta": "#e3a8ff", "brightcyan": "#85e3e3", "brightwhite": "#ffffff",
}  # fmt: skip


def run(command: list[str]) -> list[tuple[float, list[str]]]:
    """The command's screens as SVG rows, with the second at which each appeared."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        os.execvp(command[0], command)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    frames: list[tuple[float, list[str]]] = []
    start = next_at = time.monotonic()
    with contextlib.suppress(OSError):  # the end of a pseudo-terminal
        while True:
            if select.select([fd], [], [], EVERY_S)[0]:
                data = os.read(fd, 65536)
                if not data:
                    break
                stream.feed(data)
            if time.monotonic() >= next_at:
                _keep(frames, time.monotonic() - start, screen)
                next_at = time.monotonic() + EVERY_S
    _keep(frames, time.monotonic() - start, screen)
    os.waitpid(pid, 0)
    return frames


def _keep(frames: list[tuple[float, list[str]]], at: float, screen: pyte.Screen) -> None:
    rows = [_row(screen, y) for y in range(ROWS)]
    if any(rows) and (not frames or frames[-1][1] != rows):
        frames.append((at, rows))


def _row(screen: pyte.Screen, y: int) -> str:
    """One row as SVG text, a tspan for each run of one colour."""
    line = screen.buffer[y]
    runs: list[tuple[int, str, bool, str]] = []
    for x in range(COLUMNS):
        cell = line[x]
        style = (_colour(cell.fg), cell.bold)
        if runs and runs[-1][1:3] == style:
            runs[-1] = (*runs[-1][:3], runs[-1][3] + cell.data)
        else:
            runs.append((x, *style, cell.data))
    return "".join(_span(*run) for run in runs if run[3].strip())


def _span(x: int, colour: str, bold: bool, text: str) -> str:
    weight = ' font-weight="bold"' if bold else ""
    # Whatever font the reader has, each piece stands in its own cells.
    return "".join(
        f'<tspan x="{MARGIN + (x + piece.start()) * CELL_W:.1f}" fill="{colour}"{weight}>'
        f"{html.escape(piece[0])}</tspan>"
        for piece in PIECES.finditer(text)
    )


def _colour(name: str) -> str:
    if name in COLOURS:
        return COLOURS[name]
    return f"#{name}" if len(name) == 6 else FOREGROUND


def svg(frames: list[tuple[float, list[str]]], title: str) -> str:
    """All frames in one picture; each is visible in its part of the period."""
    total = frames[-1][0] - frames[0][0] + 4
    width, height = COLUMNS * CELL_W + 2 * MARGIN, ROWS * CELL_H + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>',
        "<style>text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}"
        ".f{visibility:hidden}",
    ]
    starts = [at - frames[0][0] for at, _ in frames] + [total]
    body = []
    for index, (_, rows) in enumerate(frames):
        begin, end = 100 * starts[index] / total, 100 * starts[index + 1] / total
        last = "visible" if index == len(frames) - 1 else "hidden"
        parts.append(
            f"@keyframes k{index}{{0%{{visibility:{'visible' if index == 0 else 'hidden'}}}"
            f"{begin:.3f}%{{visibility:visible}}{end:.3f}%{{visibility:{last}}}100%{{visibility:{last}}}}}"
            f".k{index}{{animation:k{index} {total:.2f}s step-end infinite}}"
        )
        lines = "".join(
            f'<text y="{MARGIN + (y + 0.8) * CELL_H:.1f}" xml:space="preserve">{row}</text>'
            for y, row in enumerate(rows)
            if row
        )
        body.append(f'<g class="f k{index}">{lines}</g>')
    parts.append("</style>")
    return "\n".join([*parts, *body, "</svg>", ""])


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__)
        return 2
    frames = run(sys.argv[2:])
    Path(sys.argv[1]).write_text(svg(frames, " ".join(sys.argv[2:])))
    print(f"{sys.argv[1]}: {len(frames)} pictures, {frames[-1][0]:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Draw docs/flow.svg, the README's picture of what flows through hwrnn."""

from pathlib import Path

BOXES = {  # name: (x, y, width, lines, kind)
    "data": (20, 150, 130, ["data", ".npz, .csv, built in"], "file"),
    "cell": (230, 20, 330, ["a cell, written once", "c' = f c + i g;  h' = o phi(c')"], "idea"),
    "train": (230, 150, 140, ["train", "numpy, BPTT"], "step"),
    "quantize": (420, 150, 140, ["quantize", "ranges, formats"], "step"),
    "frozen": (620, 150, 150, ["QuantizedModel", "frozen integers"], "file"),
    "golden": (830, 40, 170, ["golden model", "exact integers"], "step"),
    "rtl": (830, 150, 170, ["engine", "pipelined gates"], "step"),
    "onnx": (830, 260, 170, ["ONNX", "integer graph"], "file"),
    "sim": (1070, 95, 170, ["simulate", "every value, every step"], "step"),
    "verilog": (1070, 205, 170, ["Verilog", "manifest, test bench"], "file"),
}
ARROWS = [
    ("data", "train"), ("train", "quantize"), ("quantize", "frozen"), ("frozen", "golden"), ("frozen", "rtl"),
    ("frozen", "onnx"), ("golden", "sim"), ("rtl", "sim"), ("rtl", "verilog"),
]  # fmt: skip
FILL = {"file": "#eef2f7", "step": "#dcebdd", "idea": "#fdf1d6"}
HEIGHT = 62


def drawing() -> str:
    """The picture as SVG text."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1260 340" font-family="Helvetica, Arial, sans-serif">',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L10 5 L0 10 z" fill="#445"/></marker></defs>',
        '<rect width="1260" height="340" fill="white"/>',
    ]
    for start, end in ARROWS:
        x, y, width, _, _ = BOXES[start]
        to_x, to_y, _, _, _ = BOXES[end]
        parts.append(
            f'<line x1="{x + width}" y1="{y + HEIGHT / 2}" x2="{to_x - 3}" y2="{to_y + HEIGHT / 2}" stroke="#445" '
            'stroke-width="1.6" marker-end="url(#tip)"/>'
        )
    # The cell's lines run in training, and in everything that stands in the dashed frame.
    dashed = 'stroke="#c08a1e" stroke-width="1.3" stroke-dasharray="5 4" fill="none"'
    parts.append(f'<path d="M300 82 V150" {dashed}/>')
    parts.append(f'<path d="M560 51 H816" {dashed}/>')
    parts.append(f'<rect x="816" y="26" width="198" height="310" rx="12" {dashed}/>')
    for x, y, width, lines, kind in BOXES.values():
        parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{HEIGHT}" rx="8" fill="{FILL[kind]}" stroke="#778"/>'
        )
        middle = x + width / 2
        parts.append(f'<text x="{middle}" y="{y + 27}" text-anchor="middle" font-size="17">{lines[0]}</text>')
        parts.append(
            f'<text x="{middle}" y="{y + 47}" text-anchor="middle" font-size="12.5" fill="#445">{lines[1]}</text>'
        )
    caption = "The same lines run on floats, symbols, exact integers, gates and graph nodes."
    parts.append(f'<text x="20" y="325" font-size="14" fill="#445">{caption}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    (Path(__file__).resolve().parent.parent / "docs" / "flow.svg").write_text(drawing())

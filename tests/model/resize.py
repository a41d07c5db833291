"""Writes tests/model/resize/*.png: what Pillow makes of a fixed pattern.

Run: python tests/model/resize.py
"""
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 97, 61


def pattern() -> Image.Image:
    """Edges, ramps and noise that a few integer operations make on either side."""
    image = Image.new("RGB", (WIDTH, HEIGHT))
    for y in range(HEIGHT):
        for x in range(WIDTH):
            edge = 200 if (x // 7 + y // 5) % 2 else 20
            noise = (x * 7919 + y * 104729 + x * y * 31) % 251
            image.putpixel((x, y), (edge, (x * 255) // (WIDTH - 1), noise))
    return image


def main() -> None:
    out = Path(__file__).parent / "resize"
    for name, size, resample in [
        ("bilinear_down", (32, 32), Image.Resampling.BILINEAR),
        ("bilinear_letterbox", (48, 30), Image.Resampling.BILINEAR),
        ("bilinear_up", (128, 128), Image.Resampling.BILINEAR),
        ("bicubic_down", (32, 32), Image.Resampling.BICUBIC),
        ("bicubic_up", (128, 128), Image.Resampling.BICUBIC),
        # More than twice as many rows are lost as columns: Pillow begins with the rows.
        ("bilinear_rows_first", (90, 40), Image.Resampling.BILINEAR),
        ("bicubic_rows_first", (120, 30), Image.Resampling.BICUBIC),
        # Exactly twice as many: it does not.
        ("bicubic_columns_first", (90, 47), Image.Resampling.BICUBIC),
    ]:
        pattern().resize(size, resample).save(out / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()

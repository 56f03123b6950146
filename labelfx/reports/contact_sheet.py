"""The page of rows that want a label: a picture or a text each, and its name."""

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

from labelfx.reports.figures import SMALL, Page

SIDES = (320, 240, 160, 96, 64, 32)  # of a picture in pixels: the largest with which the page is small enough
LARGEST = 1_400_000  # bytes of all pictures
LONGEST = 2000  # letters of a text
STYLE = """<style>
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(10rem,1fr));gap:1rem;font-size:.9rem}
.cards div{border:1px solid #ccc;padding:.5rem;overflow-wrap:anywhere}
.cards img{display:block;width:100%;max-height:20rem;object-fit:contain;margin-bottom:.3rem}
.cards .small{image-rendering:pixelated}
.cards p{margin:0 0 .3rem;color:#222}.cards span{color:#555}
</style>"""


def contact_sheet(title: str, lead: str, names: Sequence[str], shown: Sequence[Image.Image | str]) -> str:
    """HTML that needs no network: a card for each row, with its name.

    Args:
      names: one a row.
      shown: pictures, all of which become smaller where the page would be large, or texts.
    """
    page = Page(title)
    page.text(lead)
    pictures = {at: each for at, each in enumerate(shown) if isinstance(each, Image.Image)}
    for side in SIDES:
        encoded = {at: _jpeg(picture, side) for at, picture in pictures.items()}
        if sum(map(len, encoded.values())) <= LARGEST:
            break
    cards = []
    for at, (name, each) in enumerate(zip(names, shown, strict=True)):
        if isinstance(each, str):
            text = f"<p>{html.escape(each[:LONGEST])}</p>"
        else:
            small = ' class="small"' if max(each.size) <= SMALL else ""
            text = f'<img{small} alt="" src="{encoded[at]}">'
        cards.append(f"<div>{text}<span>{html.escape(name)}</span></div>")
    page.html.append(f'{STYLE}<div class="cards">{"".join(cards)}</div>')
    return page.whole()


def _jpeg(picture: Image.Image, side: int) -> str:
    """The address of an inline JPEG of at most `side` pixels a side."""
    small, file = picture.convert("RGB"), io.BytesIO()
    small.thumbnail((side, side))
    small.save(file, "jpeg", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()

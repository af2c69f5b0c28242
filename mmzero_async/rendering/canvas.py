"""The square that every picture is: what an engine drew, in its middle."""

from PIL import Image


def padded(picture: Image.Image, size: int) -> Image.Image:
    """size x size RGB pixels; what an engine left smaller, because it keeps the aspect, is padded
    white on both sides."""
    if picture.size == (size, size):
        return picture
    square = Image.new("RGB", (size, size), "white")
    square.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    return square

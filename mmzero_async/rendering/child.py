"""The renderer's child: SVG in, PNG out, over pipes, under limits. It may die; nobody else does.

resvg holds the GIL, panics, aborts and hangs on some inputs, so it runs in a process of its own
that is warm between renders and is replaced when it is lost. Everything that reads hostile text,
the pre-flight too, happens here. Imports little: it is started again after every loss.
"""

import io
import os
import signal
import threading
import time
from pathlib import Path
from typing import BinaryIO

import msgspec
import resvg_py
from PIL import Image, PngImagePlugin

from mmzero_async.rendering.frames import (
    Options,
    Ready,
    Reply,
    Request,
    read_frame,
    write_frame,
)
from mmzero_async.rendering.guard import confine, die_with_parent
from mmzero_async.rendering.mending import fitted
from mmzero_async.rendering.outcomes import RenderFailure
from mmzero_async.rendering.preflight import preflight

STACK_BYTES = 64 << 20  # deep nesting overflows the usual 8 MiB and would end the process


def answer(svg: str, options: Options) -> Reply:
    """The reply to one request; whatever can be caught is caught here."""
    started = time.perf_counter()
    # CPU time, not wall time: on a busy machine nobody is punished for waiting. The default
    # action of SIGPROF ends the process even in the middle of a call into the engine.
    signal.setitimer(signal.ITIMER_PROF, options.cpu_seconds)
    try:
        reply = _render(svg, options)
    except MemoryError:
        reply = Reply(failure="memory", detail="no memory left in Python")
    except ValueError as error:
        reply = Reply(failure="invalid", detail=f"the engine says: {error}"[:300])
    except BaseException as error:  # a Rust panic is no Exception
        reply = Reply(failure="crashed", detail=f"{type(error).__name__}: {error}"[:300])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return msgspec.structs.replace(reply, seconds=time.perf_counter() - started)


def _render(svg: str, options: Options) -> Reply:
    checked = preflight(svg, options.max_svg_bytes)
    if isinstance(checked, RenderFailure):
        return Reply(failure=checked.kind, detail=checked.detail)
    png = resvg_py.svg_to_bytes(
        svg_string=fitted(checked.svg, options.size),
        width=options.size,
        height=options.size,
        background="white",
        dpi=96,  # the default of 0 makes cm, in and pt vanish
        languages=["en"],
        skip_system_fonts=True,
        font_files=options.fonts,
        font_family="DejaVu Sans",
        serif_family="DejaVu Serif",  # also the last resort for an unknown family
        sans_serif_family="DejaVu Sans",
        cursive_family="DejaVu Sans",
        fantasy_family="DejaVu Sans",
        monospace_family="DejaVu Sans Mono",
        log_information=False,
    )
    data, ink = squared(bytes(png), options.size)
    return Reply(png=data, ink=ink, mended=checked.mended)


def squared(png: bytes, size: int) -> tuple[bytes, float]:
    """A PNG of size x size and its ink: the share of pixels not of the commonest colour.

    What the engine left smaller, because it keeps the aspect, is padded white on both sides.
    """
    with PngImagePlugin.PngImageFile(io.BytesIO(png)) as image:
        picture = image.convert("RGB")
    if picture.size != (size, size):
        canvas = Image.new("RGB", (size, size), "white")
        canvas.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
        picture = canvas
        out = io.BytesIO()
        picture.save(out, "PNG", compress_level=1)
        png = out.getvalue()
    colours = picture.getcolors(size * size) or []
    most = max((int(count) for count, _ in colours), default=size * size)
    return png, 1.0 - most / (size * size)


def serve(pipe_in: BinaryIO, pipe_out: BinaryIO, options: Options, ready: Ready) -> None:
    write_frame(pipe_out, ready)
    decoder = msgspec.msgpack.Decoder(Request)
    while (frame := read_frame(pipe_in)) is not None:
        write_frame(pipe_out, answer(decoder.decode(frame).svg, options))


def main() -> None:
    """Serves requests until its input ends."""
    die_with_parent()
    # Ctrl-C and a stop of the whole group are for the parent, which may still want its pictures.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # The reply pipe moves away from descriptor 1, so that nobody's print can garble it.
    pipe_in, pipe_out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    first = read_frame(pipe_in)
    if first is None:
        return
    options = msgspec.msgpack.decode(first, type=Options)
    Image.init()  # its plug-ins are imported now: no file can be opened after `confine`
    isolation = ["process", *confine(options.memory_mib, Path(options.font_folder))]
    ready = Ready(isolation, f"resvg {resvg_py.__resvg_version__}")
    threading.stack_size(STACK_BYTES)
    worker = threading.Thread(target=serve, args=(pipe_in, pipe_out, options, ready))
    worker.start()
    worker.join()


if __name__ == "__main__":
    main()

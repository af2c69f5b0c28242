"""The renderer's child: SVG in, PNG out, over pipes, under limits. It may die; nobody else does.

resvg holds the GIL, panics, aborts and hangs on some inputs, so it runs in a process of its own
that is warm between renders and is replaced when it is lost. Everything that reads hostile text,
the pre-flight too, happens here. Imports little: it is started again after every loss.
"""

import signal
import threading
import time
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

import msgspec
from PIL import Image

from mmzero_async.rendering.canvas import padded
from mmzero_async.rendering.engine import Drawn, Engine
from mmzero_async.rendering.engines import opened
from mmzero_async.rendering.fingerprint import fingerprint
from mmzero_async.rendering.frames import (
    Options,
    Ready,
    Reply,
    Request,
    own_pipes,
    read_frame,
    write_frame,
)
from mmzero_async.rendering.guard import belong_to_parent, confine
from mmzero_async.rendering.mending import fitted
from mmzero_async.rendering.outcomes import RenderFailure
from mmzero_async.rendering.png import ENCODER, encoded
from mmzero_async.rendering.preflight import preflight
from mmzero_async.rendering.structure import structure
from mmzero_async.rendering.writing import ink, writing

STACK_BYTES = 64 << 20  # deep nesting overflows the usual 8 MiB and would end the process


def answer(request: Request, options: Options, engine: Engine) -> Reply:
    """The reply to one request; whatever can be caught is caught here."""
    started = time.perf_counter()
    # CPU time, not wall time: on a busy machine nobody is punished for waiting. The default
    # action of SIGPROF ends the process even in the middle of a call into the engine.
    signal.setitimer(signal.ITIMER_PROF, options.cpu_seconds)
    try:
        reply = _answer(request, options, engine)
    except MemoryError:
        reply = Reply(failure="memory", detail="no memory left in Python")
    except (ValueError, ElementTree.ParseError) as error:
        reply = Reply(failure="invalid", detail=f"the engine says: {error}"[:300])
    except BaseException as error:  # a Rust panic is no Exception
        reply = Reply(failure="crashed", detail=f"{type(error).__name__}: {error}"[:300])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return msgspec.structs.replace(reply, seconds=time.perf_counter() - started)


def _answer(request: Request, options: Options, engine: Engine) -> Reply:
    checked = preflight(request.text, options.max_svg_bytes)
    if isinstance(checked, RenderFailure):
        return Reply(failure=checked.kind, detail=checked.detail)
    svg, size = fitted(checked.svg, options.size), options.size
    if request.writing:

        def draw(changed: str, background: str) -> Image.Image:
            return squared(engine.draw(changed, size, background), size).picture

        return Reply(writing=writing(svg, draw))
    drawn = squared(engine.draw(svg, size, "white"), size)
    return Reply(
        png=drawn.png or encoded(drawn.picture),
        ink=ink(drawn.picture),
        mended=checked.mended,
        fingerprint=fingerprint(drawn.picture),
        structure=structure(checked.svg) if options.structure else b"",
    )


def squared(drawn: Drawn, size: int) -> Drawn:
    """The picture at size x size."""
    picture = drawn.picture
    return drawn if picture.size == (size, size) else Drawn(padded(picture, size))


def serve(
    pipe_in: BinaryIO, pipe_out: BinaryIO, options: Options, engine: Engine, isolation: list[str]
) -> None:
    write_frame(pipe_out, Ready(isolation, f"{engine.id} png {ENCODER}"))
    decoder = msgspec.msgpack.Decoder(Request)
    while (frame := read_frame(pipe_in)) is not None:
        write_frame(pipe_out, answer(decoder.decode(frame), options, engine))


def main() -> None:
    """Serves requests until its input ends."""
    belong_to_parent()
    pipe_in, pipe_out = own_pipes()
    first = read_frame(pipe_in)
    if first is None:
        return
    options = msgspec.msgpack.decode(first, type=Options)
    engine = opened(options.engine, options.fonts)
    Image.init()  # its plug-ins are imported now: no file can be opened after `confine`
    isolation = ["process", *confine(options.memory_mib, Path(options.font_folder))]
    threading.stack_size(STACK_BYTES)
    worker = threading.Thread(target=serve, args=(pipe_in, pipe_out, options, engine, isolation))
    worker.start()
    worker.join()


if __name__ == "__main__":
    main()

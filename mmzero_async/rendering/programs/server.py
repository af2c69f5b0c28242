"""The child that draws programs: it forks a process for each, and takes only pixels from it.

Being forked costs milliseconds where starting Python with matplotlib costs a second, and what a
program does to its process (settings, monkey patches, memory) ends with it. The process inherits
this one's limits, gives up more, runs the program and writes what came of it into a pipe; PNG and
figures about it are made here, from pixels of which the number is known. This process never runs
a program and never reads one.
"""

import ast
import contextlib
import os
import select
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

import msgspec
from PIL import Image

from mmzero_async.rendering.canvas import padded
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
from mmzero_async.rendering.guard import (
    belong_to_parent,
    confine,
    confine_further,
    die_with_parent,
)
from mmzero_async.rendering.outcomes import KINDS, RenderFailure
from mmzero_async.rendering.png import ENCODER, encoded
from mmzero_async.rendering.programs.check import checked
from mmzero_async.rendering.programs.studio import NoFigure, Studio, line_of
from mmzero_async.rendering.programs.vocabulary import KEEPING
from mmzero_async.rendering.writing import ink

OPEN_FILES = 128  # a font is a file that stays open, and formulas use many
# Without these a program would be held by its check alone.
INDISPENSABLE = ("landlock", "seccomp")
_OVERHEAD = 1 << 12  # of what a process tells over its pixels
_CHUNK = 1 << 20


class Drawn(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a program's process tells: pixels, or a failure of outcomes.KINDS."""

    pixels: bytes = b""  # RGB, size x size
    mended: tuple[str, ...] = ()
    failure: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """What every program's process starts from."""

    options: Options
    studio: Studio
    nothing: int  # a descriptor of /dev/null
    private: tuple[int, ...]  # descriptors that no program may have


def answer(request: Request, place: Place) -> Reply:
    """The reply to one request."""
    started = time.perf_counter()
    reply = _apart(request, place)
    return msgspec.structs.replace(reply, seconds=time.perf_counter() - started)


def _apart(request: Request, place: Place) -> Reply:
    """What came of a program in a process of its own, which is gone when this returns."""
    reading, writing = os.pipe()
    child = os.getpid()
    process = os.fork()
    if process == 0:
        os.close(reading)
        _live(request, place, writing, child)
    os.close(writing)
    size = place.options.size
    told = _told(reading, 3 * size * size + _OVERHEAD, place.options.wall_seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)  # nothing that it does from here on is of use
    _, status = os.waitpid(process, 0)
    if told is None:
        return Reply(failure="timeout", detail="it did not end within renderer.wall_seconds")
    try:
        drawn = msgspec.msgpack.decode(told, type=Drawn)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _lost(status)
    return _reply(drawn, size)


def _told(reading: int, limit: int, seconds: float) -> bytes | None:
    """All that comes through the pipe, a little more than `limit` at most; None when it is late."""
    deadline = time.monotonic() + seconds
    data = bytearray()
    with open(reading, "rb", buffering=0) as pipe:
        while len(data) <= limit:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                return None
            if not (chunk := pipe.read(_CHUNK)):
                break
            data += chunk
    return bytes(data)


def _reply(told: Drawn, size: int) -> Reply:
    """Believes nothing but pixels, and failures by name."""
    if told.failure:
        kind = told.failure if told.failure in KINDS else "crashed"
        return Reply(failure=kind, detail=told.detail[:300])
    if len(told.pixels) != 3 * size * size:
        return Reply(failure="crashed", detail=f"{len(told.pixels)} bytes of pixels")
    picture = Image.frombytes("RGB", (size, size), told.pixels)
    mended = tuple(name for name in told.mended if name in KEEPING)
    return Reply(
        png=encoded(picture),
        ink=ink(picture),
        mended=mended,
        fingerprint=fingerprint(picture),
    )


def _lost(status: int) -> Reply:
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number in (signal.SIGPROF, signal.SIGXCPU):
        return Reply(failure="timeout", detail="its CPU time ran out")
    why = signal.strsignal(number) if number else f"status {os.waitstatus_to_exitcode(status)}"
    return Reply(failure="crashed", detail=f"the program's process ended: {why}")


# --- the life of a program's process ------------------------------------------------------------


def _live(request: Request, place: Place, writing: int, child: int) -> NoReturn:
    """Never returns: the process ends here, whatever happens."""
    try:
        die_with_parent()
        if os.getppid() != child:  # it died before it could take us along
            os._exit(1)
        for descriptor in range(3):
            os.dup2(place.nothing, descriptor)
        for descriptor in place.private:
            os.close(descriptor)
        if not confine_further(place.options.cpu_seconds):
            os._exit(2)
        data = msgspec.msgpack.encode(_draw(request.text, place.options.size, place.studio))
        with open(writing, "wb", buffering=0, closefd=False) as pipe:
            while data:
                data = data[pipe.write(data) :]
        os._exit(0)
    finally:
        os._exit(3)


def _draw(text: str, size: int, studio: Studio) -> Drawn:
    """Whatever can be caught is caught here."""
    try:
        program = checked(text)
        if isinstance(program, RenderFailure):
            return Drawn(failure=program.kind, detail=program.detail)
        picture = padded(studio.picture(program.tree, size), size)
        return Drawn(pixels=picture.tobytes(), mended=program.mended)
    except NoFigure as problem:
        return Drawn(failure=problem.kind, detail=str(problem))
    except MemoryError:
        return Drawn(failure="memory", detail="no memory left in Python")
    except BaseException as error:
        where = f"line {line}" if (line := line_of(error)) else "while it was drawn"
        what = f"{where}: {type(error).__name__}: {error}"
        return Drawn(failure="program:error", detail=what[:300])


def serve(pipe_in: BinaryIO, pipe_out: BinaryIO, options: Options, studio: Studio) -> None:
    """Serves requests until its input ends."""
    nothing = os.open(os.devnull, os.O_RDWR)
    limits = confine(
        options.memory_mib,
        Path(options.font_folder),
        open_files=OPEN_FILES,
        scope="processes",
    )
    if lacking := [name for name in INDISPENSABLE if name not in limits]:
        sys.exit(
            f"plotting programs are not run without {' and '.join(lacking)}, which this kernel "
            'does not have: use coder.drawing = "svg" here'
        )
    engine = f"{studio.id} png {ENCODER}"
    write_frame(pipe_out, Ready(["process", *limits, "fork"], engine, apart=True))
    place = Place(options, studio, nothing, (pipe_in.fileno(), pipe_out.fileno()))
    decoder = msgspec.msgpack.Decoder(Request)
    while (frame := read_frame(pipe_in)) is not None:
        write_frame(pipe_out, answer(decoder.decode(frame), place))


def main() -> None:
    belong_to_parent()
    pipe_in, pipe_out = own_pipes()
    first = read_frame(pipe_in)
    if first is None:
        return
    options = msgspec.msgpack.decode(first, type=Options)
    ast.parse("")  # its first call imports what could not be read later
    Image.init()
    serve(pipe_in, pipe_out, options, Studio(options.fonts))


if __name__ == "__main__":
    main()

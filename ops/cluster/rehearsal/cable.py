"""A network cable that can be long and bad: two TAP devices, and this process between them.

Kernels without tc's netem cannot delay or lose packets by themselves; this needs /dev/net/tun only.
"""

import asyncio
import contextlib
import fcntl
import os
import random
import struct
from dataclasses import dataclass, field

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_FRAME = 65536


@dataclass(slots=True)
class Cable:
    """Carries frames between two devices, each way after `delay` seconds, and loses a share."""

    ends: tuple[str, str]  # names of the devices, made when it is plugged in
    delay: float = 0.0
    loss: float = 0.0
    carried: int = 0
    lost: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    _files: list[int] = field(default_factory=list)

    def plug_in(self) -> None:
        """Makes the devices, which may be moved into other namespaces then. OSError."""
        for name in self.ends:
            file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            self._files.append(file)
            fcntl.ioctl(
                file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
            )
        loop = asyncio.get_running_loop()
        one, other = self._files
        loop.add_reader(one, self._carry, one, other)
        loop.add_reader(other, self._carry, other, one)

    def unplug(self) -> None:
        """The devices are gone with it."""
        for file in self._files:
            asyncio.get_running_loop().remove_reader(file)
            os.close(file)
        self._files.clear()

    def _carry(self, source: int, sink: int) -> None:
        while True:
            try:
                frame = os.read(source, _FRAME)
            except OSError:  # nothing more, or the device is down
                return
            if self.rng.random() < self.loss:
                self.lost += 1
            elif self.delay:
                asyncio.get_running_loop().call_later(self.delay, self._put, sink, frame)
            else:
                self._put(sink, frame)

    def _put(self, sink: int, frame: bytes) -> None:
        if sink in self._files:
            self.carried += 1
            with contextlib.suppress(OSError):
                os.write(sink, frame)

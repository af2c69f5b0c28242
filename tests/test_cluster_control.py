"""Orders to a driver: one at a time over a socket of its run's folder, refused in words."""

import asyncio
import socket
from pathlib import Path

import pytest

from mmzero_async.config import ConfigError
from mmzero_async.ops.cluster.control import Answer, Order, OrderRefused, order, taking_orders
from mmzero_async.ops.cluster.inventory import InventoryError


async def carry_out(wanted: Order) -> Answer:
    if wanted.do == "drain":
        raise InventoryError(f"no host {wanted.what!r}")
    return Answer(
        said=f"{wanted.do} {wanted.what}={wanted.count}", figures={"steps": {"solver": 3}}
    )


def raw(run: Path, line: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(30)
        stranger.connect(str(run / "control.sock"))
        stranger.sendall(line)
        return stranger.makefile("rb").readline()


async def test_orders_are_carried_out_or_refused_and_only_while_somebody_drives(tmp_path):
    with pytest.raises(OrderRefused, match="nobody drives"):
        order(tmp_path, Order(do="status"))
    async with taking_orders(tmp_path, carry_out):
        assert (tmp_path / "control.sock").stat().st_mode & 0o777 == 0o600
        wanted = Order(do="scale", what="solver", count=8)
        answer = await asyncio.to_thread(order, tmp_path, wanted)
        assert answer.said == "scale solver=8" and answer.figures == {"steps": {"solver": 3}}
        with pytest.raises(OrderRefused, match="no host 'nobody'"):
            await asyncio.to_thread(order, tmp_path, Order(do="drain", what="nobody"))
        for garbage in (b"\n", b"{}\n", b"\xff\xfe\n", b'{"do": 7}\n'):
            assert b"error" in await asyncio.to_thread(raw, tmp_path, garbage)
        assert (await asyncio.to_thread(order, tmp_path, wanted)).said
    with pytest.raises(OrderRefused, match="nobody drives"):
        order(tmp_path, Order(do="status"))


async def test_a_folder_whose_socket_would_have_too_long_a_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="choose another --run"):
        async with taking_orders(tmp_path / ("r" * 120), carry_out):
            pass

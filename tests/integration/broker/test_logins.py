"""Logins while others guess passwords: the right ones are not kept waiting, the wrong ones not long."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from wine import SLOWNESS
from broker_rig import Rig

from appliance.broker.login_failures import LoginFailures
from appliance.broker.login_queue import LoginQueue, Pair, QueueFullError
from appliance.broker.users import Users
from appliance.counters import Counter

GUESSERS = 24
RIGHT = b"the right one"


@pytest.fixture(scope="module")
def users_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("users") / "users.txt"
    users = Users(path)
    for name in ("victim", "plc"):
        users.add(name, RIGHT)
    return path


@pytest.fixture
async def guarded(tmp_path: Path, users_file: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path / "data", users=users_file, anonymous=False) as running:
        yield running


async def answer(rig: Rig, name: str, password: bytes) -> tuple[int, float]:
    """The return code of a login, and after how many seconds it came."""
    wire = await rig.socket()
    began = time.monotonic()
    wire.send(wire.connect_packet(f"{name} {id(wire)}", username=name, password=password))
    code = (await wire.expect(2)).body[1]
    return code, time.monotonic() - began


@pytest.mark.parametrize("name", ["plc", "victim", "unknown"])
async def test_a_right_password_is_answered_at_once_while_others_guess(
    guarded: Rig, name: str
) -> None:
    """The victim comes for the first time, from the address of the guessers, who also try its
    name; no answer to a guess takes four seconds."""
    numbers = itertools.count()
    slowest = 0.0

    async def guess() -> None:
        nonlocal slowest
        while True:
            guessed = name if name != "unknown" else f"unknown-{next(numbers)}"
            code, took = await answer(guarded, guessed, b"guess %d" % next(numbers))
            assert code in (3, 4)
            slowest = max(slowest, took)

    guessers = [asyncio.create_task(guess()) for _ in range(GUESSERS)]
    await guarded.until(lambda: guarded.counters[Counter.LOGINS_REFUSED] > 8)
    code, took = await answer(guarded, "victim", RIGHT)
    for each in guessers:
        each.cancel()
    assert code == 0
    # Much more than is promised, for a machine that does other things too.
    assert took < 10 * SLOWNESS
    assert slowest < 12 * SLOWNESS
    for each in await asyncio.gather(*guessers, return_exceptions=True):
        assert isinstance(each, asyncio.CancelledError)


async def test_a_known_password_waits_for_no_check(guarded: Rig) -> None:
    """A machine that keeps coming back, with the right password or the wrong one, costs the others
    no check: each is made once, until the user has another password."""
    checked = 0
    verify = guarded.users.verify

    def counting(name: str, password: bytes) -> bool:
        nonlocal checked
        checked += 1
        return verify(name, password)

    guarded.users.verify = counting  # type: ignore[method-assign]
    guarded.access._failures.delay_s = lambda _origin: 0.0  # type: ignore[method-assign]
    for _ in range(3):
        assert (await answer(guarded, "plc", RIGHT))[0] == 0
        assert (await answer(guarded, "plc", b"not this one"))[0] == 4
    assert checked == 2
    Users(guarded.users.path).add("plc", b"not this one")
    try:
        assert (await answer(guarded, "plc", b"not this one"))[0] == 0
        assert (await answer(guarded, "plc", RIGHT))[0] == 4
    finally:
        Users(guarded.users.path).add("plc", RIGHT)


async def test_guessers_that_leave_free_no_thread_early(guarded: Rig) -> None:
    """A check goes on when its client has gone, and counts as long as it does."""
    for number in range(20):
        wire = await guarded.socket()
        wire.send(wire.connect_packet("c", username="plc", password=b"%d" % number))
        await wire.writer.drain()
        wire.abort()
    code, took = await answer(guarded, "victim", RIGHT)
    assert code == 0
    assert took < 5 * SLOWNESS


@pytest.mark.parametrize("limit", ["max_connections_per_address", "max_connections"])
async def test_guessers_that_wait_for_their_answer_keep_no_client_out(
    tmp_path: Path, users_file: Path, limit: str
) -> None:
    """They have all connections that there may be; then one of them gives way."""
    most = 12
    bounds = {limit: most}
    async with Rig(tmp_path / "data", users=users_file, anonymous=False, **bounds) as rig:
        for _ in range(6):
            rig.access._failures.delay_s("127.0.0.1")
        for number in range(most):
            wire = await rig.socket()
            wire.send(wire.connect_packet(f"c{number}", username="plc", password=b"%d" % number))
        await rig.until(lambda: rig.access._failures.held == most)
        assert (await answer(rig, "victim", RIGHT))[0] == 0
        await rig.until(lambda: len(rig.broker.connections) <= most)
        assert rig.access._failures.held <= most - 1


async def test_failures_are_answered_ever_later_but_within_four_seconds() -> None:
    """A login of the guesser's own does not make up for them, time does."""
    now = 0.0
    failures = LoginFailures(lambda: now)
    delays = [failures.delay_s("10.0.0.1") for _ in range(12)]
    assert delays[:3] == [0, 0, 0]
    assert delays == sorted(delays)
    assert delays[-1] == 3.5
    assert failures.delay_s("10.0.0.2") == 0
    now = 1000
    assert failures.delay_s("10.0.0.1") == 0
    for number in range(10_000):
        failures.delay_s(f"10.1.{number // 256}.{number % 256}")
    assert len(failures._failures) <= 4096


async def test_clients_that_wait_for_their_refusal_are_bounded() -> None:
    """One too many is no reason to refuse another client: the oldest is answered at once."""
    failures = LoginFailures(time.monotonic)
    waiting = [asyncio.create_task(failures.hold("10.0.0.1", 60)) for _ in range(513)]
    await waiting[0]
    assert failures.held == 512
    others = [asyncio.create_task(failures.hold(f"10.0.1.{n}", 60)) for n in range(1537)]
    await waiting[1]
    assert failures.held == 2048
    for each in (*waiting, *others):
        each.cancel()
    await asyncio.gather(*waiting, *others, return_exceptions=True)
    assert not failures.held


async def test_pairs_of_user_and_address_take_turns() -> None:
    """A pair without failures comes before one with many, and each fourth turn is the oldest's."""
    queue = LoginQueue(1, time.monotonic)
    guesser, other, victim = (Pair(name, "10.0.0.1") for name in ("guesser", "other", "victim"))
    for _ in range(8):
        queue.failed(guesser)
    assert not await queue.wait_turn(guesser)
    served: list[Pair] = []

    async def login(pair: Pair) -> None:
        assert await queue.wait_turn(pair)
        served.append(pair)
        queue.release()

    tasks = [asyncio.create_task(login(guesser)) for _ in range(32)]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(login(each)) for each in (other, other, victim, victim)]
    await asyncio.sleep(0)
    queue.release()
    await asyncio.gather(*tasks)
    assert served[:5] == [other, victim, other, guesser, victim]
    assert not len(queue)


async def test_the_newest_guess_of_a_failing_pair_comes_first_and_each_fourth_turn_the_oldest() -> (
    None
):
    """An honest login among the guesses waits for few of them, whether guessers stay or leave."""
    queue = LoginQueue(1, time.monotonic)
    pair = Pair("plc", "10.0.0.1")
    queue.failed(pair)
    await queue.wait_turn(pair)
    served: list[int] = []

    async def login(number: int) -> None:
        await queue.wait_turn(pair)
        served.append(number)
        queue.release()

    tasks = [asyncio.create_task(login(number)) for number in range(12)]
    await asyncio.sleep(0)
    queue.release()
    await asyncio.gather(*tasks)
    assert served == [11, 10, 9, 0, 8, 7, 6, 1, 5, 4, 3, 2]


async def test_a_failing_pair_with_a_long_line_keeps_no_newcomer_out() -> None:
    """One of those that wait, anywhere in the line, makes room."""
    queue = LoginQueue(1, time.monotonic)
    pair = Pair("plc", "10.0.0.1")
    queue.failed(pair)
    await queue.wait_turn(pair)
    crowd = [asyncio.create_task(queue.wait_turn(pair)) for _ in range(128)]
    await asyncio.sleep(0)
    newcomer = asyncio.create_task(queue.wait_turn(pair))
    done, _ = await asyncio.wait(crowd, return_when=asyncio.FIRST_COMPLETED)
    assert [isinstance(each.exception(), QueueFullError) for each in done] == [True]
    assert len(queue) == 128
    queue.release()
    assert await newcomer
    for each in crowd:
        each.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)


@pytest.mark.campaign
async def test_a_hundred_guessers_of_one_name_keep_its_user_out_for_no_moment(guarded: Rig) -> None:
    """From the user's own address, before the user ever signed in; each refusal is as late as that
    of a wrong password, so guesses come no faster than they are checked."""
    numbers = itertools.count()

    async def guess() -> None:
        while True:
            code, took = await answer(guarded, "victim", b"guess %d" % next(numbers))
            assert code in (3, 4)
            slowest.append(took)

    slowest: list[float] = []
    guessers = [asyncio.create_task(guess()) for _ in range(100)]
    await guarded.until(lambda: guarded.counters[Counter.LOGINS_REFUSED] > 100)
    for _ in range(5):
        guarded.users._good.clear()
        code, took = await answer(guarded, "victim", RIGHT)
        assert code == 0
        assert took < 4 * SLOWNESS
    for each in guessers:
        each.cancel()
    ended = await asyncio.gather(*guessers, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in ended)
    assert guarded.counters[Counter.LOGINS_REFUSED_TOO_MANY_FAILURES] < 300


async def test_a_full_queue_takes_a_login_of_another_pair() -> None:
    """The longest line gives its last place; a client that has gone leaves its own."""
    queue = LoginQueue(1, time.monotonic)
    await queue.wait_turn(Pair("plc", "10.0.0.1"))
    crowd = [asyncio.create_task(queue.wait_turn(Pair("plc", "10.0.0.1"))) for _ in range(302)]
    await asyncio.sleep(0)
    assert len(queue) == 300
    victim = asyncio.create_task(queue.wait_turn(Pair("victim", "10.0.0.1")))
    await asyncio.wait(crowd[:300], return_when=asyncio.FIRST_COMPLETED)
    assert len(queue) == 300
    for each in crowd:
        each.cancel()
    ended = await asyncio.gather(*crowd, return_exceptions=True)
    assert sum(isinstance(each, QueueFullError) for each in ended) == 3
    assert len(queue) == 1
    queue.release()
    assert await victim


async def test_unknown_names_from_many_addresses_keep_no_user_out() -> None:
    """A full queue of one login from each of many addresses has room for a name that is known."""
    queue = LoginQueue(1, time.monotonic)
    await queue.wait_turn(Pair(None, "10.0.0.1"))
    crowd = [asyncio.create_task(queue.wait_turn(Pair(None, f"10.1.0.{n}"))) for n in range(512)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError):
        await queue.wait_turn(Pair(None, "10.2.0.1"))
    victim = asyncio.create_task(queue.wait_turn(Pair("victim", "10.2.0.1")))
    await asyncio.sleep(0)
    assert len(queue) == 512
    queue.release()
    assert await victim
    for each in crowd:
        each.cancel()
    ended = await asyncio.gather(*crowd, return_exceptions=True)
    assert sum(isinstance(each, QueueFullError) for each in ended) == 1


async def test_a_login_that_waits_too_long_is_told_to_try_again(
    guarded: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told when a wrong password would be, the counter says so, and nothing is left of it."""
    monkeypatch.setattr("appliance.broker.login_queue._PATIENCE_S", 0.05)
    monkeypatch.setattr("appliance.broker.access.LONGEST_S", 0.1)
    guarded.access._checks._free = 0
    code, took = await answer(guarded, "plc", RIGHT)
    assert code == 3
    assert took >= 0.05  # the clock of Windows has steps of a sixty-fourth of a second
    assert guarded.counters[Counter.LOGINS_REFUSED_TOO_MANY_FAILURES] == 1
    assert not len(guarded.access._checks)
    guarded.access._checks.release()
    assert (await answer(guarded, "plc", RIGHT))[0] == 0

"""The shared map: cells that every process sees, seats that outlive who sits on them."""

from __future__ import annotations

import os

import pytest

from gateway.scoreboard import SEAT_CELLS, SEATS, Fact, Role, Scoreboard, State, Word


def test_every_fact_lies_below_the_series_and_in_its_half() -> None:
    assert all(fact < Fact.SERIES for fact in Fact if fact is not Fact.SERIES)
    assert Fact.COUNTERS <= Fact.REQUESTS and Fact.BASE_REQUESTS < Fact.COUNTERS
    assert len({fact.value for fact in Fact}) == len(Fact) and len({word.value for word in Word}) == len(Word)


def test_seats_do_not_overlap() -> None:
    board = Scoreboard.create()
    first, last = board.seat(0), board.seat(SEATS - 1)
    assert len(first) == len(last) == SEAT_CELLS
    first[SEAT_CELLS - 1] = 7
    assert board.seat(1)[0] == 0
    last[SEAT_CELLS - 1] = 2**64 - 1
    assert board.seat(SEATS - 1)[SEAT_CELLS - 1] == 2**64 - 1
    assert board.header[Word.SEATS_USED] == 0


def test_another_mapping_of_the_same_file_sees_the_same_cells() -> None:
    board = Scoreboard.create()
    board.take(2, [])[Fact.PID] = 42
    again = Scoreboard.adopt(os.dup(board.fd))
    assert again is not None
    assert [seat[Fact.PID] for seat in again.seats()] == [0, 0, 42]
    again.seat(2)[Fact.PID] = 43
    assert board.seat(2)[Fact.PID] == 43


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_writes_into_it() -> None:
    board = Scoreboard.create()
    pid = os.fork()
    if not pid:
        board.seat(0)[Fact.REQUESTS] = 5
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.seat(0)[Fact.REQUESTS] == 5


def test_what_is_not_ours_is_not_adopted() -> None:
    board = Scoreboard.create()
    board.header[Word.MAGIC] += 1
    assert Scoreboard.adopt(board.fd) is None
    fd = os.memfd_create("another")
    assert Scoreboard.adopt(fd) is None
    os.close(fd)


def test_taking_a_seat_keeps_counters_and_clears_gauges() -> None:
    board = Scoreboard.create()
    counter, gauge = Fact.SERIES + 1, Fact.SERIES + 2
    seat = board.take(0, [gauge])
    for cell in (Fact.PID, Fact.OPEN, Fact.REQUESTS, counter, gauge):
        seat[cell] = 9
    seat = board.take(0, [gauge])
    assert [seat[cell] for cell in (Fact.PID, Fact.OPEN, gauge)] == [0, 0, 0]
    assert [seat[cell] for cell in (Fact.REQUESTS, counter)] == [9, 9]
    assert seat[Fact.BASE_REQUESTS] == 9
    assert board.header[Word.SEATS_USED] == 1


def test_leaving_a_seat_leaves_nothing_open() -> None:
    board = Scoreboard.create()
    seat = board.take(3, [Fact.SERIES])
    seat[Fact.ROLE], seat[Fact.STATE], seat[Fact.OPEN], seat[Fact.BUSY] = Role.WORKER, State.READY, 3, 2
    seat[Fact.REQUESTS] = seat[Fact.SERIES] = 8
    board.leave(3, [Fact.SERIES])
    assert (seat[Fact.ROLE], seat[Fact.STATE], seat[Fact.OPEN], seat[Fact.BUSY]) == (Role.NONE, State.GONE, 0, 0)
    assert (seat[Fact.REQUESTS], seat[Fact.SERIES]) == (8, 0)
    assert len(board.seats()) == 4

"""What people wish, as stories: priorities, keep-alive, another config, a forecast."""

from __future__ import annotations

import math

import pytest

from proxy.scheduler import WaitsFor
from tests.scheduler.play import Play, model

A, B, C = model("a"), model("b"), model("c")


# Priorities


def test_a_higher_priority_goes_first_in_its_models_queue() -> None:
    """Of two that wait for one model the one of higher priority is granted first."""
    play = Play(A).seated("a", 1).arrives("a", 2).asks("a", 3, priority=1).expect()

    play.leaves(1).expect("grant 3 on a#1").leaves(3).expect("grant 2 on a#1")


def test_a_lower_priority_waits() -> None:
    """A request that has time lets later ones pass."""
    play = Play(A).seated("a", 1).asks("a", 2, priority=-1).at(9).arrives("a", 3)

    play.leaves(1).expect("grant 3 on a#1")


def test_a_priority_is_worth_ten_seconds_of_waiting() -> None:
    """Who has waited for longer than that goes first all the same, so nobody starves."""
    play = Play(A).seated("a", 1).arrives("a", 2).at(9).asks("a", 3, priority=1)
    play.at(11).asks("a", 4, priority=1).expect()

    play.leaves(1).expect("grant 3 on a#1").leaves(3).expect("grant 2 on a#1")
    play.leaves(2).expect("grant 4 on a#1")


def test_of_equal_priority_who_came_first_goes_first() -> None:
    """Priority orders only those who differ in it."""
    play = Play(A).seated("a", 1).asks("a", 3, priority=2).asks("a", 2, priority=2)

    play.leaves(1).expect("grant 3 on a#1")


def test_a_higher_priority_goes_first_in_the_line() -> None:
    """A model passes those that have waited longer, by ten seconds for each point."""
    play = Play(A, B, C).seated("a", 1).at(1).arrives("b", 2).at(9).expect("prepare b#2")

    play.asks("c", 3, priority=1).expect("prepare c#3").prepared("b#2").prepared("c#3")
    play.leaves(1).expect("stop a#1").exits("a#1").expect("load c#3")


def test_in_the_line_too_who_has_waited_longer_by_more_goes_first() -> None:
    """A point of priority does not outweigh eleven seconds."""
    play = Play(A, B, C).seated("a", 1).at(1).arrives("b", 2).at(12).expect("prepare b#2")

    play.asks("c", 3, priority=1).expect()


def test_a_model_stands_where_its_foremost_ticket_lets_it_stand() -> None:
    """When the urgent one has left, its model goes back to where it was."""
    play = Play(A, B, C).seated("a", 1).arrives("b", 2).at(1).arrives("c", 3)
    play.asks("c", 4, priority=1).expect("prepare b#2", "prepare c#3")

    play.leaves(4).prepared("b#2").prepared("c#3").leaves(1).expect("stop a#1")
    play.exits("a#1").expect("load b#2")


def test_a_priority_shortens_the_patience() -> None:
    """Ten seconds are counted as waited already: the busy one drains at once."""
    play = Play(A, B).seated("a", 1).arrives("a", 2).at(10)

    play.asks("b", 3, priority=1).prepared("b#2").expect("prepare b#2")
    play.at(15).leaves(1).expect("stop a#1")


def test_the_priority_of_the_served_lengthens_the_patience() -> None:
    """Who is more urgent than the head is not drained for it after the usual time."""
    play = Play(A, B).asks("a", 1, priority=2).prepared("a#1").ready("a#1").arrives("b", 2)
    play.prepared("b#2").expect("prepare a#1", "load a#1", "grant 1 on a#1", "prepare b#2")

    play.expect_alarm(25).at(25).wakes().arrives("a", 3).leaves(1).expect("stop a#1")


def test_urgent_requests_do_not_starve_the_others() -> None:
    """However many urgent ones come, a plain one has its turn when it has waited longer."""
    play = Play(A, B).seated("a", 1).arrives("b", 2).prepared("b#2").expect("prepare b#2")

    for number in range(3, 8):
        play.at(5 * (number - 2)).asks("a", number, priority=2)
    play.at(25).wakes().leaves(1).expect("stop a#1").exits("a#1").expect("load b#2", "prepare a#3")


# Patience that nobody configured


@pytest.mark.parametrize(("load_s", "patience_s"), [(0.5, 2), (1.5, 3), (3, 6), (20, 8)])
def test_patience_follows_the_load_time(load_s: float, patience_s: float) -> None:
    """A model waits for twice its load time, from 2 s to 8 s."""
    play = Play(A, model("b", patience_s=None, load_s=load_s)).seated("a", 1)

    play.arrives("b", 2).prepared("b#2").expect("prepare b#2").expect_alarm(patience_s)


def test_patience_of_a_model_that_never_loaded() -> None:
    """Nothing is known of it: it waits for 5 s."""
    play = Play(A, model("b", patience_s=None)).seated("a", 1).arrives("b", 2).prepared("b#2")

    play.expect("prepare b#2").expect_alarm(5)


# Keep-alive


def test_a_request_says_how_long_the_model_stays() -> None:
    """A keep-alive replaces the ttl from its request on."""
    play = Play(model("a", ttl_s=10)).seated("a").asks("a", 1, keep_alive_s=60).at(5).leaves(1)

    play.expect("grant 1 on a#1").expect_alarm(65).at(65).wakes().expect("stop a#1")


def test_a_keep_alive_of_nothing_stops_the_model_after_the_request() -> None:
    """Nobody needs it any more, and its seat is free at once."""
    play = Play(A).seated("a").asks("a", 1, keep_alive_s=0).expect("grant 1 on a#1")

    play.leaves(1).expect("stop a#1")


def test_a_keep_alive_of_nothing_does_not_cut_off_those_that_wait() -> None:
    """The model goes when it is idle, and not before."""
    play = Play(A).seated("a").asks("a", 1, keep_alive_s=0).arrives("a", 2)
    play.expect("grant 1 on a#1").expect_alarm(None)

    play.leaves(1).expect("grant 2 on a#1").leaves(2).expect()


def test_an_endless_keep_alive_keeps_the_model() -> None:
    """Though its ttl is short, a model that shall stay does."""
    play = Play(model("a", ttl_s=10)).seated("a").asks("a", 1, keep_alive_s=math.inf).leaves(1)

    play.expect("grant 1 on a#1").expect_alarm(None).at(1000).wakes().expect()


def test_the_last_request_says_how_long_the_model_stays() -> None:
    """A plain request brings the model's own ttl back."""
    play = Play(model("a", ttl_s=10)).seated("a").asks("a", 1, keep_alive_s=60).leaves(1)
    play.arrives("a", 2).leaves(2).expect("grant 1 on a#1", "grant 2 on a#1")

    play.expect_alarm(10)


def test_who_only_waited_says_nothing_about_staying() -> None:
    """A keep-alive counts from its grant: one that left before has not been served."""
    play = Play(model("a", ttl_s=10)).seated("a", 1).asks("a", 2, keep_alive_s=60).leaves(2, 1)

    play.expect().expect_alarm(10)


def test_a_pinned_model_stays_whatever_a_request_says() -> None:
    """The config's pin is stronger than a client's wish."""
    play = Play(model("pin", 0, pinned=True)).seated("pin").asks("pin", 1, keep_alive_s=0)

    play.leaves(1).expect("grant 1 on pin#1").expect_alarm(None)


# Another config


def test_a_reload_leaves_unchanged_models_alone() -> None:
    """Their workers, leases and queues go on as if nothing had happened."""
    play = Play(A, B).seated("a", 1).arrives("a", 2).expect()

    play.reload(A, B).expect().leaves(1).expect("grant 2 on a#1")


def test_a_changed_models_worker_finishes_and_goes() -> None:
    """Who waits is served by a new worker with the new config."""
    play = Play(A).seated("a", 1).arrives("a", 2)
    play.reload(model("a", concurrency=2), changed=["a"], by=30)
    play.expect("prepare a#2").expect_alarm(30)

    play.arrives("a", 3).leaves(1).prepared("a#2").exits("a#1").expect("stop a#1", "load a#2")
    play.ready("a#2").expect("grant 2 on a#2", "grant 3 on a#2")


def test_a_changed_models_worker_goes_by_the_deadline() -> None:
    """What it serves may go on until then, and no longer."""
    play = Play(A).seated("a", 1).reload(A, changed=["a"], by=30)

    play.at(30).wakes().expect("stop a#1")


def test_a_model_that_is_gone_refuses_those_that_wait() -> None:
    """They wait for what nobody knows any more; who is served may finish."""
    play = Play(A, B, C).seated("a", 1).arrives("a", 2).arrives("b", 3).expect("prepare b#2")

    play.reload(C, by=30).expect("refuse 2: unknown_model", "refuse 3: unknown_model", "stop b#2")
    play.arrives("a", 4).expect("refuse 4: unknown_model").leaves(1).expect("stop a#1")


def test_an_idle_worker_of_a_model_that_is_gone_goes_at_once() -> None:
    """Nobody can ask for it any more."""
    play = Play(A, B).seated("a").reload(B).expect("stop a#1")

    play.arrives("b", 1).prepared("b#2").exits("a#1").expect("prepare b#2", "load b#2")


def test_a_new_model_may_be_asked_for() -> None:
    """What the config names from now on is served."""
    play = Play(A).arrives("b", 1).expect("refuse 1: unknown_model")

    play.reload(A, B).arrives("b", 2).expect("prepare b#1")


def test_a_reload_may_bring_another_budget() -> None:
    """Who fits now loads, without a word from the device."""
    play = Play(A, B).seated("a", 1).arrives("b", 2).prepared("b#2").expect("prepare b#2")

    play.reload(A, B, budget=2).expect("load b#2")


def test_a_reload_may_change_a_ttl_under_a_running_worker() -> None:
    """A setting that does not touch the process counts at once."""
    play = Play(A).seated("a").expect_alarm(None)

    play.reload(model("a", ttl_s=10)).expect().expect_alarm(10)


def test_a_changed_model_does_not_cool_down_any_more() -> None:
    """The mistake may have been in the config: the next request tries again."""
    play = (
        Play(A, B)
        .arrives("a", 1)
        .exits("a#1")
        .arrives("b", 2)
        .exits("b#2")
        .expect(
            "prepare a#1",
            "refuse 1: start_failed, retry after 1 s",
            "prepare b#2",
            "refuse 2: start_failed, retry after 1 s",
        )
    )

    play.reload(A, B, changed=["a"]).arrives("a", 3).arrives("b", 4)
    play.expect("prepare a#3", "refuse 4: cooling_down, retry after 1 s")


def test_a_worker_of_the_old_config_says_nothing_about_the_new_model() -> None:
    """What it was measured to hold is its own charge, and not what the model demands."""
    play = Play(model("a", 4), budget=10).seated("a", 1)
    play.reload(model("a", 2), budget=10, changed=["a"]).measured("a#1", 9, of_model=9)

    play.arrives("a", 2).prepared("a#2").expect("prepare a#2")
    play.leaves(1).exits("a#1").expect("stop a#1", "load a#2")
    assert play.scheduler.state.charged == {"one": 2}


def test_a_drained_worker_whose_model_changed_goes_for_the_change() -> None:
    """It was asked twice to go, and goes once, by the deadline."""
    play = Play(A, B).seated("a", 1).arrives("b", 2).prepared("b#2").at(5).wakes()
    play.expect("prepare b#2").reload(A, B, changed=["a"], by=9).expect().expect_alarm(9)

    play.at(9).wakes().expect("stop a#1").exits("a#1").expect("load b#2")


# The forecast


def test_a_waiting_ticket_is_told_its_position() -> None:
    """Positions count from one, in the order of the grants."""
    play = Play(A).seated("a", 1).arrives("a", 2).asks("a", 3, priority=1)

    assert [play.outlook(ticket).position for ticket in (2, 3)] == [2, 1]
    assert play.outlook(2).waits_for is WaitsFor.REQUESTS


def test_a_waiting_ticket_is_told_what_it_waits_for() -> None:
    """First for its process to start, then for somebody to leave, then for its load."""
    play = Play(A, B).seated("a", 1).arrives("b", 2)
    assert play.outlook(2).waits_for is WaitsFor.START

    play.prepared("b#2")
    assert (play.outlook(2).waits_for, play.outlook(2).others) == (WaitsFor.ROOM, ("a",))

    play.leaves(1).exits("a#1")
    assert play.outlook(2).waits_for is WaitsFor.LOAD


def test_a_waiting_ticket_is_told_who_stands_before_it() -> None:
    """Whose turn it is not yet waits for the models before it in the line."""
    play = Play(A, B, C).seated("a", 1).arrives("b", 2).prepared("b#2").arrives("c", 3)

    assert (play.outlook(3).waits_for, play.outlook(3).others) == (WaitsFor.LINE, ("b",))


def test_nothing_is_forecast_from_nothing() -> None:
    """A model that was never loaded has no estimate; nor has who waits for untimed requests."""
    play = Play(A, B).seated("a", 1).arrives("b", 2).arrives("a", 3)

    assert play.outlook(2).eta_s is None
    assert play.outlook(3).eta_s is None


def test_the_forecast_adds_up_what_was_measured() -> None:
    """A load takes as long as the last one, and each round of requests as long as requests do."""
    play = Play(model("a", load_s=4, service_s=3)).arrives("a", 1, 2, 3).prepared("a#1").at(1)

    assert [play.outlook(ticket).eta_s for ticket in (1, 2, 3)] == [3, 6, 9]


def test_the_forecast_knows_patience() -> None:
    """Behind a busy model one waits for its work, or for the rest of one's patience."""
    play = Play(model("a", service_s=60, load_s=2), model("b", load_s=7)).seated("a", 1, load_s=2)
    play.arrives("b", 2).prepared("b#2").at(play.now + 1)

    assert play.outlook(2).eta_s == 4 + 7


def test_service_times_are_smoothed() -> None:
    """One long request does not make the forecast believe that all are."""
    play = Play(A).seated("a", 1).at(10).leaves(1).arrives("a", 2).at(30).leaves(2)
    play.arrives("a", 3, 4)

    assert play.outlook(4).eta_s == pytest.approx(13)


def test_who_waits_urgently_spares_the_worker_that_he_waits_for() -> None:
    """A worker is as urgent as those it is to serve, and not only as those it serves."""
    play = Play(A, B).seated("a", 1).asks("a", 2, priority=2).arrives("b", 3)

    play.prepared("b#2").expect("prepare b#2").expect_alarm(25)

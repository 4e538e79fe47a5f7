"""The scheduler's rules as stories: given events, expect commands.

Without another word a story plays on one seat, each model serves one request at a time, and waits
for 5 s before it turns out a busy one.
"""

from __future__ import annotations

import pytest

from proxy.scheduler import ModelName
from tests.scheduler.play import Play, model

A, B, C = model("a"), model("b"), model("c")


# Arriving, loading, serving


def test_the_first_request_gets_a_process_then_memory_then_its_grant() -> None:
    """A model is prepared, loaded and only then granted."""
    play = Play(A)

    play.arrives("a", 1).expect("prepare a#1")
    play.prepared("a#1").expect("load a#1")
    play.ready("a#1").expect("grant 1 on a#1")


def test_waiters_share_one_load() -> None:
    """However many wait for a model, it is prepared and loaded once."""
    play = Play(model("a", concurrency=3))

    play.arrives("a", 1, 2).expect("prepare a#1")
    play.prepared("a#1").arrives("a", 3).expect("load a#1")

    play.ready("a#1").expect("grant 1 on a#1", "grant 2 on a#1", "grant 3 on a#1")


def test_a_seated_model_serves_at_once() -> None:
    """A request for a READY model with room waits for nothing."""
    play = Play(A).seated("a")

    play.arrives("a", 1).expect("grant 1 on a#1")


def test_concurrency_bounds_the_leases() -> None:
    """A worker never has more leases than its model's concurrency, and refills as they end."""
    play = Play(model("a", concurrency=2)).seated("a")

    play.arrives("a", 1, 2, 3).expect("grant 1 on a#1", "grant 2 on a#1")
    play.leaves(2).expect("grant 3 on a#1")


def test_waiters_of_one_model_are_served_in_the_order_they_came() -> None:
    """Within a model the queue is first in, first out, whatever the ticket's number."""
    play = Play(A).seated("a", 5).arrives("a", 9, 3, 7)

    play.leaves(5).expect("grant 9 on a#1")
    play.leaves(9).expect("grant 3 on a#1")
    play.leaves(3).expect("grant 7 on a#1")


def test_an_unknown_model_is_refused() -> None:
    """A model that nobody configured is refused, not waited for."""
    Play(A).arrives("nobody", 1).expect("refuse 1: unknown_model")


# Swapping


def test_an_idle_model_gives_its_seat_as_soon_as_the_next_is_prepared() -> None:
    """Nobody uses the seated model: it goes at once, and its memory is reused once it is gone."""
    play = Play(A, B).seated("a")

    play.arrives("b", 1).expect("prepare b#2")
    play.prepared("b#2").expect("stop a#1")
    play.exits("a#1").expect("load b#2")
    play.ready("b#2").expect("grant 1 on b#2")


def test_nobody_is_stopped_for_a_worker_that_is_not_prepared() -> None:
    """A model that fails while it is prepared costs the seated one nothing."""
    play = Play(A, B).seated("a").arrives("b", 1).expect("prepare b#2")

    play.exits("b#2").expect("refuse 1: start_failed, retry after 1 s")

    play.arrives("a", 2).expect("grant 2 on a#1")


def test_a_busy_model_is_not_drained_for_a_worker_that_is_not_prepared() -> None:
    """Though its patience is long over, a busy worker goes on until the head is PREPARED."""
    play = Play(A, B).seated("a", 1).arrives("b", 2).expect("prepare b#2")

    play.at(50).arrives("a", 3).leaves(1).expect("grant 3 on a#1")
    play.prepared("b#2").arrives("a", 4).leaves(3).expect("stop a#1")


def test_a_busy_model_that_falls_idle_gives_its_seat_before_patience_is_over() -> None:
    """The head takes the seat as soon as its holder has nothing to do."""
    play = Play(A, B).seated("a", 1).arrives("b", 2).prepared("b#2").expect("prepare b#2")

    play.at(1).leaves(1).expect("stop a#1")


def test_a_busy_model_goes_on_while_the_head_has_patience() -> None:
    """Until the head's patience is over, requests for the seated model overtake it."""
    play = Play(A, B).seated("a", 1).arrives("b", 2).prepared("b#2").expect("prepare b#2")

    play.at(4.9).arrives("a", 3).leaves(1).expect("grant 3 on a#1")
    play.expect_alarm(5)


def test_after_patience_a_busy_model_drains() -> None:
    """Patience over, the seated model finishes what runs, and its new requests queue."""
    play = Play(A, B).seated("a", 1).arrives("b", 2).prepared("b#2").expect("prepare b#2")

    play.at(5).wakes().arrives("a", 3).expect().expect_alarm(None)
    play.at(6).leaves(1).expect("stop a#1")
    play.exits("a#1").expect("load b#2", "prepare a#3")


def test_the_patience_is_that_of_the_model_that_waits() -> None:
    """How long the seated one may go on is said by the one who waits for it."""
    patient = model("b", patience_s=30)
    play = Play(model("a", patience_s=1), patient).seated("a", 1).arrives("b", 2).prepared("b#2")

    play.expect("prepare b#2").expect_alarm(30)


def test_patience_is_counted_anew_from_ready() -> None:
    """A model that just became ready may serve for the head's whole patience."""
    play = Play(A, B, C).arrives("a", 1, 2).arrives("b", 3).expect("prepare a#1")
    play.prepared("a#1").expect("load a#1", "prepare b#2").prepared("b#2")

    play.at(20).ready("a#1").expect("grant 1 on a#1").expect_alarm(25)
    play.at(24).leaves(1).expect("grant 2 on a#1")
    play.at(25).wakes().arrives("a", 4).leaves(2).expect("stop a#1")


def test_without_patience_a_load_still_serves_those_that_wait_for_it() -> None:
    """With a patience of 0 a model that becomes ready first serves its waiters, then drains."""
    a, b = model("a", patience_s=0, concurrency=2), model("b", patience_s=0)
    play = Play(a, b).arrives("a", 1, 2, 3).prepared("a#1").arrives("b", 4).prepared("b#2")
    play.expect("prepare a#1", "load a#1", "prepare b#2")

    play.ready("a#1").expect("grant 1 on a#1", "grant 2 on a#1")
    play.leaves(1).expect().leaves(2).expect("stop a#1")


def test_the_drained_models_waiters_queue_behind_the_head_however_early_they_came() -> None:
    """Who waited for a seated model does not take its seat back from the one it drained for."""
    play = Play(A, B).seated("a", 1).arrives("a", 2).at(1).arrives("b", 3).prepared("b#2")
    play.expect("prepare b#2").at(6).wakes()

    play.at(10).leaves(1).expect("stop a#1")
    play.exits("a#1").expect("load b#2", "prepare a#3")


def test_nobody_overtakes_the_head() -> None:
    """The model that has waited longest gets the memory first, though another is there sooner."""
    play = Play(A, B, C).seated("a", 1).at(1).arrives("c", 2).at(2).arrives("b", 3)
    play.expect("prepare c#2")

    play.leaves(1).expect()
    play.prepared("c#2").expect("stop a#1").exits("a#1").expect("load c#2", "prepare b#3")


def test_models_of_one_moment_wait_in_the_order_they_came() -> None:
    """Two models asked for at the same time have their turns as they were asked for."""
    play = Play(A, B, C).seated("a", 1).arrives("c", 2).arrives("b", 3)

    play.expect("prepare c#2")


def test_an_evicted_model_that_is_wanted_again_waits_for_its_seat() -> None:
    """While the old process ends, its model queues like any other, and gets a new process."""
    play = Play(A, B).seated("a").arrives("b", 1).prepared("b#2").arrives("a", 2)
    play.expect("prepare b#2", "stop a#1")

    play.exits("a#1").expect("load b#2", "prepare a#3")
    play.prepared("a#3").at(1).ready("b#2").expect("grant 1 on b#2").leaves(1).expect("stop b#2")


def test_interleaved_requests_cost_one_swap() -> None:
    """Requests for two models in turns are served a model at a time."""
    play = Play(A, B).arrives("a", 1).arrives("b", 2).arrives("a", 3).arrives("b", 4)
    play.prepared("a#1").prepared("b#2").expect("prepare a#1", "load a#1", "prepare b#2")

    play.ready("a#1").leaves(1).expect("grant 1 on a#1", "grant 3 on a#1")
    play.leaves(3).expect("stop a#1").exits("a#1").expect("load b#2")
    play.ready("b#2").leaves(2).expect("grant 2 on b#2", "grant 4 on b#2")


# Leaving


def test_leaving_the_queue_of_a_draining_model_changes_nothing_else() -> None:
    """A ticket that gives up is never granted."""
    play = Play(A).seated("a", 1).arrives("a", 2, 3).leaves(2).expect()

    play.leaves(1).expect("grant 3 on a#1")


def test_the_last_waiter_that_leaves_takes_its_demand_with_it() -> None:
    """Without a waiter a process without memory is stopped, and nothing is swapped."""
    play = Play(A, B).seated("a").arrives("b", 1).expect("prepare b#2")

    play.leaves(1).expect("stop b#2")
    play.arrives("a", 2).expect("grant 2 on a#1")


def test_one_waiter_of_two_that_leaves_stops_nothing() -> None:
    """A load goes on for those that still wait."""
    play = Play(A).arrives("a", 1, 2).expect("prepare a#1")

    play.leaves(1).expect()
    play.prepared("a#1").ready("a#1").expect("load a#1", "grant 2 on a#1")


def test_a_load_that_nobody_waits_for_any_more_is_let_finish() -> None:
    """What is paid for is not thrown away: the model loads, and its ttl counts from ready."""
    play = Play(model("a", ttl_s=10)).arrives("a", 1).prepared("a#1")
    play.expect("prepare a#1", "load a#1")

    play.at(2).leaves(1).expect().expect_alarm(None)
    play.at(4).ready("a#1").expect().expect_alarm(14)
    play.at(14).wakes().expect("stop a#1")


def test_a_load_that_nobody_waits_for_gives_way_to_one_that_is_waited_for() -> None:
    """A load under way is stopped when its seat is wanted and its model is not."""
    play = Play(A, B).arrives("a", 1).prepared("a#1").leaves(1).expect("prepare a#1", "load a#1")

    play.arrives("b", 2).expect("prepare b#2").prepared("b#2").expect("stop a#1")
    play.ready("a#1").expect()
    play.exits("a#1").expect("load b#2")


def test_a_load_that_is_waited_for_is_never_stopped_for_another() -> None:
    """However long the head has waited, a load that serves somebody comes to its end."""
    play = Play(A, B).arrives("a", 1).prepared("a#1").arrives("b", 2).prepared("b#2")
    play.expect("prepare a#1", "load a#1", "prepare b#2")

    play.at(100).wakes().expect()
    play.ready("a#1").expect("grant 1 on a#1").expect_alarm(105)


def test_a_grant_that_nobody_takes_is_given_back() -> None:
    """A request that left between its grant and its waking up gives its lease to the next."""
    play = Play(A).arrives("a", 1, 2).prepared("a#1").ready("a#1")
    play.expect("prepare a#1", "load a#1", "grant 1 on a#1")

    play.leaves(1).expect("grant 2 on a#1")


def test_leaving_twice_is_leaving_once() -> None:
    """A ticket that is not known, or not any more, leaves without a trace."""
    play = Play(A).seated("a", 1).leaves(1, 1, 77).expect()

    play.arrives("a", 2, 3).leaves(1).expect("grant 2 on a#1")


def test_a_draining_worker_serves_again_when_the_head_has_left() -> None:
    """Nobody needs its seat any more: the drained worker takes up its queue."""
    play = Play(A, B).seated("a", 1).arrives("b", 2).prepared("b#2").expect("prepare b#2")
    play.at(5).wakes().arrives("a", 3).expect()

    play.leaves(2).expect("stop b#2")
    play.leaves(1).expect("grant 3 on a#1")


def test_a_draining_worker_serves_again_when_the_heads_process_fails() -> None:
    """A head that crashes while others drain for it gives them their seats back."""
    play = Play(model("a", concurrency=2), B).seated("a", 1).arrives("b", 2).prepared("b#2")
    play.at(5).wakes().arrives("a", 3).expect("prepare b#2")

    play.exits("b#2").expect("refuse 2: start_failed, retry after 1 s", "grant 3 on a#1")


def test_the_reprieved_have_the_next_heads_whole_patience() -> None:
    """Who came after the head that left has its own patience, counted from its own arrival."""
    play = Play(A, B, C).seated("a", 1).arrives("b", 2).prepared("b#2").at(5).wakes()
    play.at(6).arrives("c", 3).leaves(2).expect("prepare b#2", "stop b#2", "prepare c#3")

    play.prepared("c#3").expect_alarm(11).at(10).arrives("a", 4).leaves(1).expect("grant 4 on a#1")


# Events that crossed our orders


def test_ready_from_a_worker_told_to_stop_is_ignored() -> None:
    """A BecameReady that crossed our Terminate grants nothing."""
    play = Play(A).arrives("a", 1).prepared("a#1").unload("a", by=9)
    play.expect("prepare a#1", "load a#1", "refuse 1: unloaded", "stop a#1")

    play.arrives("a", 2).expect("prepare a#2").ready("a#1").expect()


def test_prepared_from_a_worker_told_to_stop_is_ignored() -> None:
    """A Prepared that crossed our Terminate loads nothing."""
    play = Play(A).arrives("a", 1).leaves(1).expect("prepare a#1", "stop a#1")

    play.prepared("a#1").arrives("a", 2).expect("prepare a#2")


def test_events_of_a_worker_that_is_gone_are_ignored() -> None:
    """Whatever a reaped process is said to do, it moves nobody."""
    play = Play(A).seated("a").unload("a", by=9).exits("a#1").expect("stop a#1")

    play.prepared("a#1").ready("a#1").exits("a#1").expect()
    play.arrives("a", 1).expect("prepare a#2")


def test_a_process_that_never_held_memory_keeps_none_from_others() -> None:
    """Memory is charged from Load on: a worker that was stopped before it blocks nobody."""
    play = Play(A, B).arrives("b", 1).leaves(1).expect("prepare b#1", "stop b#1")

    play.arrives("a", 2).prepared("a#2").expect("prepare a#2", "load a#2")


def test_memory_is_charged_until_the_process_has_exited() -> None:
    """Told to stop is not gone: the next loads only when the memory is seen free."""
    play = Play(A, B).seated("a").arrives("b", 1).prepared("b#2").expect("prepare b#2", "stop a#1")

    play.at(60).wakes().arrives("b", 2).expect()
    play.exits("a#1").expect("load b#2")


# Failures


@pytest.mark.parametrize("steps", [0, 1], ids=["preparing", "loading"])
def test_a_failed_start_refuses_all_that_wait_for_it(steps: int) -> None:
    """Nobody waits for a start that has failed; other models' waiters do not notice."""
    play = Play(A, B).arrives("a", 1, 2).expect("prepare a#1")
    for _ in range(steps):
        play.prepared("a#1").expect("load a#1")

    play.exits("a#1").expect(
        "refuse 1: start_failed, retry after 1 s", "refuse 2: start_failed, retry after 1 s"
    )


def test_after_a_failed_start_the_next_model_has_its_turn() -> None:
    """The memory of a crashed load goes to the one that has waited for it."""
    play = Play(A, B).arrives("a", 1).prepared("a#1").arrives("b", 2).prepared("b#2")
    play.expect("prepare a#1", "load a#1", "prepare b#2")

    play.exits("a#1").expect("refuse 1: start_failed, retry after 1 s", "load b#2")


def test_a_failed_model_cools_down() -> None:
    """For a second nothing is tried again, and who asks is told how long to wait."""
    play = Play(A).arrives("a", 1).exits("a#1")
    play.expect("prepare a#1", "refuse 1: start_failed, retry after 1 s")

    play.at(0.25).arrives("a", 2).expect("refuse 2: cooling_down, retry after 0.75 s")
    play.at(1).arrives("a", 3).expect("prepare a#2")


def test_the_cool_down_doubles_up_to_a_minute() -> None:
    """Each failure in a row doubles the pause, from 1 s to 60 s."""
    play = Play(A)
    for number, pause_s in enumerate([1, 2, 4, 8, 16, 32, 60, 60], start=1):
        play.arrives("a", number).exits(f"a#{number}")
        play.expect(
            f"prepare a#{number}", f"refuse {number}: start_failed, retry after {pause_s} s"
        )
        play.at(play.now + pause_s)


def test_a_successful_start_resets_the_cool_down() -> None:
    """After a load that worked, the next failure counts as the first."""
    play = Play(A).arrives("a", 1).exits("a#1").at(1).arrives("a", 2).exits("a#2").at(3)
    play.arrives("a", 3).prepared("a#3").ready("a#3").exits("a#3").leaves(3).expect(
        "prepare a#1",
        "refuse 1: start_failed, retry after 1 s",
        "prepare a#2",
        "refuse 2: start_failed, retry after 2 s",
        "prepare a#3",
        "load a#3",
        "grant 3 on a#3",
    )

    play.arrives("a", 4).exits("a#4")
    play.expect("prepare a#4", "refuse 4: start_failed, retry after 1 s")


def test_a_worker_that_dies_while_it_serves_is_replaced_for_those_that_wait() -> None:
    """A crash after ready is no failed start: the waiters get a fresh load at once."""
    play = Play(A).seated("a", 1).arrives("a", 2)

    play.exits("a#1").expect("prepare a#2")
    play.leaves(1).expect().arrives("a", 3).expect()
    play.prepared("a#2").ready("a#2").expect("load a#2", "grant 2 on a#2")


def test_a_process_that_was_told_to_stop_has_not_failed() -> None:
    """The exit that we asked for cools nothing down."""
    play = Play(A).arrives("a", 1).leaves(1).exits("a#1").expect("prepare a#1", "stop a#1")

    play.arrives("a", 2).expect("prepare a#2")


# What is refused at the door


def test_a_full_queue_refuses() -> None:
    """Above its limit a queue takes nobody, until somebody has left it."""
    play = Play(model("a", queue_limit=1)).seated("a", 1, load_s=7).arrives("a", 2).expect()

    play.arrives("a", 3).expect("refuse 3: queue_full, retry after 1 s")
    play.leaves(1).arrives("a", 4).expect("grant 2 on a#1")


def test_a_full_queue_tells_when_it_has_a_place_again() -> None:
    """Who is refused may come again when the model is loaded, and one request is served."""
    play = Play(model("a", queue_limit=1, load_s=7, service_s=3)).arrives("a", 1)
    play.arrives("a", 2).expect("prepare a#1", "refuse 2: queue_full, retry after 10 s")

    play.prepared("a#1").at(5).arrives("a", 3)
    play.expect("load a#1", "refuse 3: queue_full, retry after 5 s")


def test_a_model_larger_than_the_budget_is_refused() -> None:
    """A model that could never load does not wait for ever."""
    play = Play(model("big", 11), model("exact", 10), budget=10)

    play.arrives("big", 1).expect("refuse 1: no_room")
    play.arrives("exact", 2).expect("prepare exact#1")


def test_what_other_pinned_models_reserve_is_never_to_be_had() -> None:
    """A model that fits only where a pinned one belongs is refused, loaded or not."""
    play = Play(model("pin", 6, pinned=True), model("small", 4), model("big", 5), budget=10)

    play.arrives("big", 1).expect("refuse 1: no_room")
    play.arrives("small", 2).leaves(2).expect("prepare small#1", "stop small#1")
    play.seated("pin").arrives("big", 3).expect("refuse 3: no_room")


def test_a_model_without_demand_fits_beside_any_reservation() -> None:
    """What takes nothing from anyone may always load, however much is promised to the pinned."""
    pins = model("p", 6, pinned=True), model("q", 6, pinned=True)
    play = Play(*pins, model("tiny", 0), budget=10)

    play.arrives("tiny", 1).expect("prepare tiny#1")


# Models that demand nothing


def test_a_model_without_demand_loads_while_the_seat_is_taken() -> None:
    """On one seat a pinned model demands nothing, and waits for nobody."""
    play = Play(A, model("tiny", 0, pinned=True)).seated("a", 1)

    play.arrives("tiny", 2).prepared("tiny#2").expect("prepare tiny#2", "load tiny#2")
    play.ready("tiny#2").expect("grant 2 on tiny#2")


def test_a_model_without_demand_passes_the_head() -> None:
    """The head blocks only those that would take memory from it."""
    play = Play(A, B, model("tiny", 0)).seated("a", 1).arrives("b", 2).expect("prepare b#2")

    play.arrives("tiny", 3).prepared("tiny#3").expect("prepare tiny#3", "load tiny#3")


def test_a_model_without_demand_does_not_hold_up_the_head() -> None:
    """While it is prepared, room is made for the one behind it that needs some."""
    play = Play(A, B, model("tiny", 0)).seated("a").arrives("tiny", 1).arrives("b", 2)
    play.expect("prepare tiny#2", "prepare b#3")

    play.prepared("b#3").expect("stop a#1")


def test_nobody_is_evicted_for_a_model_without_demand() -> None:
    """Nor is it ever a victim: stopping it would free nothing."""
    play = Play(A, B, model("tiny", 0)).seated("a").seated("tiny")

    play.arrives("b", 1).prepared("b#3").expect("prepare b#3", "stop a#1")


# Victims


def test_what_fits_beside_the_others_evicts_nobody() -> None:
    """With room left in the budget several workers are seated."""
    play = Play(model("a", 4), model("b", 6), budget=10).seated("a")

    play.arrives("b", 1).prepared("b#2").expect("prepare b#2", "load b#2")


def test_as_few_victims_as_suffice() -> None:
    """One large victim is better than two small ones, though these are older."""
    play = Play(model("a", 2), model("b", 2), model("c", 4), model("d", 4), budget=8)
    play.seated("a").seated("b").seated("c")

    play.arrives("d", 1).prepared("d#4").expect("prepare d#4", "stop c#3")


def test_several_victims_when_one_does_not_suffice() -> None:
    """As many go as the head needs, and it loads when the last of them is gone."""
    play = Play(model("a", 3), model("b", 3), model("c", 3), model("d", 6), budget=9)
    play.seated("a").at(1).seated("b").at(2).seated("c")

    play.arrives("d", 1).prepared("d#4").expect("prepare d#4", "stop a#1", "stop b#2")
    play.exits("b#2").expect().exits("a#1").expect("load d#4")


def test_the_victim_is_the_cheapest_to_bring_back() -> None:
    """Among equally many, those go whose last load took the least time, though used later."""
    play = Play(*(model(name, 5) for name in "abc"), budget=10)
    play.seated("a", load_s=20).seated("b", load_s=3)

    play.arrives("c", 1).prepared("c#3").expect("prepare c#3", "stop b#2")


def test_among_equally_cheap_victims_the_least_recently_used_goes() -> None:
    """The one that was used longest ago is the least likely to be asked for."""
    play = Play(*(model(name, 5) for name in "abc"), budget=10).seated("a").seated("b")
    play.at(1).arrives("b", 1).leaves(1).at(2).arrives("a", 2).leaves(2)
    play.expect("grant 1 on b#2", "grant 2 on a#1")

    play.arrives("c", 3).prepared("c#3").expect("prepare c#3", "stop b#2")


def test_among_busy_victims_the_one_that_was_granted_longest_ago_goes() -> None:
    """A grant is a use, though its lease has not ended."""
    play = Play(*(model(name, 5) for name in "abc"), budget=10).seated("a").seated("b")
    play.at(1).arrives("b", 1).at(2).arrives("a", 2).expect("grant 1 on b#2", "grant 2 on a#1")

    play.arrives("c", 3).prepared("c#3").at(7).wakes().expect("prepare c#3")
    play.leaves(1).expect("stop b#2").leaves(2).expect()


def test_idle_workers_go_before_a_busy_one() -> None:
    """Two idle victims are better than one that serves."""
    play = Play(model("a", 4), model("b", 2), model("c", 2), model("d", 4), budget=8)
    play.seated("a", 1).seated("b").seated("c").arrives("d", 2).at(20)

    play.prepared("d#4").expect("prepare d#4", "stop b#2", "stop c#3")


def test_a_busy_victim_is_not_the_only_way_while_another_has_less_to_lose() -> None:
    """Where one idle and one busy do as well as two busy ones, the idle one is among them."""
    play = Play(model("a", 4), model("b", 4), model("c", 4), model("d", 8), budget=12)
    play.seated("a", 1, load_s=1).seated("b", 2, load_s=1).seated("c", load_s=9)

    play.arrives("d", 3).at(30).prepared("d#4").expect("prepare d#4", "stop c#3")
    play.arrives("b", 4).leaves(2).expect("grant 4 on b#2")


def test_idle_workers_stay_while_they_do_not_suffice() -> None:
    """Nobody is stopped for a head that still could not load; patience decides when it can."""
    play = Play(model("a", 4), model("b", 4), model("c", 8), budget=8).seated("a", 1).seated("b")
    play.arrives("c", 2).prepared("c#3").expect("prepare c#3").expect_alarm(5)

    play.at(4).arrives("b", 3).leaves(3).expect("grant 3 on b#2")
    play.at(5).wakes().expect("stop b#2").leaves(1).expect("stop a#1")


def test_a_pinned_model_is_never_a_victim() -> None:
    """Idle or not, cheap or not: what is pinned stays, and another goes."""
    play = Play(model("pin", 5, pinned=True), model("a", 5), model("b", 5), budget=10)
    play.seated("pin").seated("a", load_s=50)

    play.arrives("b", 1).prepared("b#3").expect("prepare b#3", "stop a#2")


def test_a_pinned_model_takes_its_reservation_back() -> None:
    """Others may use a pinned model's memory until it wants it."""
    play = Play(model("pin", 5, pinned=True), model("a", 5), model("b", 5), budget=10)
    play.seated("a").at(1).seated("b")

    play.arrives("pin", 1).prepared("pin#3").expect("prepare pin#3", "stop a#1")


def test_what_is_freed_meanwhile_spares_the_drained() -> None:
    """A worker that crashes makes the room that others were drained for."""
    play = Play(model("a", 4), model("b", 4), model("c", 4), budget=8)
    play.seated("a", 1, load_s=1).seated("b", 2, load_s=2).arrives("c", 3).prepared("c#3")
    play.at(20).wakes().arrives("a", 4).expect("prepare c#3")

    play.exits("b#2").expect("load c#3").leaves(1).expect("grant 4 on a#1")


def test_of_the_drained_as_many_are_spared_as_the_head_can_do_without() -> None:
    """Where one of two is still needed, the one with more to do serves again, and not both."""
    a, b = model("a", 4, concurrency=2), model("b", 4, concurrency=3)
    play = Play(a, b, model("c", 4), model("d", 8), budget=12)
    play.seated("a", 1, load_s=1).seated("b", 2, 3, load_s=1).seated("c", 4, load_s=9)
    play.arrives("d", 5).prepared("d#4").at(30).wakes().expect("prepare d#4")

    play.arrives("a", 6).arrives("b", 7).expect()
    play.exits("c#3").expect("grant 7 on b#2")
    play.leaves(1).expect("stop a#1").exits("a#1").expect("load d#4", "prepare a#5")


def test_the_next_in_line_is_prepared_as_soon_as_the_head_loads() -> None:
    """Its imports overlap the head's load."""
    play = Play(A, B).arrives("a", 1).arrives("b", 2).expect("prepare a#1")

    play.prepared("a#1").expect("load a#1", "prepare b#2")


# ttl


def test_an_idle_model_is_stopped_after_its_ttl() -> None:
    """The clock runs from the end of the last lease."""
    play = Play(model("a", ttl_s=10)).seated("a", 1).at(3).leaves(1).expect_alarm(13)

    play.at(12).wakes().expect().expect_alarm(13)
    play.at(13).wakes().expect("stop a#1").expect_alarm(None)


def test_each_lease_starts_the_ttl_anew() -> None:
    """While it serves no clock runs; afterwards the whole ttl does."""
    play = Play(model("a", ttl_s=10)).seated("a").at(8).arrives("a", 1).expect("grant 1 on a#1")
    play.expect_alarm(None).at(15).leaves(1).expect_alarm(25)

    play.at(24).arrives("a", 2).expect("grant 2 on a#1").expect_alarm(None)


def test_no_ttl_ends_a_request() -> None:
    """However long it takes, and whatever else happens meanwhile."""
    play = Play(model("a", ttl_s=10)).seated("a", 1)

    play.at(50).wakes().expect().at(60).leaves(1).expect_alarm(70)


def test_with_two_leases_the_ttl_counts_from_the_later_end() -> None:
    """A worker is idle when its last lease has ended, not its first."""
    play = Play(model("a", ttl_s=10, concurrency=2)).seated("a", 1, 2)

    play.at(3).leaves(2).expect_alarm(None).at(7).leaves(1).expect_alarm(17)


@pytest.mark.parametrize("stays", [model("a", ttl_s=0), model("a", 0, ttl_s=10, pinned=True)])
def test_pinned_models_and_those_without_ttl_stay(stays) -> None:
    """A ttl of 0 is none, and a pinned model has none either."""
    play = Play(stays).seated("a").expect_alarm(None)

    play.at(1_000_000).wakes().expect()


# Unloading, shutting down


def test_unloading_an_idle_model_stops_it_at_once() -> None:
    """Who asks for a model to go and disturbs nobody does not wait; others stay."""
    play = Play(A, model("b", 0)).seated("a").seated("b")

    play.unload("a", by=30).expect("stop a#1")


def test_unloading_drains_and_forces_at_the_deadline() -> None:
    """Running requests may finish until the deadline, and no longer."""
    play = Play(model("a", concurrency=2)).seated("a", 1, 2).unload("a", by=30).expect()

    play.expect_alarm(30).at(29).leaves(1).expect()
    play.at(30).wakes().expect("stop a#1").expect_alarm(None)


def test_an_unloading_model_stops_with_its_last_lease() -> None:
    """Nothing runs there any more: the deadline is not waited for."""
    play = Play(A).seated("a", 1).unload("a", by=30)

    play.at(2).leaves(1).expect("stop a#1")


def test_the_earlier_of_two_deadlines_holds() -> None:
    """Asking again with more time does not take the first deadline back."""
    play = Play(A).seated("a", 1).unload("a", by=30).unload("a", by=60).expect_alarm(30)

    play.unload(None, by=20).expect_alarm(20).at(20).wakes().expect("stop a#1")


def test_a_request_during_an_unload_gets_a_fresh_load() -> None:
    """The old worker takes no more requests; a new one is prepared beside it."""
    a = model("a", concurrency=2)
    play = Play(a).seated("a", 1).unload("a", by=30).arrives("a", 2).expect("prepare a#2")

    play.prepared("a#2").expect().leaves(1).expect("stop a#1")
    play.exits("a#1").expect("load a#2").ready("a#2").expect("grant 2 on a#2")


@pytest.mark.parametrize("steps", [0, 1], ids=["preparing", "loading"])
def test_unloading_a_start_ends_the_wait_for_it(steps: int) -> None:
    """Who waits is refused, or it would come again at once; who waits for another is not."""
    play = Play(A, B).arrives("a", 1).expect("prepare a#1").arrives("b", 2)
    for _ in range(steps):
        play.prepared("a#1").expect("load a#1", "prepare b#2")

    play.unload("a", by=30).expect("refuse 1: unloaded", "stop a#1", *["prepare b#2"][steps:])
    play.arrives("a", 3).exits("a#1").prepared("b#2").expect("load b#2", "prepare a#3")


def test_shutdown_refuses_the_waiting_and_lets_the_running_finish() -> None:
    """Who waits is refused, who runs may finish, and starts are stopped."""
    play = Play(A, B).seated("a", 1).arrives("a", 2).arrives("b", 3).expect("prepare b#2")

    play.shutdown(by=30).expect(
        "refuse 2: shutting_down", "refuse 3: shutting_down", "stop b#2"
    ).expect_alarm(30)
    play.arrives("a", 4).expect("refuse 4: shutting_down")
    play.at(9).leaves(1).expect("stop a#1")


def test_shutdown_ends_what_runs_at_the_deadline() -> None:
    """Even the pinned go, and even those that serve."""
    play = Play(model("a", 0, pinned=True)).seated("a", 1).shutdown(by=30).expect()

    play.at(30).wakes().expect("stop a#1")


# Alarms, and the words for people


def test_the_alarm_is_the_first_thing_due() -> None:
    """Of a ttl, a patience and a deadline the earliest wakes us, and then the next."""
    free = model("free", 0, ttl_s=3)
    play = Play(A, B, free).seated("free").seated("a", 1).arrives("b", 2).prepared("b#3")
    play.expect("prepare b#3").expect_alarm(3)

    play.at(3).wakes().expect("stop free#1").expect_alarm(5)
    play.unload("a", by=4).expect_alarm(4)


def test_waking_early_or_for_nothing_says_nothing() -> None:
    """A Woke that nobody needs only repeats the alarm that is set."""
    play = Play(model("a", ttl_s=10)).wakes().expect().seated("a")

    play.at(1).wakes().expect().expect_alarm(10)


def test_the_scheduler_describes_itself_for_people() -> None:
    """The repr says who is there in which phase, with how many leases, and who waits."""
    play = Play(A, B).seated("a", 1).arrives("a", 2).arrives("b", 3)

    text = "<Scheduler a#1 ready 1, b#2 preparing 0 | 2 waiting | 1/1 of one>"
    assert repr(play.scheduler) == text
    assert play.scheduler.state.load_s == {ModelName("a"): 0}

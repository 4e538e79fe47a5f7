"""The scheduler's rules for memory in bytes, as stories: several devices, growth, measuring."""

from __future__ import annotations

from tests.scheduler.play import Play, amounts, model

A, B = model("a"), model("b")


def charged(play: Play) -> dict[str, int]:
    """Tell what is charged of each device that is."""
    return {device: n for device, n in play.scheduler.state.charged.items() if n}


# As many as fit


def test_as_many_are_seated_as_fit() -> None:
    """Three models that fill the budget to the last byte sit side by side."""
    play = Play(model("a", 5), model("b", 3), model("c", 2), budget=10).seated("a").seated("b")

    play.arrives("c", 1).prepared("c#3").expect("prepare c#3", "load c#3")


def test_two_that_start_at_once_are_both_charged() -> None:
    """Memory is promised when the load is ordered, so the second of two sees what is left."""
    play = Play(model("a", 6), model("b", 6), budget=10).arrives("a", 1).arrives("b", 2)
    play.prepared("a#1").expect("prepare a#1", "load a#1", "prepare b#2")

    play.prepared("b#2").expect()
    assert charged(play) == {"one": 6}


def test_what_fits_beside_those_before_goes_on() -> None:
    """Who comes later may have what those before him leave over."""
    play = Play(model("a", 4), model("b", 4), budget=10)

    play.arrives("a", 1).arrives("b", 2).expect("prepare a#1", "prepare b#2")
    play.prepared("b#2").expect("load b#2").prepared("a#1").expect("load a#1")


def test_the_small_do_not_starve_the_large() -> None:
    """A model that would fit does not pass a larger one that has waited longer."""
    play = Play(model("a", 6), model("large", 8), model("small", 2), budget=10).seated("a", 1)
    play.arrives("large", 2).arrives("small", 3).expect("prepare large#2")

    play.leaves(1).prepared("large#2").expect("stop a#1", "prepare small#3")
    play.prepared("small#3").expect().exits("a#1").expect("load large#2", "load small#3")


def test_what_is_free_is_kept_for_those_before_though_more_is_to_come() -> None:
    """While somebody leaves for the first in line, the second takes nothing of what it needs."""
    play = Play(model("a", 6), model("b", 7), model("c", 3), budget=10).seated("a")
    play.arrives("b", 1).prepared("b#2").arrives("c", 2)
    play.expect("prepare b#2", "stop a#1", "prepare c#3")

    play.prepared("c#3").expect()
    play.exits("a#1").expect("load b#2", "load c#3")


# Several devices


def test_two_gpus_do_not_block_each_other() -> None:
    """Who lacks memory on one GPU keeps nobody from the other one."""
    models = model("a", {"gpu": 5}), model("b", {"gpu": 5}), model("c", {"other": 5})
    play = Play(*models, budget={"gpu": 5, "other": 5}).seated("a", 1)
    play.arrives("b", 2).prepared("b#2").expect("prepare b#2")

    play.arrives("c", 3).prepared("c#3").expect("prepare c#3", "load c#3")


def test_the_host_has_two_gpus_models_side_by_side() -> None:
    """Where the host has memory for all, a wait for one GPU is no wait for the other."""
    one, other = {"gpu": 5, "host": 1}, {"other": 5, "host": 1}
    play = Play(
        *(model("a", one), model("b", one), model("c", other)),
        budget={"gpu": 5, "other": 5, "host": 3},
    )
    play.seated("a", 1).arrives("b", 2).prepared("b#2").expect("prepare b#2")

    play.arrives("c", 3).prepared("c#3").expect("prepare c#3", "load c#3")


def test_the_hosts_memory_is_set_aside_for_those_before() -> None:
    """The last byte of the host is kept for who waits for a GPU besides."""
    one, other = {"gpu": 5, "host": 1}, {"other": 5, "host": 1}
    play = Play(
        *(model("a", one), model("b", one), model("c", other)),
        budget={"gpu": 5, "other": 5, "host": 2},
    )
    play.seated("a", 1).arrives("b", 2).prepared("b#2").expect("prepare b#2")

    play.arrives("c", 3).expect()
    play.leaves(1).expect("stop a#1", "prepare c#3").prepared("c#3").expect()
    play.exits("a#1").expect("load b#2", "load c#3")


def test_a_model_on_two_gpus_needs_both() -> None:
    """Free on one GPU and full on the other is not room; only who sits there goes."""
    models = model("a", {"gpu": 4}), model("b", {"other": 4}), model("c", {"gpu": 3, "other": 3})
    play = Play(*models, budget={"gpu": 5, "other": 8}).seated("a").seated("b")

    play.arrives("c", 1).prepared("c#3").expect("prepare c#3", "stop a#1")


def test_who_waits_for_two_gpus_is_not_overtaken_on_the_second() -> None:
    """While it waits behind another for the first GPU, nobody is let in line for the second."""
    models = [model("a", {"gpu": 5}), model("b", {"other": 5}), model("c", {"gpu": 5})]
    models += [model("d", {"gpu": 5, "other": 5}), model("e", {"other": 5})]
    play = Play(*models, budget={"gpu": 5, "other": 10}).seated("a", 1).seated("b", 2)
    play.arrives("c", 3).arrives("d", 4).expect("prepare c#3")

    play.arrives("e", 5).expect().leaves(2).expect()


def test_one_victim_on_both_gpus_is_better_than_two() -> None:
    """As few as suffice are counted over all devices."""
    models = [model("a", {"gpu": 4}), model("b", {"other": 4})]
    models += [model("c", {"gpu": 4, "other": 4}), model("d", {"gpu": 4, "other": 4})]
    play = Play(*models, budget={"gpu": 8, "other": 8}).seated("a").seated("b")
    play.seated("c", load_s=100)

    play.arrives("d", 1).prepared("d#4").expect("prepare d#4", "stop c#3")


def test_a_victim_for_one_head_counts_for_the_next() -> None:
    """What one worker frees on two GPUs is enough for two heads: nobody else has to go."""
    models = [model("a", {"gpu": 5, "other": 5}), model("b", {"other": 5})]
    models += [model("c", {"gpu": 5}), model("d", {"other": 5})]
    play = Play(*models, budget={"gpu": 5, "other": 10}).seated("a", 1).seated("b", 2)
    play.arrives("c", 3).arrives("d", 4).prepared("c#3").prepared("d#4")
    play.at(5).wakes().arrives("b", 5).expect("prepare c#3", "prepare d#4")

    play.leaves(1).expect("stop a#1").leaves(2).expect("grant 5 on b#2")
    play.exits("a#1").expect("load c#3", "load d#4")


def test_a_device_that_the_budget_does_not_have_is_not_to_be_had() -> None:
    """A model that wants a GPU which is not there is refused."""
    play = Play(model("a", {"other": 1}), budget={"gpu": 10})

    play.arrives("a", 1).expect("refuse 1: no_room")


# Growing


def test_a_larger_request_grows_the_charge_before_its_grant() -> None:
    """A picture that needs more than the model has charged gets it where it is free."""
    play = Play(model("a", 4), budget=10).seated("a")

    play.asks("a", 1, demand=7).expect("grant 1 on a#1")
    assert charged(play) == {"one": 7}


def test_a_larger_request_loads_with_what_it_needs() -> None:
    """Who waits foremost says how much is charged for the load."""
    play = Play(model("a", 4), budget=10).asks("a", 1, demand=7).prepared("a#1")

    play.expect("prepare a#1", "load a#1")
    assert charged(play) == {"one": 7}


def test_a_charge_that_has_grown_stays_grown() -> None:
    """The next large request finds the memory there, and a small one takes none back."""
    play = Play(model("a", 4), budget=10).seated("a").asks("a", 1, demand=7).leaves(1)
    play.expect("grant 1 on a#1")

    play.arrives("a", 2).leaves(2).asks("a", 3, demand=7)
    play.expect("grant 2 on a#1", "grant 3 on a#1")
    assert charged(play) == {"one": 7}


def test_growth_evicts_the_idle() -> None:
    """For a larger request an idle neighbour goes, and the grant waits until it is gone."""
    play = Play(model("a", 4), model("b", 4), budget=10).seated("b").seated("a")

    play.asks("a", 1, demand=7).expect("stop b#1")
    play.exits("b#1").expect("grant 1 on a#2")


def test_growth_drains_the_busy_after_patience() -> None:
    """A busy neighbour goes on for the patience of who must grow, and then drains."""
    play = Play(model("a", 4), model("b", 4), budget=10).seated("b", 1).seated("a")
    play.asks("a", 2, demand=7).expect().expect_alarm(5)

    play.at(5).wakes().arrives("b", 3).leaves(1).expect("stop b#1")
    play.exits("b#1").expect("grant 2 on a#2", "prepare b#3")


def test_what_can_never_grow_so_far_is_refused() -> None:
    """A request larger than all there is does not wait; smaller ones are served."""
    play = Play(model("a", 4), budget=10).seated("a")

    play.asks("a", 1, demand=11).expect("refuse 1: no_room")
    play.asks("a", 2, demand=10).expect("grant 2 on a#1")


def test_two_growing_models_do_not_wait_for_each_other() -> None:
    """Of two that cannot both grow, the one behind gives up its seat, and comes back."""
    models = model("a", 5, concurrency=2), model("b", 5, concurrency=2)
    play = Play(*models, budget=10).seated("a", 1).seated("b", 2)
    play.at(1).asks("b", 3, demand=8).asks("a", 4, demand=8).expect()

    play.at(6).wakes().leaves(1).expect("stop a#1")
    play.exits("a#1").expect("grant 3 on b#2", "prepare a#3").prepared("a#3").leaves(2, 3)
    play.expect("stop b#2").exits("b#2").expect("load a#3")
    play.ready("a#3").expect("grant 4 on a#3")


def test_who_grew_and_lost_its_seat_stands_last() -> None:
    """A model that was evicted while it waited to grow does not keep its old place."""
    models = model("a", {"gpu": 5}), model("b", {"gpu": 5}), model("c", {"host": 5})
    play = Play(*models, budget={"gpu": 5, "host": 5}).seated("a").seated("c", 1)
    play.asks("a", 2, demand={"gpu": 5, "host": 5}).expect().at(1).arrives("b", 3)
    play.prepared("b#3").expect("prepare b#3")

    play.at(6).wakes().expect("stop a#1").exits("a#1").expect("load b#3", "prepare a#4")


def test_a_small_request_waits_behind_a_large_one_of_its_model() -> None:
    """Within a model nobody overtakes: the one that must grow is first."""
    play = Play(model("a", 4, concurrency=2), model("b", 4), budget=10).seated("b", 1).seated("a")

    play.asks("a", 2, demand=7).arrives("a", 3).expect()
    play.leaves(1).expect("stop b#1").exits("b#1").expect("grant 2 on a#2", "grant 3 on a#2")


def test_a_pinned_model_that_grows_makes_others_hopeless() -> None:
    """What a pinned worker has taken for good is not waited for any more."""
    pin = model("pin", 2, pinned=True)
    play = Play(pin, model("a", 8), model("b", 8), budget=10).seated("pin").seated("a")
    play.asks("pin", 1, demand=6).arrives("b", 2).expect("stop a#2")

    play.exits("a#2").expect("grant 1 on pin#1", "refuse 2: no_room")


# Measuring


def test_a_smaller_footprint_makes_room() -> None:
    """A worker that holds less than was thought leaves the rest to others."""
    play = Play(model("a", 8), model("b", 4), budget=10).seated("a", 1).arrives("b", 2)
    play.prepared("b#2").expect("prepare b#2")

    play.measured("a#1", 6, of_model=6).expect("load b#2")


def test_a_larger_footprint_sends_the_idle_away() -> None:
    """More is held than there is: who is idle goes, and who serves stays."""
    play = Play(model("a", 5), model("b", 5), budget=10).seated("a", 1).seated("b")

    play.measured("a#1", 7, of_model=7).expect("stop b#2")


def test_what_was_measured_is_demanded_from_then_on() -> None:
    """The next load of the model is charged with what it was seen to hold."""
    play = Play(model("a", 4), budget=10).seated("a").measured("a#1", 6, of_model=7).unload("a", 9)
    play.exits("a#1").arrives("a", 1).prepared("a#2").expect("stop a#1", "prepare a#2", "load a#2")

    assert charged(play) == {"one": 7}


def test_a_model_that_turns_out_too_large_is_refused() -> None:
    """Those who wait for a model that can never fit again are told so, when it is measured."""
    play = Play(model("a", 4, concurrency=1), budget=10).seated("a", 1).arrives("a", 2)

    play.measured("a#1", 9, of_model=12).expect()
    play.exits("a#1").expect("refuse 2: no_room")


def test_a_worker_that_is_going_is_measured_in_vain() -> None:
    """What it holds is freed when it is gone, and was charged until then."""
    play = Play(model("a", 5), model("b", 6), budget=10).seated("a").arrives("b", 1)
    play.prepared("b#2").expect("prepare b#2", "stop a#1")

    play.measured("a#1", 1, of_model=5).expect()
    play.exits("a#1").expect("load b#2")


def test_a_model_of_unknown_size_loads_with_all_there_is() -> None:
    """Nobody loads beside it until it is measured; what is left over is given back then."""
    unknown = model("a", 2, loads_alone=True)
    play = Play(unknown, model("b", 3), budget=10).arrives("a", 1).prepared("a#1")
    play.arrives("b", 2).expect("prepare a#1", "load a#1", "prepare b#2")
    assert charged(play) == {"one": 10}

    play.prepared("b#2").ready("a#1").expect("grant 1 on a#1")
    play.measured("a#1", 6, of_model=6).expect("load b#2")


# The budget


def test_a_budget_that_shrinks_sends_the_idle_away() -> None:
    """Others use the device: as many idle ones go as must, and the busy stay."""
    play = Play(*(model(name, 3) for name in "abc"), budget=9)
    play.seated("a", load_s=9).seated("b", 1).seated("c", load_s=2)

    play.budget(6).expect("stop c#3").exits("c#3").expect()
    play.budget(5).expect("stop a#1")


def test_all_the_idle_go_where_they_do_not_suffice() -> None:
    """Though more stays promised than there is, who helps goes."""
    play = Play(*(model(name, 3) for name in "abc"), budget=9).seated("a").seated("b", 1)
    play.seated("c")

    play.budget(1).expect("stop a#1", "stop c#3")


def test_the_idle_go_only_where_it_helps() -> None:
    """A worker on another GPU has nothing to do with it; a pinned one stays."""
    models = [model("a", {"gpu": 3}), model("b", {"other": 3})]
    models += [model("pin", {"gpu": 3}, pinned=True)]
    play = Play(*models, budget={"gpu": 6, "other": 3}).seated("a").seated("b").seated("pin")

    play.budget({"gpu": 2, "other": 3}).expect("stop a#1")


def test_nobody_goes_for_what_is_leaving_anyway() -> None:
    """Memory that is about to be freed is not asked for twice."""
    play = Play(model("a", 3), model("b", 3), budget=6).seated("a").seated("b").unload("a", 9)

    play.expect("stop a#1").budget(3).expect()


def test_waiters_are_refused_when_the_budget_shrinks_below_them() -> None:
    """Who could have been served before, and never will be now, does not wait in vain."""
    play = Play(model("a", 5), model("b", 8), budget=10).seated("a", 1).arrives("b", 2)
    play.expect("prepare b#2")

    play.budget(7).expect("refuse 2: no_room", "stop b#2")


def test_a_seated_model_serves_though_the_budget_shrank_below_it() -> None:
    """What is loaded is loaded: its own requests need no more memory. Its seat gone, they do."""
    play = Play(model("a", 8), budget=10).seated("a", 1).arrives("a", 2, 3).budget(5).expect()

    play.leaves(1).expect("grant 2 on a#1")
    play.exits("a#1").expect("refuse 3: no_room")


def test_a_budget_that_grows_lets_the_next_load() -> None:
    """There is more to be had: who waits need not wait for anybody."""
    play = Play(model("a", 5), model("b", 5), budget=8).seated("a", 1).arrives("b", 2)
    play.prepared("b#2").expect("prepare b#2")

    play.budget(10).expect("load b#2")


# Stuck


def test_what_a_stuck_worker_holds_is_lost() -> None:
    """Its memory stays charged; others do with what is left, or are refused."""
    play = Play(model("a", 6), model("b", 5), model("c", 4), budget=10).seated("a")
    play.arrives("b", 1).prepared("b#2").arrives("c", 2)
    play.expect("prepare b#2", "stop a#1", "prepare c#3")

    play.sticks("a#1").expect("refuse 1: no_room", "stop b#2")
    play.prepared("c#3").expect("load c#3")


def test_a_stuck_worker_that_goes_after_all_gives_its_memory_back() -> None:
    """Exited may yet come, and then all is to be had again."""
    play = Play(model("a", 6), model("b", 5), budget=10).seated("a").unload("a", 9)
    play.sticks("a#1").arrives("b", 1).expect("stop a#1", "refuse 1: no_room")

    play.exits("a#1").arrives("b", 2).expect("prepare b#2")


def test_a_worker_that_was_not_told_to_stop_is_not_stuck() -> None:
    """Such a word crossed others: a worker that serves goes on."""
    play = Play(model("a", 6), model("b", 5), budget=10).seated("a").sticks("a#1").expect()

    play.arrives("b", 1).prepared("b#2").expect("prepare b#2", "stop a#1")


# Running out of memory


def beside_another(budget: int = 10) -> Play:
    """Tell how b failed to load beside a, which is busy; its next process is prepared."""
    play = Play(model("a", 4), model("b", 4), model("c", 4), budget=budget).seated("a", 1)
    play.arrives("b", 2).prepared("b#2").runs_out("b#2").prepared("b#3")
    return play.expect("prepare b#2", "load b#2", "prepare b#3")


def test_a_load_that_ran_out_of_memory_is_tried_once_more_alone() -> None:
    """Everybody else leaves first, as if they were in its way; then it has all there is."""
    play = beside_another().at(5).wakes().leaves(1).expect("stop a#1")

    play.exits("a#1").expect("load b#3")
    assert charged(play) == {"one": 10}


def test_a_load_that_works_alone_gives_back_what_it_does_not_need() -> None:
    """Once it is ready, others may sit beside it again."""
    play = beside_another().leaves(1).exits("a#1").arrives("c", 3)
    play.expect("stop a#1", "load b#3", "prepare c#4").prepared("c#4").expect()

    play.ready("b#3").expect("grant 2 on b#3", "load c#4")
    assert charged(play) == {"one": 8}


def test_a_load_that_runs_out_alone_has_failed() -> None:
    """There is no third try: who waits is refused, and the model cools down."""
    play = beside_another().leaves(1).exits("a#1").expect("stop a#1", "load b#3")

    play.runs_out("b#3").expect("refuse 2: start_failed, retry after 1 s")
    play.arrives("b", 3).expect("refuse 3: cooling_down, retry after 1 s")


def test_who_had_all_for_himself_is_not_tried_again() -> None:
    """Without others there, a second try would end like the first."""
    play = Play(model("a", 4), budget=10).arrives("a", 1).prepared("a#1")
    play.expect("prepare a#1", "load a#1")

    play.runs_out("a#1").expect("refuse 1: start_failed, retry after 1 s")


def test_the_pinned_and_other_gpus_are_no_reason_to_try_again() -> None:
    """Neither could be made to leave for it, or would be of help."""
    models = [model("a", {"gpu": 4}), model("b", {"other": 4})]
    models += [model("pin", {"gpu": 2}, pinned=True)]
    play = Play(*models, budget={"gpu": 9, "other": 9}).seated("pin").seated("b")
    play.arrives("a", 1).prepared("a#3").expect("prepare a#3", "load a#3")

    play.runs_out("a#3").expect("refuse 1: start_failed, retry after 1 s")


def test_a_larger_request_alone_is_tried_again_because_of_what_it_was_charged() -> None:
    """Who sat where only the request needed memory was in its way, too."""
    models = model("a", {"gpu": 4}), model("b", {"host": 4})
    play = Play(*models, budget={"gpu": 9, "host": 9}).seated("b")
    play.asks("a", 1, demand={"gpu": 4, "host": 4}).prepared("a#2").expect(
        "prepare a#2", "load a#2"
    )

    play.runs_out("a#2").expect("prepare a#3")


def test_the_second_try_has_the_old_place_in_the_line() -> None:
    """Who came after it while it loaded does not go first."""
    play = Play(model("a", 4), model("b", 4), model("c", 10), budget=10).seated("a", 1)
    play.at(1).arrives("b", 2).prepared("b#2").at(2).arrives("c", 3)
    play.expect("prepare b#2", "load b#2", "prepare c#3")

    play.at(3).runs_out("b#2").expect("prepare b#4")
    play.prepared("c#3").prepared("b#4").leaves(1).exits("a#1").expect("stop a#1", "load b#4")


def test_a_crash_is_not_a_want_of_memory() -> None:
    """A load that failed for another reason is not tried again, others beside it or not."""
    play = Play(model("a", 4), model("b", 4), budget=10).seated("a").arrives("b", 1)
    play.prepared("b#2").expect("prepare b#2", "load b#2")

    play.exits("b#2").expect("refuse 1: start_failed, retry after 1 s")


def test_when_all_have_left_the_second_try_is_off() -> None:
    """A later request is loaded beside the others again."""
    play = beside_another().leaves(2).expect("stop b#3").exits("b#3").expect()

    play.arrives("b", 3).prepared("b#4").expect("prepare b#4", "load b#4")
    assert charged(play) == {"one": 8}


# Whom to evict


def test_of_equally_quick_victims_the_smaller_goes() -> None:
    """The larger one is not thrown out where the smaller suffices."""
    play = Play(model("a", 6), model("b", 4), model("c", 4), budget=10).seated("b").at(1)
    play.seated("a").at(2).arrives("b", 1).leaves(1).expect("grant 1 on b#1")

    play.arrives("c", 2).prepared("c#3").expect("prepare c#3", "stop b#1")


def test_memory_is_weighed_after_load_time() -> None:
    """A large model that is quick to load goes before a small one that is slow."""
    play = Play(model("a", 6), model("b", 4), model("c", 4), budget=10)
    play.seated("b", load_s=9).seated("a", load_s=2)

    play.arrives("c", 1).prepared("c#3").expect("prepare c#3", "stop a#2")


def test_a_load_time_of_an_earlier_life_counts() -> None:
    """What was measured before a restart says who is the cheapest; newer times replace it."""
    models = model("a", 5, load_s=50), model("b", 5, load_s=1), model("c", 5)
    play = Play(*models, budget=10).seated("a", load_s=3).seated("b", load_s=4)

    play.arrives("c", 1).prepared("c#3").expect("prepare c#3", "stop a#1")


def test_a_second_try_without_room_is_not_waited_for() -> None:
    """The budget shrank while it loaded: once its seat is lost, there is none to be had."""
    play = Play(model("a", 2), model("b", 4), budget=10).seated("a", 1).arrives("b", 2)
    play.prepared("b#2").budget(3).expect("prepare b#2", "load b#2")

    play.runs_out("b#2").expect("refuse 2: no_room")


def test_a_pinned_model_that_loads_alone_reserves_no_more_than_its_own() -> None:
    """It has all there is for a while only: others wait, and are not refused."""
    play = Play(model("pin", 4, pinned=True), model("a", 2), budget=10).seated("a", 1)
    play.arrives("pin", 2).prepared("pin#2").runs_out("pin#2").prepared("pin#3").leaves(1)
    play.expect("prepare pin#2", "load pin#2", "prepare pin#3", "stop a#1")

    play.exits("a#1").arrives("a", 3).expect("load pin#3", "prepare a#4")
    play.prepared("a#4").ready("pin#3").expect("grant 2 on pin#3", "load a#4")


def test_nobody_waits_for_what_is_lost() -> None:
    """What a stuck worker holds is not about to be freed, so a busy one has to drain."""
    play = Play(model("a", 6), model("b", 4), model("c", 4), budget=10).seated("b", 1).seated("a")
    play.unload("a", by=9).sticks("a#2").arrives("c", 2).prepared("c#3")
    play.expect("stop a#2", "prepare c#3").expect_alarm(5)

    play.at(5).wakes().leaves(1).expect("stop b#1").exits("b#1").expect("load c#3")


def test_a_worker_that_has_not_loaded_is_charged_nothing() -> None:
    """A word about its memory teaches something about the model, and no more."""
    play = Play(model("a", 4), budget=10).arrives("a", 1).measured("a#1", 5, of_model=5)
    assert charged(play) == {}

    play.prepared("a#1").expect("prepare a#1", "load a#1")
    assert charged(play) == {"one": 5}


def test_a_model_that_was_measured_once_loads_beside_others() -> None:
    """Its size is known from then on."""
    play = Play(model("a", 2, loads_alone=True), budget=10).seated("a").measured("a#1", 6, 6)
    play.unload("a", by=9).exits("a#1").arrives("a", 1).prepared("a#2")

    play.expect("stop a#1", "prepare a#2", "load a#2")
    assert charged(play) == {"one": 6}


def test_those_that_wait_are_refused_when_their_model_turns_out_too_large() -> None:
    """What is learned of a model counts at once for who stands in the line for it."""
    play = Play(model("a", 5), model("b", 6), budget=10).seated("a", 1).arrives("b", 2)
    play.prepared("b#2").expect("prepare b#2")

    play.measured("b#2", 0, of_model=12).expect("refuse 2: no_room", "stop b#2")


def test_who_is_waited_for_does_not_go_when_the_budget_shrinks() -> None:
    """A worker that must grow for a request serves nobody yet, and is not idle all the same."""
    play = Play(model("a", 4), model("b", 4), budget=8).seated("b", 1).seated("a")
    play.asks("a", 2, demand=6).expect()

    play.budget(7).expect()


def test_a_load_alone_that_got_company_is_not_tried_a_third_time() -> None:
    """The budget grew, and another loaded beside it: its second try was the last all the same."""
    play = beside_another().leaves(1).exits("a#1").budget(14).arrives("c", 3).prepared("c#4")
    play.expect("stop a#1", "load b#3", "prepare c#4", "load c#4")

    play.runs_out("b#3").expect("refuse 2: start_failed, retry after 1 s")


def test_a_newer_load_time_outlives_a_reload() -> None:
    """The config's old figures do not come back."""
    models = model("a", 5, load_s=1), model("b", 5), model("c", 5)
    play = Play(*models, budget=10).seated("a", load_s=20).seated("b", load_s=3)

    play.reload(*models, budget=10).arrives("c", 1).prepared("c#3").expect(
        "prepare c#3", "stop b#2"
    )


def test_who_must_grow_is_no_victim_of_its_own_growth() -> None:
    """However quick it would be to bring back: its neighbour drains for it."""
    play = Play(model("a", 4), model("b", 4), budget=10)
    play.seated("b", 1, load_s=9).seated("a", load_s=1).at(20).asks("a", 2, demand=7).expect()

    play.at(25).wakes().expect().leaves(1).expect("stop b#1")


# Ends that nobody asked for


def test_a_worker_that_has_ended_serves_nobody_and_stays_charged() -> None:
    """Its memory may still be away: who comes gets a new process, and memory when it is back."""
    play = Play(A, budget=1).seated("a")

    play.ends("a#1").arrives("a", 1).expect("prepare a#2")
    play.prepared("a#2").expect()
    play.exits("a#1").expect("load a#2")


def test_a_start_that_has_ended_is_told_before_its_memory_is_back() -> None:
    """Who waits for it need not wait for that."""
    play = Play(A).arrives("a", 1).prepared("a#1").expect("prepare a#1", "load a#1")

    play.ends("a#1").expect("refuse 1: start_failed, retry after 1 s")
    play.exits("a#1").expect()


def test_memory_of_an_ended_worker_may_stay_away() -> None:
    """Then it is as lost as that of one that was told to stop."""
    play = Play(A, B, budget=1).seated("a").ends("a#1").arrives("b", 1).expect("prepare b#2")

    play.sticks("a#1").expect("refuse 1: no_room", "stop b#2")


# Fears


def test_who_is_feared_to_need_more_gets_it_where_there_is_room() -> None:
    """It stands in the line for all that it may need, and others leave for it."""
    play = Play(model("a", 4, feared=amounts(7)), model("b", 4), budget=10).seated("b")

    play.arrives("a", 1).expect("prepare a#2")
    play.prepared("a#2").expect("stop b#1")
    play.exits("b#1").expect("load a#2")


def test_nobody_is_refused_for_what_he_is_feared_to_need() -> None:
    """Where there is less room than that, what there is must do."""
    play = Play(model("a", 4, feared=amounts(12)), budget=10)

    play.arrives("a", 1).expect("prepare a#1")
    play.budget(6).prepared("a#1").expect("load a#1")

"""Who may be seated beside whom, as stories: groups, and sets that may be there at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.scheduler import Company, Group, ModelName, WaitsFor, by_groups, by_sets
from proxy.scheduler.company import Sitter, choose
from tests.scheduler.play import Play, model


def names(text: str) -> tuple[ModelName, ...]:
    return tuple(map(ModelName, text))


def group(members: str, **flags: bool) -> Group:
    return Group(names(members), **flags)


def grouped(*groups: Group, models: str = "abcd") -> Company:
    return by_groups(names(models), groups)


def matrix(*sets: str, models: str = "abcde", **costs: int) -> Company:
    those = [frozenset(names(one)) for one in sets]
    return by_sets(names(models), those, {ModelName(name): n for name, n in costs.items()})


def stage(company: Company, models: str = "abcd", concurrency: int = 2) -> Play:
    """Set a stage where memory is not counted."""
    those = [model(name, 0, concurrency=concurrency) for name in models]
    return Play(*those, budget={}, company=company)


# Groups


def test_a_group_that_swaps_has_one_member_at_a_time() -> None:
    """A member that loads expels its idle sibling, and loads when that is gone."""
    play = stage(grouped(group("ab"))).seated("a")

    play.arrives("b", 1).prepared("b#2").expect("prepare b#2", "stop a#1")
    play.exits("a#1").expect("load b#2")


def test_a_group_that_does_not_swap_sits_side_by_side() -> None:
    """Members of a group with swap: false expel each other not at all."""
    play = stage(grouped(group("abc", swap=False))).seated("a").seated("b", 1)

    play.arrives("c", 2).prepared("c#3").expect("prepare c#3", "load c#3")


def test_an_exclusive_group_expels_the_others() -> None:
    """Whoever is of another group has to leave, all of them."""
    play = stage(grouped(group("ab", swap=False), group("c"))).seated("a").seated("b")

    play.arrives("c", 1).prepared("c#3").expect("prepare c#3", "stop a#1", "stop b#2")
    play.exits("a#1").expect().exits("b#2").expect("load c#3")


def test_a_group_that_is_not_exclusive_expels_nobody_elsewhere() -> None:
    """Its members come beside whoever is there; and are expelled by who is exclusive."""
    play = stage(grouped(group("a"), group("b", exclusive=False))).seated("a").seated("b")

    play.arrives("a", 1).expect("grant 1 on a#1")  # it is there: nobody has to go


def test_who_is_there_expels_nobody_that_came_to_sit_beside_it() -> None:
    """The rules count when a model loads: only a new load of the exclusive one expels."""
    company = grouped(group("a"), group("b", exclusive=False))
    play = stage(company).seated("a").seated("b").unload("a", 0).exits("a#1").expect("stop a#1")

    play.arrives("a", 1).prepared("a#3").expect("prepare a#3", "stop b#2")
    play.exits("b#2").expect("load a#3")


def test_a_persistent_group_stays() -> None:
    """Nobody of another group expels its members."""
    play = stage(grouped(group("a", persistent=True), group("b"))).seated("a")

    play.arrives("b", 1).prepared("b#2").expect("prepare b#2", "load b#2")


def test_a_persistent_group_still_swaps_within_itself() -> None:
    """Siblings take turns, persistent or not."""
    play = stage(grouped(group("ab", persistent=True, exclusive=False))).seated("a")

    play.arrives("b", 1).prepared("b#2").expect("prepare b#2", "stop a#1")


def test_models_without_a_group_take_turns() -> None:
    """Who is in no group is in one with all such, which swaps and is exclusive."""
    play = stage(grouped(group("a", exclusive=False))).seated("b").seated("a")

    play.arrives("c", 1).prepared("c#3").expect("prepare c#3", "stop b#1", "stop a#2")


# When they go


def test_a_busy_one_goes_on_until_the_patience_is_over() -> None:
    """Who is expelled drains as one does whose memory is needed; then its requests queue."""
    play = stage(grouped(group("ab"))).seated("a", 1).arrives("b", 2).prepared("b#2")
    play.expect("prepare b#2").expect_alarm(5)

    play.at(5).wakes().arrives("a", 4).expect()
    play.leaves(1).expect("stop a#1").exits("a#1").expect("load b#2", "prepare a#3")


def test_nobody_goes_before_all_can() -> None:
    """The idle one stays of use as long as a busy one keeps the load from beginning."""
    play = stage(grouped(group("ab", swap=False), group("c"))).seated("a").seated("b", 1)
    play.arrives("c", 2).prepared("c#3").expect("prepare c#3")

    play.arrives("a", 3).expect("grant 3 on a#1").leaves(3).expect()
    play.leaves(1).expect("stop a#1", "stop b#2")


def test_nobody_is_expelled_for_a_process_that_is_not_prepared() -> None:
    """A model with broken files costs nobody a seat."""
    play = stage(grouped(group("ab"))).seated("a").arrives("b", 1).expect("prepare b#2")

    play.exits("b#2").expect("refuse 1: start_failed, retry after 1 s")


def test_a_load_that_is_waited_for_is_not_stopped() -> None:
    """It becomes ready and serves, before it goes."""
    play = stage(grouped(group("ab"))).arrives("a", 1).prepared("a#1").at(9)
    play.arrives("b", 2).at(20).expect("prepare a#1", "load a#1", "prepare b#2")

    play.prepared("b#2").expect().ready("a#1").expect("grant 1 on a#1")
    play.leaves(1).expect("stop a#1")


def test_who_drains_is_spared_when_nobody_expels_it_any_more() -> None:
    """The head gives up, so the drained one serves on."""
    play = stage(grouped(group("ab"))).seated("a", 1).arrives("b", 2).prepared("b#2")
    play.at(5).wakes().arrives("a", 3).expect("prepare b#2")

    play.leaves(2).expect("stop b#2", "grant 3 on a#1")


def test_who_is_expelled_is_not_spared_though_memory_suffices() -> None:
    """That a head lacks no memory is no reason for its rival to stay."""
    models = model("a", 4), model("b", 4)
    play = Play(*models, budget=10, company=grouped(group("ab"))).seated("a", 1)
    play.arrives("b", 2).prepared("b#2").at(5).wakes().expect("prepare b#2")

    play.arrives("a", 3).expect().leaves(1).expect("stop a#1")


# The line


def test_nobody_overtakes_whom_he_would_have_to_make_room_for() -> None:
    """A sibling waits behind the one that waits already, though there is nothing else."""
    play = stage(grouped(group("ab"))).arrives("a", 1).arrives("b", 2).expect("prepare a#1")

    play.prepared("a#1").expect("load a#1", "prepare b#2")
    play.prepared("b#2").expect().ready("a#1").expect("grant 1 on a#1")


def test_who_waits_has_a_say_too() -> None:
    """The third does not pass the second, though the first would bear it beside itself."""
    play = stage(matrix("ac", "b"), "abc").arrives("a", 1).arrives("b", 2).arrives("c", 3)

    play.expect("prepare a#1")


def test_who_is_in_nobodys_way_goes_on() -> None:
    """While one waits for its sibling to leave, a member of a third group loads."""
    company = grouped(group("ab", exclusive=False), group("c", exclusive=False, persistent=True))
    play = stage(company).seated("a", 1).arrives("b", 2).expect("prepare b#2")

    play.arrives("c", 3).prepared("c#3").expect("prepare c#3", "load c#3")


def test_one_that_has_just_been_told_to_load_is_there() -> None:
    """Of two that could load at once the second may expel the first: it waits its patience."""
    company = grouped(group("a", exclusive=False), group("b"))
    play = stage(company).arrives("b", 1).arrives("a", 2).expect("prepare b#1")
    play.asks("a", 3, priority=1).expect("prepare a#2").prepared("b#1").expect("load b#1")

    play.prepared("a#2").expect("load a#2")


def test_who_grows_is_not_expelled_by_who_stands_behind_it() -> None:
    """A seated model that waits for more memory keeps its place in the line."""
    models = model("a", 4), model("b", 2), model("c", 5)
    company = grouped(group("a", exclusive=False), group("b"), group("c", exclusive=False))
    play = Play(*models, budget=10, company=company).seated("c", 1).seated("a")
    play.asks("a", 2, demand=6).arrives("b", 3).expect()

    play.leaves(1).expect("stop c#1").exits("c#1").expect("grant 2 on a#2", "prepare b#3")


def test_a_flood_on_one_group_does_not_starve_the_other() -> None:
    """However many come for the one that is there, the other is served after its patience."""
    play = stage(grouped(group("a"), group("b"))).seated("a", 1).arrives("b", 99)
    play.prepared("b#2").expect("prepare b#2")
    for second in range(1, 5):
        play.at(second).arrives("a", 1 + second).leaves(second).expect(
            f"grant {1 + second} on a#1"
        )

    play.at(5).wakes().arrives("a", 9).expect().leaves(5).expect("stop a#1")
    play.exits("a#1").expect("load b#2", "prepare a#3")


def test_who_needs_no_memory_does_not_overtake_either() -> None:
    """Behind a line that waits for memory, who would be expelled by one in it waits too."""
    models = model("a", 9), model("b", 9), model("c", 9), model("d", 0)
    company = grouped(group("cd", exclusive=False), group("ab", swap=False, exclusive=False))
    play = Play(*models, budget=10, company=company).seated("a", 1)

    play.arrives("b", 2).arrives("c", 3).arrives("d", 4).expect("prepare b#2")


# Memory


def test_memory_counts_beside_the_rules() -> None:
    """Who bears everybody still needs room; and who has room still expels."""
    models = model("a", 6), model("b", 6), model("c", 1)
    company = grouped(group("ab", swap=False), group("c"))
    play = Play(*models, budget=10, company=company).seated("a")
    play.arrives("b", 1).prepared("b#2").expect("prepare b#2", "stop a#1").exits("a#1")
    play.expect("load b#2").ready("b#2").leaves(1).expect("grant 1 on b#2")

    play.arrives("c", 2).prepared("c#3").expect("prepare c#3", "stop b#2")


def test_victims_for_memory_come_after_those_who_go_anyway() -> None:
    """What an expelled one frees counts: nobody else has to go."""
    models = model("a", 4), model("b", 4), model("c", 5)
    company = grouped(group("ac", exclusive=False), group("b", exclusive=False))
    play = Play(*models, budget=9, company=company).seated("b").seated("a")

    play.arrives("c", 1).prepared("c#3").expect("prepare c#3", "stop a#2")


def test_victims_go_together_with_the_expelled() -> None:
    """Where those do not free enough, the best of the others goes too."""
    models = model("a", 2), model("b", 3), model("c", 6), model("d", 4)
    company = grouped(group("ac", exclusive=False), group("bd", exclusive=False, swap=False))
    play = Play(*models, budget=10, company=company).seated("b").seated("a").seated("d")

    play.arrives("c", 1).prepared("c#4").expect("prepare c#4", "stop a#2", "stop b#1")


def test_nobody_is_expelled_while_there_is_no_room_all_the_same() -> None:
    """The idle rival stays as long as a busy one has the memory that is missing."""
    models = model("a", 4), model("b", 5), model("c", 8)
    company = grouped(group("ac", exclusive=False), group("b", exclusive=False))
    play = Play(*models, budget=10, company=company).seated("b", 1).seated("a")

    play.arrives("c", 2).prepared("c#3").expect("prepare c#3")
    play.leaves(1).expect("stop a#2", "stop b#1")


# Pinned, stuck, leaving


def test_a_pinned_one_stays() -> None:
    """It is expelled by nobody, whatever the rules say."""
    models = model("a", 0, pinned=True), model("b", 0)
    play = Play(*models, budget={}, company=grouped(group("ab"))).seated("a")

    play.arrives("b", 1).prepared("b#2").expect("prepare b#2", "load b#2")


def test_a_pinned_one_expels_nobody() -> None:
    """It comes to sit beside whoever is there, and keeps nobody behind it."""
    models = model("a", 0, pinned=True), model("b", 0), model("c", 0)
    play = Play(*models, budget={}, company=grouped(group("abc"))).seated("b", 1)
    play.arrives("a", 2).expect("prepare a#2").arrives("c", 3).expect("prepare c#3")

    play.prepared("a#2").expect("load a#2")


def test_a_stuck_one_is_no_company() -> None:
    """Who has been told to stop and does not go keeps nobody waiting for ever."""
    play = stage(grouped(group("ab"))).seated("a").arrives("b", 1).prepared("b#2")
    play.expect("prepare b#2", "stop a#1")

    play.sticks("a#1").expect("load b#2")


def test_one_waits_for_its_own_former_self() -> None:
    """While a worker of the model is leaving, no other one loads beside it."""
    play = stage(grouped(group("ab", swap=False))).seated("a", 1).unload("a", 9)

    play.arrives("a", 2).prepared("a#2").expect("prepare a#2")
    play.leaves(1).expect("stop a#1").exits("a#1").expect("load a#2")


def test_other_rules_come_with_another_config() -> None:
    """They count for the next load; nobody who is there goes for them."""
    models = model("a", 0), model("b", 0), model("c", 0)
    play = Play(*models, budget={}, company=grouped(group("abc", swap=False)))
    play.seated("a").seated("b").reload(*models, budget={}, company=grouped(group("abc")))

    play.expect().arrives("c", 1).prepared("c#3")
    play.expect("prepare c#3", "stop a#1", "stop b#2")


def test_without_rules_anybody_sits_beside_anybody() -> None:
    """A config that has lost its rules keeps nobody from anything."""
    models = model("a", 0), model("b", 0)
    play = Play(*models, budget={}, company=grouped(group("ab"))).seated("a")
    play.reload(*models, budget={})

    play.arrives("b", 1).prepared("b#2").expect("prepare b#2", "load b#2")


# Sets


def test_the_set_that_costs_least_is_chosen() -> None:
    """Of two sets the one stays whose members are dear to bring back."""
    play = stage(matrix("ac", "bc", "ab", b=5), "abc").seated("a").seated("b")

    play.arrives("c", 1).prepared("c#3").expect("prepare c#3", "stop a#1")


def test_of_equal_costs_the_one_that_was_not_used_for_longest_goes() -> None:
    """Where the costs say nothing, who was used last stays."""
    play = stage(matrix("ac", "bc", "ab"), "abc").seated("a").at(1).seated("b")
    play.at(2).arrives("a", 1).leaves(1).expect("grant 1 on a#1")

    play.at(3).arrives("c", 2).prepared("c#3").expect("prepare c#3", "stop b#2")


def test_of_equal_costs_the_idle_one_goes() -> None:
    """A busy one would keep the load waiting."""
    play = stage(matrix("ac", "bc", "ab"), "abc").seated("a", 1).at(1).seated("b")

    play.arrives("c", 2).prepared("c#3").expect("prepare c#3", "stop b#2")


def test_who_falls_idle_first_is_the_one_to_go() -> None:
    """The choice is made anew as things change, until somebody is asked to go."""
    play = stage(matrix("ac", "bc", "ab"), "abc").seated("a", 1).at(1).seated("b", 2)
    play.arrives("c", 3).prepared("c#3").expect("prepare c#3")

    play.leaves(2).expect("stop b#2")


def test_who_has_begun_to_drain_is_the_one_to_go() -> None:
    """The choice does not go back and forth between two that are busy."""
    play = stage(matrix("ac", "bc", "ab"), "abc").seated("a", 1, 2).at(1).seated("b", 3)
    play.arrives("c", 4).prepared("c#3").at(9).wakes().leaves(1).expect("prepare c#3")

    play.arrives("b", 5).expect("grant 5 on b#2").arrives("a", 6).expect()
    play.leaves(3).leaves(5).expect().leaves(2).expect("stop a#1")


def test_a_set_that_is_free_at_last_spares_who_drains() -> None:
    """When the rival of another set leaves by itself, nobody has to go."""
    models = model("a", 0, concurrency=2), model("b", 0, ttl_s=20), model("c", 0)
    play = Play(*models, budget={}, company=matrix("ac", "bc", "ab", b=5, models="abc"))
    play.seated("a", 1).seated("b").arrives("c", 2).prepared("c#3").at(5).wakes()
    play.arrives("a", 3).expect("prepare c#3")

    play.at(20).wakes().expect("stop b#2", "grant 3 on a#1").exits("b#2").expect("load c#3")


def test_in_no_set_a_model_runs_alone() -> None:
    """Whoever is there goes for it, and it goes for whoever comes."""
    play = stage(matrix("ab"), "abc").seated("a").seated("b")
    play.arrives("c", 1).prepared("c#3").expect("prepare c#3", "stop a#1", "stop b#2")
    play.exits("a#1").exits("b#2").ready("c#3").leaves(1).expect("load c#3", "grant 1 on c#3")

    play.arrives("a", 2).prepared("a#4").expect("prepare a#4", "stop c#3")


def test_who_would_spoil_the_choice_of_those_before_waits() -> None:
    """Each two of three may sit together, and the third in the line is one too many."""
    play = stage(matrix("ab", "bc", "ac"), "abc").arrives("a", 1).arrives("b", 2).arrives("c", 3)

    play.expect("prepare a#1", "prepare b#2").prepared("b#2").expect("load b#2")
    play.prepared("a#1").expect("load a#1", "prepare c#3").prepared("c#3").expect()


def test_who_is_in_every_set_need_not_wait() -> None:
    """A model that fits to both goes on, while one waits for the other to leave."""
    play = stage(matrix("ad", "bd"), "abd").seated("a", 1).arrives("b", 2).expect("prepare b#2")

    play.arrives("d", 3).prepared("d#3").expect("prepare d#3", "load d#3")


def test_who_leaves_anyway_costs_nothing() -> None:
    """The second in the line chooses the set without the one that the first expels."""
    company = matrix("ac", "be", "ce", "cbe", a=9, models="abce")
    play = stage(company, "abce").seated("a", 1).seated("c").arrives("b", 2).arrives("e", 3)

    play.expect("prepare b#3", "prepare e#4").prepared("e#4").expect()


def test_who_has_just_loaded_was_used_then() -> None:
    """A load that nobody waits for any more goes after who was not used for longer."""
    play = stage(matrix("ac", "bc", "ab"), "abc").seated("a").at(9).arrives("b", 1)
    play.prepared("b#2").leaves(1).expect("prepare b#2", "load b#2")

    play.arrives("c", 2).prepared("c#3").expect("prepare c#3", "stop a#1")


def test_of_sets_that_are_alike_the_first_is_chosen() -> None:
    """Where nothing speaks for one of them, the order of the file does."""
    play = stage(matrix("ab", "ac"), "abc").arrives("a", 1).arrives("b", 2).arrives("c", 3)

    play.expect("prepare a#1", "prepare b#2")


# What they are told


def test_who_waits_for_company_is_told_for_whom() -> None:
    """The outlook names who has to leave, and the others in the line only behind it."""
    play = stage(grouped(group("ab"), group("c", exclusive=False, persistent=True)))
    play.seated("a", 1).seated("c").arrives("b", 2).prepared("b#3").expect("prepare b#3")

    outlook = play.outlook(2)
    assert (outlook.waits_for, outlook.others) == (WaitsFor.ROOM, ("a",))


def test_the_forecast_counts_how_long_the_others_go_on() -> None:
    """All have to go before the load begins: the longest stay counts."""
    play = Play(
        *(model("a", 0, service_s=1.0), model("b", 0, service_s=3.0), model("c", 0, load_s=2.0)),
        budget={},
        company=grouped(group("ab", swap=False), group("c")),
    )
    play.seated("a", 1).seated("b", 2).arrives("c", 3).prepared("c#3")

    assert play.outlook(3).eta_s == 3.0 + 2.0


# The choice itself


def test_rules_are_values() -> None:
    """What a group makes of its members can be read off."""
    company = by_groups(names("abcd"), [group("ab"), group("c", exclusive=False)])

    assert company.beside == {
        "a": (frozenset(),),
        "b": (frozenset(),),
        "c": (frozenset("abd"),),
        "d": (frozenset(),),
    }
    assert not company.has_choice


SITTERS = st.lists(
    st.builds(Sitter, st.sampled_from(names("bcdef")), *2 * [st.booleans()], st.floats(0, 3)),
    unique_by=lambda one: one.name,
)
SETS = st.lists(st.sets(st.sampled_from(names("bcdef"))), min_size=1, max_size=5)
COSTS = st.dictionaries(st.sampled_from(names("bcdef")), st.integers(1, 3))


@given(SITTERS, SETS, COSTS)
def test_no_other_set_is_better(
    there: list[Sitter], sets: list[set[ModelName]], costs: dict[ModelName, int]
) -> None:
    """The cheapest is taken; then the fewest, the idle, the longest unused, the first."""
    company = by_sets(names("abcdef"), [frozenset({*one, ModelName("a")}) for one in sets], costs)

    def price(way: frozenset[ModelName]) -> tuple[float, ...]:
        gone = [one for one in there if one.name not in way]
        return (
            sum(costs.get(one.name, 1) for one in gone if not one.goes_anyway),
            len(gone),
            len([one for one in gone if one.is_busy]),
            max((one.last_used for one in gone), default=0.0),
        )

    chosen = choose(company, ModelName("a"), there)
    ways = [frozenset(one) for one in sets]
    assert chosen == next(way for way in ways if price(way) == min(map(price, ways)))

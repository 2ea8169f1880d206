"""The judge, one rule a test: what it commands after which events."""

import time
from math import inf, nan

import pytest

from pyemperor.actors.detector import (
    Answered,
    Ask,
    Cleared,
    Command,
    Continue,
    Convict,
    Credit,
    Due,
    Evidence,
    Extended,
    Heard,
    Judge,
    Lease,
    Look,
    Paused,
    Seen,
    Verdict,
    Wake,
    beat_interval,
    classify,
    explain,
)

LEASE = Lease(30.0, 5.0)
IDLE = Evidence("S", cpu=1.0, run_delay=2.0)


def tick(judge: Judge, start: float, until: float) -> list[Command]:
    """Fire the judge's timer punctually every 0.25 s, its pulse, from ``start`` to ``until``."""
    commands: list[Command] = []
    steps = round((until - start) / 0.25)
    for step in range(1, steps + 1):
        now = start + step * 0.25
        commands += judge.handle(Due(now), now)
    return [command for command in commands if not isinstance(command, Wake)]


def suspect(judge: Judge, evidence: Evidence = IDLE) -> None:
    """Open ``app`` at 0, let it be silent until 30 and show ``evidence`` at the start of its probe."""
    judge.open("app", LEASE, 0.0)
    assert judge.handle(Due(30.0), 30.0) == [Ask("app", 1), Look("app"), Wake(30.25)]
    judge.handle(Seen("app", evidence), 30.0)


@pytest.mark.parametrize(
    ("requested", "tolerance", "interval"),
    [(25, 30, 10), (20, 30, 10), (4, 30, 4), (0, 30, 10), (-1, 30, 10), (10, 30, 10), (4, 7, 7 / 3)],
)
def test_beat_interval_leaves_room_for_two_lost_beats(
    requested: float, tolerance: float, interval: float
) -> None:
    assert beat_interval(requested, tolerance) == interval


@pytest.mark.parametrize(("tolerance", "probe"), [(0, 5), (30, 0), (-1, 5), (inf, 5), (30, nan)])
def test_a_lease_refuses_times_that_mean_nothing(tolerance: float, probe: float) -> None:
    with pytest.raises(ValueError, match="finite and above 0"):
        Lease(tolerance, probe)


class TestSilence:
    def test_the_lease_begins_at_open_and_sets_the_timer(self) -> None:
        assert Judge().open("app", LEASE, 100.0) == [Wake(130.0)]

    def test_a_beat_commands_nothing_and_moves_the_deadline_lazily(self) -> None:
        judge = Judge()
        judge.open("app", LEASE, 0.0)
        assert judge.handle(Heard("app", 20.0), 20.0) == []
        assert judge.handle(Due(30.0), 30.0) == [Wake(50.0)]
        assert judge.handle(Due(50.0), 50.0)[0] == Ask("app", 1)

    def test_a_beat_counts_from_its_send_time(self) -> None:
        judge = Judge()
        judge.open("app", LEASE, 0.0)
        judge.handle(Heard("app", 3.0), 29.0)
        assert judge.handle(Due(30.0), 30.0) == [Wake(33.0)]

    def test_a_beat_from_the_future_counts_as_sent_now(self) -> None:
        judge = Judge()
        judge.open("app", LEASE, 0.0)
        judge.handle(Heard("app", 1e9), 10.0)
        assert judge.handle(Due(30.0), 30.0) == [Wake(40.0)]

    def test_an_older_beat_takes_nothing_back(self) -> None:
        judge = Judge()
        judge.open("app", LEASE, 0.0)
        judge.handle(Heard("app", 20.0), 20.0)
        judge.handle(Heard("app", 10.0), 20.0)
        assert judge.handle(Due(30.0), 30.0) == [Wake(50.0)]

    def test_a_shorter_lease_pulls_the_timer_forward_and_a_longer_one_does_not(self) -> None:
        judge = Judge()
        assert judge.open("slow", LEASE, 0.0) == [Wake(30.0)]
        assert judge.open("slower", Lease(60.0), 0.0) == []
        assert judge.open("fast", Lease(1.5, 0.5), 0.0) == [Wake(1.5)]

    def test_a_timer_that_fires_too_early_is_set_again(self) -> None:
        judge = Judge()
        judge.open("app", LEASE, 0.0)
        assert judge.handle(Due(30.0), 29.999) == [Wake(30.0)]


class TestClosing:
    def test_the_last_one_cancels_the_timer(self) -> None:
        judge = Judge()
        judge.open("a", LEASE, 0.0)
        judge.open("b", LEASE, 0.0)
        assert judge.close("a") == []
        assert judge.close("b") == [Wake(None)]
        assert judge.close("b") == []

    def test_a_closed_peer_is_not_asked(self) -> None:
        judge = Judge()
        judge.open("a", LEASE, 0.0)
        judge.open("b", Lease(60.0), 0.0)
        judge.close("a")
        assert judge.handle(Due(30.0), 30.0) == [Wake(60.0)]

    def test_a_closed_suspect_is_not_judged(self) -> None:
        judge = Judge()
        suspect(judge)
        judge.close("app")
        assert tick(judge, 30.0, 60.0) == []

    @pytest.mark.parametrize("event", [Heard("x", 1.0), Answered("x", 1), Seen("x", IDLE)])
    def test_what_comes_from_nobody_is_ignored(self, event: Heard | Answered | Seen) -> None:
        assert Judge().handle(event, 2.0) == []

    def test_a_successor_inherits_neither_deadline_nor_suspicion(self) -> None:
        judge = Judge()
        suspect(judge)
        judge.open("app", LEASE, 31.0)
        assert judge.handle(Answered("app", 1), 31.1) == []
        assert tick(judge, 31.0, 60.75) == []
        assert judge.handle(Due(61.0), 61.0)[0] == Ask("app", 2)


class TestProbe:
    def test_an_answer_clears_and_counts_as_life(self) -> None:
        judge = Judge()
        suspect(judge)
        assert judge.handle(Answered("app", 1), 31.5) == [Cleared("app", 1, 1.5)]
        assert tick(judge, 31.5, 61.25) == []
        assert judge.handle(Due(61.5), 61.5)[0] == Ask("app", 2)

    def test_an_answer_that_comes_after_a_beat_has_cleared_still_counts_as_life_once(self) -> None:
        judge = Judge()
        suspect(judge)
        judge.handle(Heard("app", 10.0), 31.0)
        assert judge.handle(Answered("app", 1), 32.0) == []
        assert judge.handle(Answered("app", 1), 33.0) == []
        assert tick(judge, 33.0, 61.75) == []
        assert tick(judge, 61.75, 62.0) == [Ask("app", 2), Look("app")]

    def test_a_wrong_nonce_is_ignored(self) -> None:
        judge = Judge()
        suspect(judge)
        assert judge.handle(Answered("app", 7), 31.0) == []
        assert tick(judge, 30.0, 35.0) == [Look("app")]

    def test_a_fresh_beat_clears(self) -> None:
        judge = Judge()
        suspect(judge)
        assert judge.handle(Heard("app", 29.0), 32.0) == [Cleared("app", 1, 2.0)]

    def test_a_stale_beat_does_not_clear(self) -> None:
        judge = Judge()
        suspect(judge)
        assert judge.handle(Heard("app", 2.0), 32.0) == []

    def test_a_delayed_beat_that_clears_keeps_its_own_short_deadline(self) -> None:
        judge = Judge()
        suspect(judge)
        assert judge.handle(Heard("app", 4.0), 32.0) == [Cleared("app", 1, 2.0)]
        assert tick(judge, 32.0, 33.75) == []
        assert tick(judge, 33.75, 34.0) == [Ask("app", 2), Look("app")]

    def test_an_answer_after_the_last_look_still_clears(self) -> None:
        judge = Judge()
        suspect(judge)
        assert tick(judge, 30.0, 35.0) == [Look("app")]
        assert judge.handle(Answered("app", 1), 35.0)[0] == Cleared("app", 1, 5.0)
        assert judge.handle(Seen("app", IDLE), 35.0) == []

    def test_no_answer_convicts_once_with_the_evidence(self) -> None:
        judge = Judge()
        suspect(judge)
        assert tick(judge, 30.0, 35.0) == [Look("app")]
        end = Evidence("S", cpu=1.0, run_delay=2.0, unread=35)
        convict = Convict("app", 35.0, Verdict.BLOCKED, IDLE, end, waited=5.0)
        assert judge.handle(Seen("app", end), 35.0) == [convict]
        assert judge.handle(Seen("app", end), 35.0) == []
        assert tick(judge, 35.0, 100.0) == []

    def test_without_a_first_look_there_is_nothing_to_compare_so_another_window_passes(self) -> None:
        judge = Judge()
        judge.open("app", LEASE, 0.0)
        judge.handle(Due(30.0), 30.0)
        assert tick(judge, 30.0, 35.0) == [Look("app")]
        assert judge.handle(Seen("app", IDLE), 35.0) == [Wake(35.25)]
        assert tick(judge, 35.0, 40.0) == [Look("app")]
        assert isinstance(judge.handle(Seen("app", IDLE), 40.0)[0], Convict)


class TestInnocentReasons:
    def test_starvation_extends_twice_at_most(self) -> None:
        judge = Judge()
        suspect(judge, Evidence("R", 0.0, 0.0))
        for turn, end in enumerate((35.0, 40.0), start=1):
            assert tick(judge, end - 5, end) == [Look("app")]
            starved = judge.handle(Seen("app", Evidence("R", 0.0, 2.5 * turn)), end)
            assert starved[0] == Extended("app", end + 5.0, starved=True, why="starved")
        assert tick(judge, 40.0, 45.0) == [Look("app")]
        convict = judge.handle(Seen("app", Evidence("R", 0.0, 7.5)), 45.0)[0]
        assert isinstance(convict, Convict)
        assert (convict.verdict, convict.extensions, convict.waited) == (Verdict.STARVED, 2, 15.0)

    def test_a_delay_of_less_than_half_the_window_extends_nothing(self) -> None:
        judge = Judge()
        suspect(judge, Evidence("S", 0.0, 0.0))
        tick(judge, 30.0, 35.0)
        assert isinstance(judge.handle(Seen("app", Evidence("S", 0.0, 2.49)), 35.0)[0], Convict)

    def test_the_starved_are_never_convicted_if_so_wished(self) -> None:
        judge = Judge(max_extensions=inf)
        suspect(judge, Evidence("R", 0.0, 0.0))
        for turn in range(1, 50):
            end = 30.0 + 5.0 * turn
            assert tick(judge, end - 5, end) == [Look("app")]
            assert isinstance(judge.handle(Seen("app", Evidence("R", 0.0, 5.0 * turn)), end)[0], Extended)

    def test_a_stopped_one_is_continued_as_soon_as_it_is_asked(self) -> None:
        judge = Judge()
        judge.open("app", LEASE, 0.0)
        judge.handle(Due(30.0), 30.0)
        stopped = Evidence("T", 0.0, 0.0)
        assert judge.handle(Seen("app", stopped), 30.0) == [Continue("app")]
        assert tick(judge, 30.0, 35.0) == [Look("app")]
        convict = judge.handle(Seen("app", stopped), 35.0)[0]
        assert isinstance(convict, Convict)
        assert convict.verdict is Verdict.STOPPED

    def test_one_stopped_while_it_was_asked_is_continued_and_asked_again(self) -> None:
        judge = Judge()
        suspect(judge)
        tick(judge, 30.0, 35.0)
        stopped = Evidence("T", 1.0, 2.0)
        commands = judge.handle(Seen("app", stopped), 35.0)
        assert commands[:3] == [Continue("app"), Ask("app", 1), Look("app")]
        assert judge.handle(Seen("app", IDLE), 35.0) == []
        assert tick(judge, 35.0, 39.75) == []
        assert judge.handle(Answered("app", 1), 39.875) == [Cleared("app", 1, 9.875)]

    @pytest.mark.parametrize("traced", [Evidence("t", 1.0, 2.0, tracer=99), Evidence("R", 5.0, 2.0, 99)])
    def test_a_traced_one_is_never_convicted_and_that_is_said_once(self, traced: Evidence) -> None:
        judge = Judge()
        suspect(judge, traced)
        said: list[Command] = []
        for end in range(35, 335, 5):
            assert tick(judge, end - 5, end) == [Look("app")]
            said += [c for c in judge.handle(Seen("app", traced), end) if not isinstance(c, Wake)]
        assert said == [Extended("app", 40.0, starved=False, why="traced")]

    def test_when_the_debugger_lets_go_a_whole_window_follows(self) -> None:
        judge = Judge()
        suspect(judge, Evidence("t", 1.0, 2.0, tracer=99))
        tick(judge, 30.0, 35.0)
        assert isinstance(judge.handle(Seen("app", IDLE), 35.0)[0], Extended)
        assert tick(judge, 35.0, 40.0) == [Look("app")]
        assert isinstance(judge.handle(Seen("app", IDLE), 40.0)[0], Convict)


class TestOwnLateness:
    def test_a_punctual_timer_gets_no_credit(self) -> None:
        judge = Judge()
        judge.open("app", LEASE, 0.0)
        assert judge.handle(Due(30.0), 30.25)[0] == Ask("app", 1)

    def test_lateness_is_added_to_every_deadline(self) -> None:
        judge = Judge()
        judge.open("a", LEASE, 0.0)
        judge.open("b", Lease(20.0), 0.0)
        assert judge.handle(Due(20.0), 28.0) == [Credit(8.0), Ask("b", 1), Look("b"), Wake(28.25)]
        assert tick(judge, 28.0, 32.75) == []
        assert [type(c) for c in tick(judge, 32.75, 38.0)] == [Look, Ask, Look]  # b's end at 33, a at 38

    def test_lateness_before_a_beat_was_sent_is_no_credit_for_it(self) -> None:
        judge = Judge()
        judge.open("app", LEASE, 0.0)
        judge.handle(Heard("app", 48.0), 50.0)  # drained before the timer, which is 20 s late
        assert judge.handle(Due(30.0), 50.0) == [Credit(20.0), Wake(80.0)]

    def test_a_pause_longer_than_the_tolerance_is_an_amnesty(self) -> None:
        judge = Judge()
        judge.open("app", LEASE, 0.0)
        judge.handle(Heard("app", 5.0), 5.0)
        assert judge.handle(Due(30.0), 300.0) == [Credit(270.0), Wake(330.0)]

    def test_the_amnesty_gives_a_suspect_a_full_tolerance_to_answer(self) -> None:
        judge = Judge()
        suspect(judge)
        assert judge.handle(Due(30.25), 330.25)[0] == Credit(300.0)
        assert tick(judge, 330.25, 360.0) == []
        assert tick(judge, 360.0, 360.25) == [Look("app")]

    def test_a_pause_in_the_middle_of_a_probe_is_seen_although_its_deadline_was_met(self) -> None:
        judge = Judge()
        suspect(judge)
        assert judge.handle(Due(30.25), 34.75)[0] == Credit(4.5)  # from 30.01, say, to 34.75
        assert tick(judge, 34.75, 39.25) == []
        assert tick(judge, 39.25, 39.5) == [Look("app")]

    def test_a_short_probe_makes_the_judge_more_sensitive(self) -> None:
        judge = Judge()
        judge.open("app", Lease(1.5, 0.5), 0.0)
        assert judge.handle(Due(1.5), 1.5)[-1] == Wake(1.5625)
        assert judge.handle(Due(1.5625), 1.6875)[0] == Credit(0.125)

    def test_a_pause_that_the_shell_noticed_is_credited_once(self) -> None:
        judge = Judge()
        judge.open("app", LEASE, 0.0)
        assert judge.handle(Paused(20.0), 40.0) == [Credit(20.0)]
        assert judge.handle(Due(30.0), 40.0) == [Wake(50.0)]
        assert judge.handle(Paused(10.0), 40.125) == []

    def test_a_suspend_that_the_monotonic_clock_did_not_count_gives_a_fresh_start_at_most(self) -> None:
        judge = Judge()
        judge.open("app", LEASE, 0.0)
        assert judge.handle(Paused(3600.0), 29.0) == [Credit(3600.0)]
        assert judge.handle(Due(30.0), 30.0) == [Wake(59.0)]

    def test_a_pause_between_the_last_look_and_its_evidence_is_an_amnesty_too(self) -> None:
        judge = Judge()
        suspect(judge)
        assert tick(judge, 30.0, 35.0) == [Look("app")]
        assert judge.handle(Paused(300.0), 335.0) == [Credit(300.0), Wake(335.25)]
        assert judge.handle(Seen("app", IDLE), 335.0) == []
        assert tick(judge, 335.0, 365.0) == [Look("app")]
        assert isinstance(judge.handle(Seen("app", IDLE), 365.0)[0], Convict)

    def test_nobody_to_judge_no_credit(self) -> None:
        assert Judge().handle(Paused(100.0), 200.0) == []


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (IDLE, Evidence("S", 1.0, 2.0), Verdict.BLOCKED),
        (IDLE, Evidence("D", 1.0, 2.0), Verdict.BLOCKED),
        (Evidence("D", 1.0, 2.0), Evidence("D", 1.0, 2.0), Verdict.UNKILLABLE),
        (IDLE, Evidence("R", 5.9, 2.0), Verdict.SPINNING),
        (IDLE, Evidence("S", 5.9, 2.0), Verdict.SPINNING),
        (IDLE, Evidence("R", 2.75, 4.25), Verdict.SPINNING),  # all the CPU that it could get
        (IDLE, Evidence("R", 1.1, 6.9), Verdict.STARVED),
        (IDLE, Evidence("S", 2.0, 2.0), Verdict.UNRESPONSIVE),
        (IDLE, Evidence("R", 1.0, 2.0), Verdict.UNRESPONSIVE),
        (IDLE, Evidence("T", 1.0, 2.0), Verdict.STOPPED),
        (IDLE, Evidence("Z", 1.0, 2.0), Verdict.DEAD),
        (IDLE, Evidence("", 0.0, 0.0, gone=True), Verdict.DEAD),
    ],
)
def test_verdicts(before: Evidence, after: Evidence, verdict: Verdict) -> None:
    assert classify(before, after, seconds=5.0, probe=5.0) is verdict


class TestExplain:
    def test_one_sentence_with_the_evidence(self) -> None:
        convict = Convict("app", 35.0, Verdict.BLOCKED, IDLE, IDLE, waited=5.0)
        assert explain(convict, 1234) == (
            "vassal app: no heartbeat for 35.0 s and no answer to a probe for 5.0 s; "
            "process 1234 is blocked (state S, 0.00 s CPU, 0.00 s waiting for a CPU)"
        )

    def test_extensions_and_unread_bytes_are_told(self) -> None:
        end = Evidence("R", 1.5, 15.0, unread=35)
        convict = Convict("app/2", 45.0, Verdict.STARVED, IDLE, end, waited=15.0, extensions=2)
        assert explain(convict, 7, "worker") == (
            "worker app/2: no heartbeat for 45.0 s and no answer to a probe for 15.0 s "
            "(extended 2x because it was starved of CPU); process 7 is starved of CPU by the machine "
            "(state R, 0.50 s CPU, 13.00 s waiting for a CPU); 35 bytes from us lie unread in its pipe"
        )

    def test_a_process_that_is_gone_has_no_figures(self) -> None:
        end = Evidence("", 0.0, 0.0, gone=True)
        convict = Convict("app", 35.0, Verdict.DEAD, IDLE, end, waited=5.0)
        assert explain(convict, 7).endswith("; process 7 is dead, though nobody reported its exit")

    @pytest.mark.parametrize("verdict", Verdict)
    def test_every_verdict_reads_as_a_sentence(self, verdict: Verdict) -> None:
        text = explain(Convict("app", 35.0, verdict, IDLE, IDLE, waited=5.0), 7)
        assert "process 7 is " in text or "process 7 runs" in text
        assert str(verdict) in text or verdict is Verdict.UNRESPONSIVE


def test_a_day_of_beats_costs_next_to_nothing() -> None:
    judge = Judge()
    planned = [c.at for c in judge.open("app", LEASE, 0.0) if isinstance(c, Wake) and c.at is not None]
    started = time.process_time()
    for at in range(10, 86_400, 10):
        judge.handle(Heard("app", float(at)), float(at))
        while planned[-1] <= at:
            (wake,) = judge.handle(Due(planned[-1]), float(at))
            assert isinstance(wake, Wake)
            assert wake.at is not None
            planned.append(wake.at)
    assert time.process_time() - started < 0.2
    assert len(planned) <= 86_400 / 20 + 1


def test_a_beat_among_a_thousand_peers_costs_what_it_costs_among_one() -> None:
    judge = Judge()
    for n in range(1000):
        judge.open(f"v{n}", LEASE, 0.0)
    started = time.process_time()
    for at in range(1, 21):
        for n in range(1000):
            judge.handle(Heard(f"v{n}", float(at)), float(at))
    assert time.process_time() - started < 0.5  # a scan of all peers a beat would take minutes

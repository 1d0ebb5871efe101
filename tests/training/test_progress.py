"""What a stage says of itself."""

import re
import time

from sslcollapse.training.progress import Reporter


def test_a_stage_says_what_it_is_how_much_is_done_and_how_long_the_rest_takes():
    lines = []
    with Reporter(True, lines.append).stage("evaluating: random on 1000 splits", 1000) as done:
        for _ in range(3):
            time.sleep(0.02)
            done("random")
    assert lines[0] == "evaluating: random on 1000 splits\n"
    (estimate,) = lines[1:]  # at most one line in ten seconds
    minutes, seconds = re.fullmatch(r"1 of 1000 done \(random\), about (\d+):(\d\d) left\n", estimate).groups()
    assert 60 * int(minutes) + int(seconds) >= 20


def test_a_short_stage_says_no_more_than_what_it_is():
    lines = []
    with Reporter(True, lines.append).stage("evaluating", 2) as done:
        done("a")
        done("b")
    assert lines == ["evaluating\n"]


def test_a_stage_without_parts_and_one_of_another_rank_say_nothing():
    lines = []
    with Reporter(True, lines.append).stage("evaluating", 0):
        pass
    with Reporter(False, lines.append).stage("evaluating", 9) as done:
        done("a")
    assert lines == []

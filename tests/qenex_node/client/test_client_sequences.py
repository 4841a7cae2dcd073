"""Sequence numbers that a client counts: what refused transactions give back, and when the chain is asked again."""

from qenex_node.client.sequences import Sequences
from tests.qenex_node.client.client_support import ANN, BOB


def counting(sequence=5):
    numbers = Sequences()
    numbers.learn(ANN.address, 0, sequence)
    return numbers


def test_each_number_is_taken_once():
    numbers = counting()
    assert [numbers.take(ANN.address, 0) for _ in range(3)] == [5, 6, 7]
    assert not numbers.known(BOB.address, 0)
    assert not numbers.known(ANN.address, 1)


def test_the_last_number_is_given_back_to_be_taken_again():
    numbers = counting()
    numbers.give_back(ANN.address, 0, numbers.take(ANN.address, 0))
    assert numbers.take(ANN.address, 0) == 5


def test_a_number_below_others_that_were_taken_makes_the_lane_be_asked_for_again():
    numbers = counting()
    first, _ = numbers.take(ANN.address, 0), numbers.take(ANN.address, 0)
    numbers.give_back(ANN.address, 0, first)
    assert not numbers.known(ANN.address, 0)


def test_what_the_chain_says_never_takes_back_what_was_taken_here():
    numbers = counting()
    numbers.take(ANN.address, 0)
    numbers.learn(ANN.address, 0, 2)
    assert numbers.take(ANN.address, 0) == 6
    numbers.learn(ANN.address, 0, 9)
    assert numbers.take(ANN.address, 0) == 9

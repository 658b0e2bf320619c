"""A signal asks the loop to stop; it never interrupts a step."""

import os
import signal

import pytest

from int_ra_jax.training.preemption import PreemptionGuard


@pytest.fixture(autouse=True)
def handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_flag_and_the_work_goes_on(number):
    with PreemptionGuard() as guard:
        assert not guard.requested
        os.kill(os.getpid(), number)
        assert guard.requested


def test_a_second_interrupt_stops_at_once_and_restores_the_handlers():
    with pytest.raises(KeyboardInterrupt), PreemptionGuard() as guard:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert guard.requested
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second interrupt was swallowed")


def test_a_guard_can_be_used_again():
    guard = PreemptionGuard()
    with guard:
        pass
    with guard:
        os.kill(os.getpid(), signal.SIGTERM)
    assert guard.requested

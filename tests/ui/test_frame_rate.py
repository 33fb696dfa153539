"""How often the screen is drawn: what an engine under load is left."""

from appliance.ui.frame_rate import FRAME_S, FrameRate


class Machine:
    """A clock, and a processor that a share of each second goes to."""

    def __init__(self, share):
        self.now = self.used = 0.0
        self.share = share

    def pace(self):
        return FrameRate(lambda: self.now, lambda: self.used)

    def run(self, pace, rate, seconds=5.0):
        """Seconds between frames after a while at ``rate`` messages a second."""
        wait, end = FRAME_S, self.now + seconds
        while self.now < end:
            self.now += wait
            self.used += wait * self.share
            wait = pace.next_s(rate)
        return wait


def test_an_idle_appliance_is_drawn_ten_times_a_second():
    machine = Machine(0.05)
    assert machine.run(machine.pace(), 100) == 0.1


def test_a_flood_leaves_the_processor_to_the_engine():
    """At 20,000 messages a second or more there are two pictures a second, at 5,000 five."""
    machine = Machine(0.3)
    pace = machine.pace()
    assert machine.run(pace, 50_000) == 0.5
    assert machine.run(pace, 5_000) == 0.2
    assert machine.run(pace, 0) == 0.1


def test_few_large_messages_are_a_load_too():
    """A hundred megabytes a second are few messages; the processor says that it is busy."""
    machine = Machine(0.95)
    pace = machine.pace()
    assert machine.run(pace, 100) == 0.5
    machine.share = 0.05
    assert machine.run(pace, 100) == 0.1

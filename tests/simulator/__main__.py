"""Replay one seed, with ``links`` behind it one that links, and print what happened."""

import sys

from simulator.links import LinkScenario
from simulator.scenario import Scenario

kind = LinkScenario if "links" in sys.argv[2:] else Scenario
scenario = kind(int(sys.argv[1]))
try:
    scenario.run()
finally:
    print("\n".join(scenario.world.trace))
    print(scenario.weather)
print(f"seed {scenario.seed}: every invariant holds after {scenario.world.steps} steps")

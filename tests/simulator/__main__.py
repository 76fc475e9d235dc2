"""Replay one seed and print what happened."""

import sys

from simulator.scenario import Scenario

scenario = Scenario(int(sys.argv[1]))
try:
    scenario.run()
finally:
    print("\n".join(scenario.world.trace))
    print(scenario.weather)
print(f"seed {scenario.seed}: every invariant holds after {scenario.world.steps} steps")

"""A deterministic simulator of the update path: one process, a fake clock, a seeded scheduler.

The code that runs is the product's: the appender, the leases, the updater's loop, the
archiver and the Lua scripts. What is replaced is what is not deterministic: the server
(`server`), the network and the scheduler (`world`), threads and clocks (`patches`), and the
archive's disk (`disk`). `scenario` makes a run from a seed, `links` one that links anonymous
ids; `invariants` judges it.

``PYTHONPATH=tests python -m simulator SEED`` replays one seed and prints its trace; with
``links`` behind it, one of `links`.
"""

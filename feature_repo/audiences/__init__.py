"""Audiences: who a rule describes, as of any moment.

One language (`rules`, `leaves`), read by `language`; one tree, two back ends that find the same
members: SQL over the archive and the feature snapshots (`compiler`, run on `index`), and an
evaluator over one live profile (`live`). Which rules the second can answer, and why not the
others, is said by `plan`. Nothing here knows of HTTP, of the store, or of campaigns.
"""

"""Behaviour analysis: what the users of an archive do, in aggregates of at least twenty.

`tables` and `cube` lay the archive out, `trends`, `drift`, `retention`, `funnel`, `rfm`, `habits`
and `affinities` answer, `suppression` decides what may be shown.
"""

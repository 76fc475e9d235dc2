"""The service's processes on one machine: store, Ray, Serve and HAProxy, their start and their end.

Belongs here: what starts, watches, stops or starts again a process. Not here: what the processes
do (`services.gateway.application`, `services.update`).
"""

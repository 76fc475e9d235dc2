"""A small client of the HTTP API: what the demo, the bench and the tests talk through.

Belongs here: asking the service and repeating what may be repeated. Not here: anything that
reads the store, or that only the service does.

Examples
--------
>>> client = Client("http://127.0.0.1:8080", "an-api-key", attempts=1)
>>> str(client.http.base_url)
'http://127.0.0.1:8080'
"""

from services.client.calls import LONGEST_WAIT_S, ApiError, Client, TransientApiError

__all__ = ["LONGEST_WAIT_S", "ApiError", "Client", "TransientApiError"]

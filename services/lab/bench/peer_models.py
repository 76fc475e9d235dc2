"""Run by another interpreter: a model for the peers' servers, from pairs of user and item.

``python -P peer_models.py FOLDER REDIS_URL PACKAGES`` in the environment of `peers`, with the
working directory anywhere. Reads FOLDER/events.csv (user, item), trains Cornac's BPR, saves it,
and gives its vectors to libserving: hashes in Redis under libserving's names, and the faiss index
that LibRecommender's ``save_faiss_index`` makes, where the server looks for it (below PACKAGES).
Only the standard library may be imported here at the top.
"""

import csv
import importlib
import json
import sys
from pathlib import Path
from typing import Any, Final

FACTORS: Final = 64
EPOCHS: Final = 20
LISTS, LOOKED_INTO = 80, 10  # LibRecommender's own defaults


def main(folder: Path, url: str, packages: Path) -> None:
    """Train, save, load."""
    with (folder / "events.csv").open(newline="") as file:
        pairs = [(user, item) for user, item in csv.reader(file)]
    cornac: Any = importlib.import_module("cornac")
    rows = list(dict.fromkeys(pairs))
    data = cornac.data.Dataset.from_uir([(user, item, 1.0) for user, item in rows], seed=1)
    model = cornac.models.BPR(k=FACTORS, max_iter=EPOCHS, seed=1)
    model.fit(data)
    model.save(str(folder / "cornac"))
    _libserving(model, data, rows, url, packages)


def _libserving(model: Any, data: Any, rows: list[tuple[str, str]], url: str, to: Path) -> None:
    faiss: Any = importlib.import_module("faiss")
    redis: Any = importlib.import_module("redis")
    np: Any = importlib.import_module("numpy")
    users, items = data.uid_map, data.iid_map
    # The item's bias is one more dimension, in which every user has 1.
    ones = np.ones((len(users), 1), np.float32)
    of_user = np.hstack([model.u_factors[: len(users)], ones]).astype(np.float32)
    of_item = np.hstack([model.i_factors[: len(items)], model.i_biases[: len(items), None]])
    consumed: dict[int, list[int]] = {n: [] for n in users.values()}
    for user, item in rows:
        consumed[users[user]].append(items[item])
    client = redis.Redis.from_url(url)
    client.hset("user2id", mapping=dict(users))
    client.hset("id2item", mapping={n: item for item, n in items.items()})
    client.hset("user_consumed", mapping={n: json.dumps(each) for n, each in consumed.items()})
    client.hset("user_embed", mapping={n: json.dumps(v.tolist()) for n, v in enumerate(of_user)})
    width = of_item.shape[1]
    quantizer = faiss.IndexFlatIP(width)
    index = faiss.IndexIVFFlat(quantizer, width, LISTS, faiss.METRIC_INNER_PRODUCT)
    vectors = np.ascontiguousarray(of_item, np.float32)
    index.train(vectors)
    index.add(vectors)
    index.nprobe = LOOKED_INTO
    faiss.write_index(index, str(to / "libserving" / "faiss_index.bin"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))

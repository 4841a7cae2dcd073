"""A process that commits blocks, with vote records, until it is killed; prints each height once it is durable."""

from __future__ import annotations

import sys
from pathlib import Path

from store_support import Chain

from state import slices
from state.store import VoteBatch

chain = Chain(Path(sys.argv[1]), new=False, durable=True, keep_heights=4)
print("ready", chain.store.head.height, flush=True)
while True:
    height = chain.store.head.height + 1
    executed = chain.execute(*(chain.pay(source, (source + 1) % 8) for source in range(8)))
    chain.store.write_votes(
        VoteBatch(
            puts=((b"voted", height.to_bytes(8, "big")), (b"at %d" % (height % 5), b"x" * height)),
            bodies=(executed.block,),
        )
    )
    print("voted", height, flush=True)
    chain.commit(executed)
    print("committed", height, flush=True)
    slices.run(chain.store.prune())

"""The loop on the toy as a program, for tests that kill it; joins others where its environment names a job.

    python toy_train.py WORKDIR RECORDS [section.option=value ...] [1:section.option=value ...] [1:stall=STEP]

What begins with a number and a colon holds for that process alone. stall: batches end there and nothing goes on.
Nothing is imported at the top: reader processes import their parent's program again.
"""

import sys

if __name__ == "__main__":
    import os
    import time

    import toy

    from ssu_jax.data import pipeline
    from ssu_jax.training import loop, processes

    toy.install()
    me = os.environ.get("JAX_PROCESS_ID", "0")
    mine = [argument.removeprefix(f"{me}:") for argument in sys.argv[3:]]
    options = dict(argument.split("=") for argument in mine if ":" not in argument)
    stall = int(options.pop("stall", 0))

    def stalling(made):
        for number, batch in enumerate(made):
            while number == stall:
                time.sleep(1)
            yield batch

    if stall:
        train_batches = pipeline.train_batches
        pipeline.train_batches = lambda *told: stalling(train_batches(*told))
    typed = {name.replace(".", "__"): int(value) for name, value in options.items()}
    config = toy.config(sys.argv[2], **typed)
    processes.join(config.train.peer_timeout_seconds)
    loop.train(config, sys.argv[1])

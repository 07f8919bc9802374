"""The loop on the toy as a program, for tests that kill it.

    python toy_train.py WORKDIR RECORDS [section.option=value ...]

Nothing is imported at the top: reader processes import their parent's program again.
"""

import sys

if __name__ == "__main__":
    import toy

    from ssu_jax.training import loop

    toy.install()
    changed = dict(argument.split("=") for argument in sys.argv[3:])
    typed = {name.replace(".", "__"): int(value) for name, value in changed.items()}
    loop.train(toy.config(sys.argv[2], **typed), sys.argv[1])

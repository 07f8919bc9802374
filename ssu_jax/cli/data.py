"""`ssu data`: looks after records."""

import sys

HELP = "check records"
EPILOG = "ssu data verify data"


def add_arguments(parser) -> None:
    """`verify DIR`."""
    jobs = parser.add_subparsers(dest="job", required=True, metavar="JOB")
    verify = jobs.add_parser(
        "verify",
        help="compare every checksum and count, decode every record; exit code 1 if anything is wrong",
        description="Checks every split of a directory and prints one line for each fault.",
        epilog="example:\n  ssu data verify data",
    )
    verify.add_argument("directory", metavar="DIR", help="directory of TFRecord shards and manifests")


def run(args) -> int:
    """Prints one line for each fault; 0 if there is none."""
    from ssu_jax.data import records

    faults = records.verify(args.directory, progress=lambda split: print(f"checking {split} ...", file=sys.stderr))
    for fault in faults:
        print(fault)
    print(f"{len(faults)} faults" if faults else "no faults", file=sys.stderr)
    return 1 if faults else 0

"""`ssu data`: looks after records, and at them."""

import sys

HELP = "check records, count what they hold, look at clips, copy them into another format"
EPILOG = """ssu data verify data
  ssu data stats data --plots plots
  ssu data show data --index 0 --out look
  ssu data convert data --to array_record --out data_ar"""


def add_arguments(parser) -> None:
    """`verify DIR`, `stats DIR`, `show DIR`, `convert DIR`."""
    from ssu_jax.data.shards import FILE_FORMATS

    jobs = parser.add_subparsers(dest="job", required=True, metavar="JOB")
    verify = jobs.add_parser(
        "verify",
        help="compare every checksum and count, decode every record; exit code 1 if anything is wrong",
        description="Checks every split of a directory and prints one line for each fault.",
        epilog="example:\n  ssu data verify data",
    )
    stats = jobs.add_parser(
        "stats",
        help="what the splits hold: classes, sources at once, mask areas, sentences, words; a table and plots",
        description="Reads every label of a directory once and prints a table a split. Only valid seconds count, and "
        "of these the ones whose masks, sentences or sources are known.",
        epilog="example:\n  ssu data stats data --split train --json stats.json --plots plots",
    )
    stats.add_argument("--split", metavar="S", help="this split alone (default: all)")
    stats.add_argument("--json", metavar="FILE", help="the same figures as JSON, every class and histogram whole")
    stats.add_argument("--plots", metavar="DIR", help="folder for one picture a split, SPLIT.png")
    show = jobs.add_parser(
        "show",
        help="a contact sheet and a video with sound of single clips",
        description="Writes SPLIT-NUMBER.png (every second with its masks, sources, level and sentence) and "
        "SPLIT-NUMBER.mp4 (with sound) for every clip that is named.",
        epilog="example:\n  ssu data show data --split val --index 0 7 --out look",
    )
    show.add_argument("--split", metavar="S", default="train", help="the split (default: %(default)s)")
    show.add_argument("--index", metavar="I", type=int, nargs="+", default=[], help="number of a record, from 0")
    show.add_argument("--id", metavar="ID", nargs="+", default=[], help="id of a clip")
    show.add_argument("--out", metavar="FOLDER", required=True, help="folder for the pictures and videos")
    convert = jobs.add_parser(
        "convert",
        help="copy the splits into the other file format, or another number of files",
        description="Copies every record as it is, its checksums compared on the way. An ArrayRecord folder is also "
        "described for TensorFlow Datasets, where it is installed: tfds.builder_from_directory(DIR).as_data_source().",
        epilog="example:\n  ssu data convert data --to array_record --out data_ar",
    )
    convert.add_argument("--to", choices=FILE_FORMATS, required=True, help="file format of the copy")
    convert.add_argument("--out", metavar="DIR", required=True, help="folder, or URL (gs://...), of the copy")
    convert.add_argument("--split", metavar="S", nargs="+", default=[], help="these splits alone (default: all)")
    convert.add_argument("--num-shards", type=int, metavar="K", help="files a split (default: as many as there are)")
    convert.add_argument("--overwrite", action="store_true", help="replace a split if it is already there")
    for job, work in ((verify, _verify), (stats, _stats), (show, _show), (convert, _convert)):
        job.add_argument("directory", metavar="DIR", help="directory of record shards and manifests")
        job.set_defaults(work=work)


def run(args) -> int:
    """Prints what was found; 0 unless `verify` found a fault."""
    return args.work(args)


def _verify(args) -> int:
    from ssu_jax.data import records

    faults = records.verify(args.directory, progress=lambda split: print(f"checking {split} ...", file=sys.stderr))
    for fault in faults:
        print(fault)
    print(f"{len(faults)} faults" if faults else "no faults", file=sys.stderr)
    return 1 if faults else 0


def _convert(args) -> int:
    from ssu_jax.preparation import converting

    made = converting.convert(
        args.directory, args.out, args.to, splits=args.split, num_shards=args.num_shards, overwrite=args.overwrite
    )
    for manifest in made:
        counts = f"{manifest['num_records']} clips in {len(manifest['shards'])} shards"
        print(f"{args.out}: {manifest['split']!r}, {counts}, digest {manifest['digest'][:12]}", file=sys.stderr)
    return 0


def _stats(args) -> int:
    from ssu_jax.preparation import statistics

    for line in statistics.report(args.directory, args.split, json_path=args.json, plots=args.plots):
        print(line)
    return 0


def _show(args) -> int:
    from ssu_jax.data.records import RecordSource
    from ssu_jax.preparation import reading, show
    from ssu_jax.types import UserError

    if not args.index and not args.id:
        raise UserError("which clip? name one with --index I (from 0) or --id ID")
    source = RecordSource(args.directory, args.split)
    for path in show.show(source, reading.numbers_of(source, args.index, args.id), args.out):
        print(path)
    return 0

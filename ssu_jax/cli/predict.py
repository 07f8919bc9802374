"""`ssu predict`: videos -> masks, sentences, annotated videos."""

from ssu_jax.cli import choice

HELP = "describe videos: a mask of what sounds and a sentence for every second, and an annotated video"
EPILOG = """ssu predict my.mp4 --out predictions
  ssu predict my.mp4 --model ssuformer --text "bell, red dog" --out predictions
  ssu predict my.mp4 --model tvsl --text "flute, drum" --out predictions"""


def add_arguments(parser) -> None:
    """Videos, checkpoint, where results go and which."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="video files of any common kind and length")
    parser.add_argument(
        "--text",
        metavar="WORDS",
        help="only what these words name, with commas between. ssuformer: masks and sentences of them ('bell, red "
        "dog'); tvsl: a heat map of each ('flute, drum'), without it of the words that it finds",
    )
    choice.add_arguments(parser, "late_fusion where its weights are at hand, else the shipped model")
    parser.add_argument(
        "--out", default="predictions", metavar="DIR", help="results go to DIR/<video name>/ (default: %(default)s)"
    )
    parser.add_argument(
        "--only",
        metavar="KINDS",
        help="which results, with commas: json, vtt, masks, overlay, of tvsl heat too (default: all)",
    )


def run(args) -> int:
    """Describes every video; 0 when all are done."""
    from ssu_jax.inference import describing
    from ssu_jax.types import UserError

    if args.text is not None and (args.model == "late_fusion" or args.weights_dir):
        raise UserError(
            "--text goes with SSUFormer and T-VSL; late fusion has no space that words and regions share: leave one "
            "of them out"
        )
    describing.describe_videos(
        args.videos,
        args.out,
        only=args.only,
        model=args.model,
        checkpoint=args.checkpoint,
        published=choice.published(args),
        text=args.text,
    )
    return 0

"""The paper's tables beside ours: figures as printed there, ours where they belong and nowhere else."""

import re

import pytest

from ssu_jax.config import labels
from ssu_jax.metrics import published

SCORES = {"miou": 0.1111, "f_score": 0.2222, "bleu_4": 0.3333, "rouge_l": 0.4444, "meteor": 0.5555}
FACTS = {"split": "test", "num_clips": 7, "protocol": "ssu", "records_digest": "abcdef0123456789", "step": 30}
FIVE = "0.1111 0.2222 0.3333 0.4444 0.5555"


def metrics(row, dataset, **changed):
    return {**SCORES, **FACTS, "model": f"m-{row}", "row": row, "dataset": dataset, **changed}


def blocks(text: str) -> dict[str, list[str]]:
    """Title -> lines, blanks squeezed."""
    parts = [part.splitlines() for part in text.split("\n\n")]
    return {part[0]: [re.sub(r" +", " ", line).strip() for line in part[1:]] for part in parts}


# By hand from the images named in the titles.
@pytest.mark.parametrize(
    ("title", "line"),
    [
        ("f-Music (comparisons_on_music.png)", "SSU 0.6280 0.7792 0.4049 0.4882 0.4002"),
        ("f-Music (comparisons_on_music.png)", "AVSBench [68], IJCV'25 0.5663 0.7191 - - -"),
        ("f-Music (comparisons_on_music.png)", "SSU-D (sentences only) - - 0.3558 0.4497 0.3380"),
        ("f-Lifescene (comparisons_on_life.png)", "SSU 0.6530 0.7368 0.5290 0.5388 0.5050"),
        ("f-Lifescene (comparisons_on_life.png)", "SSU-S (masks only) 0.6320 0.7256 - - -"),
        ("f-Lifescene (comparisons_on_life.png)", "PG-Video-LLaVA [70] 0.5134 0.5676 0.1900 0.2164 0.2374"),
        ("ablation on f-Lifescene, one part after another (ablation.png)",
         "Baseline 0.4892 0.6510 0.1331 0.1285 0.1052"),
        ("ablation on f-Lifescene, one part after another (ablation.png)",
         "+ Focal 0.5150 0.6862 0.3201 0.2878 0.4531"),
        ("ablation on f-Lifescene, one part after another (ablation.png)", "+ MCM 0.6132 0.6947 0.4429 0.4590 0.4274"),
        ("ablation on f-Lifescene, one part after another (ablation.png)", "+ RCC 0.6141 0.7087 0.4621 0.4728 0.4452"),
        ("sentences, average of the two sets (comparisons_on_discription_task.png)",
         "SSUFormer - - 0.4676 0.5168 0.4479"),
    ],
)  # fmt: skip
def test_published_figures_stand_as_printed(title, line):
    assert line in blocks(published.render("ssuformer"))[title]


def test_columns_and_rows_are_complete():
    found = blocks(published.render("ssuformer"))
    assert all(lines[0] == "mIoU F-score BLEU ROUGE-L METEOR" for title, lines in found.items() if ".png" in title)
    assert [len(lines) for title, lines in found.items() if ".png" in title] == [10, 10, 7, 6]  # header, rows, "none"


def test_ours_stand_under_the_row_with_the_same_switches():
    ours = [metrics("mohe", "f-Lifescene"), metrics("mcm", "f_lifescene"), metrics("ssu_s", "F-LIFESCENE")]
    found = blocks(published.render("ssuformer", ours))
    ablation = found["ablation on f-Lifescene, one part after another (ablation.png)"]
    assert ablation[3:6] == ["+ MCM 0.6132 0.6947 0.4429 0.4590 0.4274",
                             f"ours: mcm (m-mcm, step 30, 7 clips of test) {FIVE}",
                             "+ RCC 0.6141 0.7087 0.4621 0.4728 0.4452"]  # fmt: skip
    assert ablation[-1].startswith("ours: mohe (m-mohe")
    lifescene = found["f-Lifescene (comparisons_on_life.png)"]
    assert lifescene[lifescene.index("SSU-S (masks only) 0.6320 0.7256 - - -") + 1].startswith("ours: ssu_s")
    assert lifescene[-1] == "ours: mcm (m-mcm, step 30, 7 clips of test) " + FIVE  # no row of its own there: at the end
    assert found["f-Music (comparisons_on_music.png)"][-1] == "ours: none given - - - - -"


def test_the_built_in_world_and_unknown_records_never_pass_for_the_paper_s_sets():
    ours = [metrics("mohe", "synthetic"), metrics("baseline", "synthetic"), metrics("mohe", "my clips"),
            metrics("", ""), {**SCORES, **FACTS}]  # fmt: skip
    found = blocks(published.render("ssuformer", ours))
    for title, lines in found.items():
        if ".png" in title:
            assert not any("ours: mohe" in line or "ours: baseline" in line for line in lines), title
    world = next(lines for title, lines in found.items() if title.startswith("the built-in world"))
    assert [line.split()[1] for line in world[1:]] == ["baseline", "mohe"]  # in the order of the ablation
    assert "my clips: not known to be the paper's data, no published figures" in found
    unknown = found["records abcdef012345: not known to be the paper's data, no published figures"]
    assert len(unknown) == 3
    assert "ours: no row of the tables (a model, step 30, 7 clips of test)" in unknown[2]


def test_the_average_of_ours_needs_both_sets():
    music = metrics("mohe", "f-Music", bleu_4=0.2, rouge_l=0.3, meteor=0.5)
    life = metrics("mohe", "f-Lifescene", bleu_4=0.4, rouge_l=0.5, meteor=None)
    title = "sentences, average of the two sets (comparisons_on_discription_task.png)"
    assert blocks(published.render("ssuformer", [music, life]))[title][-1] == "ours: mohe - - 0.3000 0.4000 -"
    assert not any("ours" in line for line in blocks(published.render("ssuformer", [music]))[title])


def test_another_protocol_and_missing_scores_are_marked():
    one = metrics("ssu_s", "f-Music", protocol="avsbench", bleu_4=None, rouge_l=None, meteor=None)
    lines = blocks(published.render("ssuformer", [one]))["f-Music (comparisons_on_music.png)"]
    wanted = "ours: ssu_s (m-ssu_s, step 30, 7 clips of test, AVSBench protocol) 0.1111 0.2222 - - -"
    assert wanted in lines


def test_notes_tell_what_the_figures_leave_open():
    text = " ".join(published.render("ssuformer").split())
    for words in ("ours is BLEU-4", "splits are not public", "gain of MoHE is not shown", "AVIS's mIoU 0.5968"):
        assert words in text


def test_localization_prints_published_figures_and_none_of_ours():
    lines = [re.sub(r" +", " ", line) for line in published.render("tvsl").splitlines()]
    assert "MUSIC, duets CIoU@0.3 43.2 38.3 -" in lines
    assert "VGGSound, one source IoU@0.5 53.7 50.8 -" in lines
    assert "VGG-Instruments, duets CIoU@0.1 - 84.9 -" in lines
    assert any(line.startswith("- Ours, of --metrics, in percent") for line in lines)


@pytest.mark.parametrize(
    ("names", "classes", "wanted"),
    [
        ({"synthetic"}, labels.F_MUSIC_CLASSES, "synthetic"),
        ({"f-Music", ""}, (), "f-Music"),
        ({"b", "a"}, (), "a+b"),
        ({""}, [name.title() for name in labels.F_MUSIC_CLASSES], "f_music"),
        ((), reversed(labels.F_LIFESCENE_CLASSES), "f_lifescene"),
        ({""}, labels.F_MUSIC_CLASSES[:-1], ""),
        ({""}, labels.SYNTHETIC_CLASSES, ""),
    ],
)
def test_records_say_themselves_what_they_are_else_their_classes_do(names, classes, wanted):
    assert published.dataset_name(names, tuple(classes)) == wanted


def test_ours_of_t_vsl_stand_in_the_row_of_their_set_and_number_of_sources_and_others_below():
    facts = {"family": "tvsl", "model": "tvsl", "mode": "corrected", "step": 7, "num_clips": 5, "ciou@0.3": 0.4321,
             "ciou@0.5": 0.2, "ciou@0.1": 0.9}  # fmt: skip
    duets = facts | {"dataset": "music", "sources_each": 2}
    solos = facts | {"dataset": "vgg_ss", "sources_each": 1}
    world = facts | {"dataset": "synthetic", "sources_each": 3, "only_classes": "bell,dog,horn"}
    text = published.render("tvsl", [duets, world, solos, {"family": "ssuformer"}])
    lines = [re.sub(r" +", " ", line) for line in text.splitlines()]
    assert "MUSIC, duets CIoU@0.3 43.2 38.3 43.2 (tvsl, corrected, step 7, 5 mixtures)" in lines
    assert "VGGSound, one source IoU@0.5 53.7 50.8 20.0 (tvsl, corrected, step 7, 5 mixtures)" in lines
    assert "MUSIC, one source IoU@0.5 - 66.4 -" in lines
    below = "built-in world, 3 sources CIoU@0.3 - - 43.2 (tvsl, corrected, step 7, 5 mixtures, of bell,dog,horn)"
    assert below in lines

"""Whatever is wrong with a data set is told with its file, and its line, entry or second; nothing is read past it."""

import json
import os
import re
import struct
import zlib

import av
import numpy as np
import pytest
from PIL import Image

from ssu_jax.data.datasets import LAYOUTS, example_files
from ssu_jax.types import UserError


def refused(call, *words):
    """Calls, expects one line that holds all the words."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def items_of(name, folder):
    layout = LAYOUTS[name](folder)
    return layout, layout.items()


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def file_of(item, suffix):
    return next(path for path in item.files if path.suffix == suffix)


def claim_size(path, columns, rows):
    """Writes a PNG whose header claims a size, and which holds next to nothing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, body, b"IEND")
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_missing_file_is_named_before_and_while_reading(name, broken):
    layout, items = items_of(name, broken(name))
    gone = items[0].files[0]
    gone.unlink()
    assert layout.faults(items[0])[0].startswith(f"{gone}: no such file")
    refused(lambda: layout.load(items[0]), f"{gone}: no such file")
    if name != "raw":  # a list still names it
        listed = next(item for item in LAYOUTS[name](layout.source).items() if item.id == items[0].id)
        assert "no such file" in layout.faults(listed)[0]


@pytest.mark.parametrize("name", ["f_music", "music", "raw"])
def test_a_truncated_video_is_named(name, broken):
    layout, items = items_of(name, broken(name))
    item = next(item for item in items if item.files[0].suffix == ".mp4")
    path = item.files[0]
    path.write_bytes(path.read_bytes()[:-3000])
    assert layout.faults(item)[0].startswith(f"{path}: truncated")
    refused(lambda: layout.load(item), path, "truncated")
    path.write_text("no video at all")
    assert layout.faults(item) == [
        f"{path}: is text, not a video (playlists are not followed): give the video file itself"
    ]
    assert [item.id for item in LAYOUTS[name](layout.source).items() if item.files[0] == path]  # and is not left out


def test_a_video_that_lost_its_sound_is_no_silence(broken):
    layout, items = items_of("vggsound", broken("vggsound"))
    path = items[0].files[0]
    with av.open(str(path)) as before, av.open(str(path.with_suffix(".new.mp4")), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(before.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                after.mux(packet)
    os.replace(path.with_suffix(".new.mp4"), path)
    assert layout.faults(items[0])[0].startswith(f"{path}: holds no sound")
    refused(lambda: layout.load(items[0]), f"{path}: holds no sound")


def test_a_matroska_file_that_was_cut_is_found_when_its_end_is_read(broken):
    layout, items = items_of("raw", broken("raw"))
    item = next(item for item in items if item.files[0].suffix == ".mkv")
    content = item.files[0].read_bytes()
    item.files[0].write_bytes(content[: len(content) // 2])
    refused(lambda: layout.load(item), item.files[0], "truncated")


def test_pictures_that_are_cut_or_absurd_are_refused(broken):
    layout, items = items_of("avsbench_s4", broken("avsbench_s4"))
    cut, frame, mask = items[1].files[1], items[0].files[0], items[2].files[5]
    cut.write_bytes(cut.read_bytes()[:-200])
    refused(lambda: layout.load(items[1]), cut, "no whole PNG or JPEG")
    claim_size(mask, 96, 96)  # of the right size, and nothing in it
    refused(lambda: layout.load(items[2]), mask, "no whole PNG or JPEG")
    for columns, rows in ((60000, 50000), (5000, 5000)):  # beyond Pillow's own limit, and below it
        claim_size(frame, columns, rows)
        claim_size(mask, columns, rows)
        for item, path in ((items[0], frame), (items[2], mask)):
            (fault,) = layout.faults(item)
            assert fault.startswith(f"{path}: claims ")
            assert "pixels" in fault
            refused(lambda item=item: layout.load(item), path, "pixels")


@pytest.mark.parametrize("name", ["f_music", "avsbench_s4", "avsbench_ms3", "avss"])
def test_a_mask_of_another_size_than_its_frame_is_refused(name, broken):
    layout, items = items_of(name, broken(name))
    item = items[1]
    mask = [path for path in item.files if path.suffix == ".png"][-1]
    Image.open(mask).resize((95, 96), Image.Resampling.NEAREST).save(mask)
    refused(lambda: layout.load(item), mask, "has 95 x 96 pixels, its frame has 96 x 96")


def test_frames_of_two_sizes_and_a_colour_of_no_class_are_refused(broken):
    layout, items = items_of("avss", broken("avss"))
    frame, label = items[1].files[2], items[2].files[10]
    Image.open(frame).resize((90, 90)).save(frame)
    refused(lambda: layout.load(items[1]), frame, "has 90 x 90 pixels, the first frame has 96 x 96")
    picture = np.array(Image.open(label))
    picture[3, 4] = (1, 2, 3)
    Image.fromarray(picture).save(label)
    refused(lambda: layout.load(items[2]), label, "#010203 stands for none")


def test_sound_files_with_nan_or_no_sound_are_refused(broken):
    layout, items = items_of("avsbench_s4", broken("avsbench_s4"))
    path, rate = items[0].files[-1], 16000
    sound = np.zeros(5 * rate, np.float32)
    for value in (np.nan, np.inf):
        sound[3 * rate + 5] = value
        example_files.write_wav(path, sound, rate)
        assert layout.faults(items[0]) == []
        with pytest.raises(
            UserError, match=rf"^{re.escape(str(path))}: its sound holds NaN or infinity at [23]\.\d\d s"
        ):
            layout.load(items[0])
    sound[3 * rate + 5] = 0.5
    example_files.write_wav(path, sound, rate)
    assert layout.load(items[0]).sound[3 * rate + 5] in (16383, 16384)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert layout.faults(items[0])[0].startswith(f"{path}: truncated")
    refused(lambda: layout.load(items[0]), f"{path}: truncated")
    path.write_bytes(content[:30])
    assert layout.faults(items[0])[0].startswith(f"{path}: not a sound that can be read")
    refused(lambda: layout.load(items[0]), f"{path}: not a sound that can be read")


def test_a_short_sound_is_padded_and_a_stereo_one_at_another_rate_mixed(broken):
    layout, items = items_of("avsbench_ms3", broken("avsbench_ms3"))
    example_files.write_wav(items[0].files[-1], np.full(2 * 44100, 8192, np.int16), 44100)
    sound = layout.load(items[0]).sound
    assert len(sound) == 5 * 16000
    assert abs(int(sound[16000]) - 8192) < 4
    assert not sound[2 * 16000 :].any()


@pytest.mark.parametrize("name", ["f_music", "avsbench_s4", "avss", "vggsound", "vgg_ss"])
def test_an_id_that_is_there_twice_is_refused(name, broken):
    folder = broken(name)
    if name == "vgg_ss":
        entries = json.loads((folder / "vggss.json").read_text())
        example_files.write_json(folder / "vggss.json", [*entries, entries[2]])
    else:
        (table,) = folder.rglob({"f_music": "clips.csv", "vggsound": "vggsound.csv"}.get(name, "*meta*data.csv"))
        table.write_text(table.read_text() + table.read_text().splitlines()[-1])
    refused(LAYOUTS[name](folder).items, "is there twice")


@pytest.mark.parametrize(
    ("name", "table", "old", "new", "words"),
    [
        ("f_music", "clips.csv", "id,video,", "id,file,", ["clips.csv", "lacks the column 'video'"]),
        ("f_music", "clips.csv", ",train,", ",dev,", ["clips.csv, line 2", "unknown split 'dev'"]),
        ("f_music", "clips.csv", "pipa", "kazoo", ["clips.csv, line 3", "unknown class 'kazoo'"]),
        ("f_music", "clips.csv", "mp4,,", "mp4,-1,", ["clips.csv, line 2", "start must be a number from 0 up", "-1"]),
        ("f_music", "clips.csv", "mp4,,", "mp4,5,5", ["clips.csv, line 2", "end must lie 1 to 10 s after start"]),
        ("f_music", "clips.csv", "mp4,,", "mp4,nan,", ["line 2", "start must be a number"]),
        ("f_lifescene", "clips.csv", "id,", "id,x,", ["line 2", "6 cells in a table of 7 columns"]),
        ("f_music", "clips.csv", "videos/", "../", ["refused the name"]),
        ("f_music", "clips.csv", "videos/", "/etc/", ["refused the name"]),
        ("f_music", "clips.csv", "00000000_0_10,", "../00000000,", ["not in clips.csv"]),
        ("f_music", "clips.csv", ",train", ",train,more", ["line 2", "7 cells in a table of 6 columns"]),
        ("f_music", "sentences.csv", "00000000_0_10,0", "00000009_0,0", ["sentences.csv, line 2", "not in clips.csv"]),
        ("f_music", "sentences.csv", "00000000_0_10,1", "00000000_0_10,0", ["sentences.csv, line 3", "there twice"]),
        ("f_music", "sentences.csv", "00000000_0_10,1", "00000000_0_10,1.5", ["line 3", "whole number"]),
        ("f_music", "sources.csv", "ukulele,1,", "ukulele,yes,", ["sources.csv, line 2", "unknown flag 'yes'"]),
        ("f_music", "sources.csv", ",1,0", ",1,x", ["sources.csv, line 2", "sounding must be a 0, 1 or ?"]),
        ("avsbench_s4", "Single-source/s4_meta_data.csv", "category", "kind", ["lacks the column 'category'"]),
        ("avsbench_s4", "Single-source/s4_meta_data.csv", "dog_barking", "dog", ["line 3", "unknown class 'dog'"]),
        ("avsbench_s4", "Single-source/s4_meta_data.csv", "example-001", "../../x", ["refused the name"]),
        ("avsbench_ms3", "Multi-sources/ms3_meta_data.csv", "example-001_0", "example-000_0", ["there twice"]),
        ("avsbench_ms3", "Multi-sources/ms3_meta_data.csv", ",val", ",valid", ["line 3", "unknown split 'valid'"]),
        ("avss", "metadata.csv", "v1m", "v3", ["metadata.csv, line 3", "unknown label 'v3'"]),
        ("avss", "metadata.csv", "uid", "id", ["lacks the column 'uid'"]),
        ("avss", "label2idx.json", '"axe"', '"hatchet"', ["label2idx.json", "other classes"]),
        ("vggsound", "vggsound.csv", ",0,", ",-5,", ["vggsound.csv, line 1", "start must be a number from 0 up"]),
        ("vggsound", "vggsound.csv", "test", "tset", ["vggsound.csv, line 2", "unknown split"]),
        ("vgg_ss", "vggss.json", '"bbox": [', '"bbox": [["a"], ', ["vggss.json, entry 0", "a box must be 4 numbers"]),
        ("vgg_ss", "vggss.json", '"bbox": [', '"bbox": [[0, 0, 1, NaN], ', ["vggss.json, entry 0", "4 numbers"]),
        ("vgg_ss", "vggss.json", '"class"', '"label"', ["entry 0", "wanted file, class and bbox"]),
        ("vgg_ss", "vggss.json", "example0000_000000", "../x_000000", ["refused the name"]),
        ("music", "MUSIC_solo_videos.json", "example0001", "../../x", ["refused the name"]),
        ("music", "MUSIC_solo_videos.json", '"videos"', '"ids"', ["MUSIC_solo_videos.json", "below 'videos'"]),
        ("music", "music_solo.json", '"cello"', '"kazoo"', ["music_solo.json, entry 0", "unknown class 'kazoo'"]),
        ("music_avqa", "avqa-val.json", '"anser"', '"answer"', ["avqa-val.json, entry 0", "anser"]),
        ("music_avqa", "avqa-val.json", "[", "{", ["avqa-val.json", "is no JSON"]),
    ],
)  # fmt: skip
def test_lists_are_checked_line_by_line(name, table, old, new, words, broken):
    folder = broken(name)
    edit(folder / table, old, new)
    refused(lambda: LAYOUTS[name](folder).items(), *words)


def test_a_class_that_avss_does_not_have_spoils_its_clip_alone(broken):
    folder = broken("avss")
    edit(folder / "metadata.csv", "bird", "unicorn")
    layout, items = items_of("avss", folder)
    faults = [layout.faults(item) for item in items]
    assert [bool(fault) for fault in faults].count(True) == 1
    number = next(number for number, fault in enumerate(faults) if fault)
    assert f"line {number + 2}: unknown class 'unicorn'" in faults[number][0]
    refused(lambda: layout.load(items[number]), "unknown class 'unicorn'", items[number].id)


def test_a_sentence_that_is_not_utf8_is_told_with_its_line(broken):
    folder = broken("f_lifescene")
    path = folder / "sentences.csv"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"\n", "un café.\n".encode("latin-1"))
    path.write_bytes(b"".join(lines))
    refused(LAYOUTS["f_lifescene"](folder).items, f"{path}, line 4: is not UTF-8")
    path.write_bytes(b"\xef\xbb\xbfid,second,sentence\n" + "00000000_0_10,0,Un café sonne.\n".encode())
    layout, items = items_of("f_lifescene", folder)
    assert layout.load(items[0]).captions[0] == "Un café sonne."


def test_a_link_out_of_the_folder_is_refused(broken, tmp_path):
    for name in ("f_music", "avsbench_s4", "raw", "vggsound"):
        layout, items = items_of(name, broken(name))
        item = next(item for item in items if item.files[0].suffix in (".mp4", ".png"))
        elsewhere = tmp_path / f"{name}-elsewhere{item.files[0].suffix}"
        os.rename(item.files[0], elsewhere)
        os.symlink(elsewhere, item.files[0])
        assert "leads out of" in layout.faults(item)[0]
        refused(lambda layout=layout, item=item: layout.load(item), item.files[0], "leads out of")
    (tmp_path / "raw" / "list.txt").write_text("../raw-elsewhere.mp4\n")
    refused(LAYOUTS["raw"](tmp_path / "raw" / "list.txt").items, "refused the name")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entry: entry["segmentation"].update(size=[96, 95]), ["size [96, 95], its frame has [96, 96]"]),
        (lambda entry: entry["segmentation"].update(counts="zz~"), ["run lengths"]),
        (lambda entry: entry["segmentation"].update(counts="0"), ["run lengths do not make masks of 96 x 96"]),
        (lambda entry: entry["segmentation"].update(counts=[9000, 217]), ["do not make a mask of 96 x 96"]),
        (lambda entry: entry["segmentation"].update(counts=[-4, 9220]), ["do not make a mask"]),
        (lambda entry: entry["segmentation"].update(counts=[10**30]), ["entry 0"]),
        (lambda entry: entry["segmentation"].update(counts=[9216.0]), ["whole numbers"]),
        (lambda entry: entry.update(segmentation=None), ["size None"]),
        (lambda entry: entry.update(second=-1), ["wanted a second from 0 up"]),
        (lambda entry: entry.update(second=10), ["has no second 10"]),
        (lambda entry: entry.update(object="ghost"), ["masks of 'ghost'"]),
    ],
)
def test_run_lengths_that_are_no_mask_are_refused(change, words, broken):
    layout, items = items_of("f_music", broken("f_music"))
    path = file_of(items[0], ".json")
    entries = json.loads(path.read_text())
    change(entries[0])
    path.write_text(json.dumps(entries))
    refused(lambda: layout.load(items[0]), "00000000_0_10", *words)


def test_run_lengths_may_be_plain_numbers(broken):
    layout, items = items_of("f_music", broken("f_music"))
    before = layout.load(items[0])
    path = file_of(items[0], ".json")
    entries = json.loads(path.read_text())
    for entry in entries:
        (one,) = [one for place, one in enumerate(before.objects) if str(place) == entry["object"]]
        flat = one.masks[entry["second"]].T.ravel()  # column after column
        edges = np.flatnonzero(np.diff(np.concatenate([[False], flat, [not flat[-1]]])))
        entry["segmentation"]["counts"] = np.diff(np.concatenate([[0], edges])).tolist()
    path.write_text(json.dumps(entries))
    for one, other in zip(before.objects, layout.load(items[0]).objects, strict=True):
        np.testing.assert_array_equal(one.masks, other.masks)


def test_what_a_described_folder_says_must_fit_its_clip(broken):
    folder = broken("f_music")
    layout, items = items_of("f_music", folder)
    edit(folder / "sources.csv", ",1,0", ",1,00")
    refused(
        lambda: LAYOUTS["f_music"](folder).load(LAYOUTS["f_music"](folder).items()[0]),
        "sources.csv, line 2",
        "11 letters",
    )
    edit(folder / "sources.csv", ",1,00", ",1,0")
    (folder / "masks" / items[2].id / "0" / "late.png").write_bytes(b"")
    refused(layout.items, "late.png", "SECOND.png")
    (folder / "masks" / items[2].id / "0" / "late.png").unlink()
    with open(folder / "sources.csv", "a") as file:
        file.write(f"{items[1].id},0,pipa,1,\n{items[1].id},1,drum,1,\n")
    layout, items = items_of("f_music", folder)
    refused(lambda: layout.load(items[1]), items[1].id, "not told apart and 2 objects in view")
    with open(folder / "sentences.csv", "a") as file:
        file.write(f"{items[2].id},10,Too late.\n")
    layout, items = items_of("f_music", folder)
    refused(lambda: layout.load(items[2]), items[2].files[0], "no second 10")


def test_unknown_seconds_stay_unknown(broken):
    """A mask that is absent, a ? for the sound: said a second at a time."""
    folder = broken("f_music")
    edit(folder / "sources.csv", f"{2:08d}_0_10,0,guitar,1,", f"{2:08d}_0_10,0,guitar,1,?")
    text = (
        (folder / "sources.csv")
        .read_text()
        .replace("guitar,1,?0", "guitar,1,?", 1)
        .replace("guitar,1,?1", "guitar,1,?", 1)
    )
    (folder / "sources.csv").write_text(text)
    (folder / "masks" / "00000002_0_10" / "0" / "7.png").unlink()
    layout, items = items_of("f_music", folder)
    clip = layout.load(items[2])
    np.testing.assert_array_equal(clip.sources_known, np.arange(10) != 0)
    np.testing.assert_array_equal(clip.masks_known, np.arange(10) != 7)


def test_vgg_ss_boxes_are_cut_to_the_picture_and_empty_ones_left_out(broken):
    """Published boxes reach -2.9e16, and some are lines."""
    folder = broken("vgg_ss")
    entries = json.loads((folder / "vggss.json").read_text())
    entries[0]["bbox"] = [[0.1, 0.2, 1.5, 0.9], [0.3, 1.0, 0.7, 1.0], [0.2, 0.5, 0.6, -2.88e16]]
    entries[1]["bbox"] = [[0.3, 1.0, 0.7, 1.0]]
    (folder / "vggss.json").write_text(json.dumps(entries))
    layout, items = items_of("vgg_ss", folder)
    (one,) = layout.load(items[0]).objects
    np.testing.assert_allclose(one.boxes[5], [0.1, 0.2, 1.0, 0.9])
    (none,) = layout.load(items[1]).objects
    assert none.boxes is None
    assert none.name == entries[1]["class"]


def test_music_avqa_counts_only_what_an_answer_vouches_for():
    from ssu_jax.data.datasets.music_avqa import _read

    def told(text, values, answer, deleted=0):
        question = {"video_id": "00000003", "question_content": text, "templ_values": json.dumps(values),
                    "anser": answer, "question_deleted": deleted}  # fmt: skip
        return _read(question, "here")[1]

    assert told("Is there a <Object> in the entire video?", ["flute"], "no") == set()
    assert told("Are there <Object> and <Object> sound?", ["flute", "electric_bass"], "yes") == {"flute", "bass"}
    assert told("How many sounding <Object> in the video?", ["acoustic_guitar"], "zero") == set()
    assert told("How many sounding <Object> in the video?", ["acoustic_guitar"], "two") == {"guitar"}
    assert told("Is the <Object> louder than the <Object>?", ["pipa", "erhu"], "no") == {"pipa", "erhu"}
    assert told("Is the <Object> in the video always playing?", ["pipa"], "no") == set()
    assert told("What is the <TH> instrument that comes in?", ["second"], "suona") == {"suona"}
    assert told("Where is the <FL> sounding instrument?", ["first"], "left") == set()
    assert told("Is the <Object> louder than the <Object>?", ["pipa", "erhu"], "no", deleted=1) == set()


def test_an_empty_folder_and_a_missing_one_are_told(tmp_path):
    refused(LAYOUTS["raw"](tmp_path).items, tmp_path, "holds no videos")
    refused(LAYOUTS["music"](tmp_path).items, tmp_path, "MUSIC_solo_videos.json")
    for name in set(LAYOUTS) - {"raw", "music"}:
        refused(LAYOUTS[name](tmp_path).items, tmp_path)
        refused(LAYOUTS[name](tmp_path / "absent").items, tmp_path / "absent")

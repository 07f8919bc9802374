"""Mixtures: k seconds of different sources joined by hand-checked rules, the same whatever reads them."""

import dataclasses

import numpy as np
import pytest
from small_clips import CLASSES, small_clip

from ssu_jax.config import sizes
from ssu_jax.data import audio, execution, mixtures, records, solos
from ssu_jax.types import Clip, SoundObject, UserError

NAMES = ("bell", "drum", "siren", "flute", "radio")
RATE, SIZE, T = 8000, 32, 3
COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40], [40, 200, 200]])


def solo_clip(number: int, name: str, silent: str = "", t: int = T, rate: int = RATE) -> Clip:
    """`name` sounds in every second: a square of its colour on grey; `silent` stands below it."""
    frames = np.full((t, SIZE, SIZE, 3), 90 + number, np.uint8)
    objects = []
    for place, one in enumerate([name, silent] if silent else [name]):
        mask = np.zeros((t, SIZE, SIZE), bool)
        mask[:, 8 + 16 * place - 4 : 8 + 16 * place + 4, 8:24] = True
        frames[mask] = COLOURS[NAMES.index(one)]
        objects.append(SoundObject(one, np.full(t, place == 0), True, mask))
    sound = np.random.default_rng(number).integers(-9000, 9000, t * rate).astype(np.int16)
    return Clip(
        f"{number:03d}", frames, np.arange(t) + 0.5, sound, rate, np.ones(t, bool), ("",) * t, tuple(objects)
    )  # fmt: skip


def write(path, clips, split="train", classes=NAMES):
    records.write_split(path, split, clips, 2, classes=classes, source={})
    return str(path)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Records 0, 5 are bells, 1, 6 drums and so on; from 10 on nothing in them can be used."""
    path = tmp_path_factory.mktemp("solos")
    clips = [solo_clip(number, NAMES[number % 5]) for number in range(10)]
    silent = [dataclasses.replace(clip, objects=(
        dataclasses.replace(clip.objects[0], sounding=np.zeros(T, bool)),)) for clip in clips[:2]]  # fmt: skip
    clips += [dataclasses.replace(clip, id=f"{10 + n:03d}") for n, clip in enumerate(silent)]
    for split in ("train", "val"):
        write(path, clips, split)
    return str(path)


@pytest.fixture
def config(directory):
    config = sizes.tiny()
    config.family, config.train.batch_size = "tvsl", 4
    config.data.dir, config.data.classes = directory, NAMES
    config.data.image_size, config.data.sample_rate = SIZE, RATE
    config.tvsl.trio = "audioclip"  # the sound itself
    return config


def take(batches, number):
    taken = [next(batches) for _ in range(number)]
    batches.close()
    return taken


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        for name, mine, theirs in zip(a._fields, a, b, strict=True):
            np.testing.assert_array_equal(mine, theirs, err_msg=name)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_pictures_side_by_side_and_sounds_added(config, directory, k):
    source = records.RecordSource(directory, "val")
    (batch,) = mixtures.eval_mixtures(config, "val", 5, 5, num_sources=k)
    kinds = {
        "pictures": ("uint8", (5, SIZE, SIZE * k, 3)), "sound": ("float32", (5, RATE)), "sources": ("int32", (5, k)),
        "regions": ("uint8", (5, k, SIZE, SIZE * k)), "region_known": ("bool", (5, k)), "present": ("uint8", (5, 5)),
        "record": ("int32", (5, k)),
    }  # fmt: skip
    assert {name: (value.dtype.name, value.shape) for name, value in batch._asdict().items()} == kinds
    seconds = set()
    for row in range(5):
        sounds = []
        for place, (number, label) in enumerate(zip(batch.record[row].tolist(), batch.sources[row], strict=True)):
            clip = records.decode_clip(source[number])
            assert clip.objects[0].name == NAMES[label]
            part = slice(place * SIZE, (place + 1) * SIZE)
            np.testing.assert_array_equal(batch.pictures[row, :, part], clip.frames[0])  # alike in all seconds
            wanted = np.zeros((SIZE, SIZE * k), bool)
            wanted[:, part] = clip.objects[0].masks[0]
            np.testing.assert_array_equal(batch.regions[row, place], wanted)
            sounds.append(clip.sound.reshape(T, RATE) / 32768)
        assert len(set(batch.sources[row].tolist())) == k
        assert np.flatnonzero(batch.present[row]).tolist() == sorted(batch.sources[row])
        sums = {which: sum(sound[second] for sound, second in zip(sounds, which, strict=True))
                for which in np.ndindex(*[T] * k)}  # fmt: skip
        (found,) = [which for which, wanted in sums.items() if np.allclose(wanted, batch.sound[row], atol=1e-7)]
        seconds |= set(found)
    assert batch.region_known.all()
    assert len(seconds) > 1


def test_the_small_trio_hears_log_mel_of_the_sum(config):
    config.tvsl.sound_seconds = 2
    heard = next(mixtures.eval_mixtures(config, "val", 2, 2)).sound
    config.tvsl.trio = "small"
    patches = next(mixtures.eval_mixtures(config, "val", 2, 2)).sound
    assert patches.shape == (2, 2, 96, 64)
    for sound, patch in zip(heard, patches, strict=True):
        np.testing.assert_allclose(patch, audio.second_patches(sound, RATE, 2, config.data.log_offset), atol=1e-4)
    config.data.sample_rate = 16000  # another rate than the records' is no obstacle to this trio
    assert next(mixtures.eval_mixtures(config, "val", 2, 2)).sound.shape == (2, 2, 96, 64)


def _of(config, **changes):
    return dataclasses.replace(config, tvsl=dataclasses.replace(config.tvsl, **changes))


def test_any_start_threads_and_processes_give_the_same_batches(config, monkeypatch):
    config.tvsl.num_sources = 3
    whole = take(mixtures.train_mixtures(config), 7)
    assert_same(take(mixtures.train_mixtures(config, 4), 3), whole[4:])
    with monkeypatch.context() as patch:
        patch.setattr(execution.importlib.util, "find_spec", lambda name: None)  # a machine without Grain
        assert_same(take(mixtures.train_mixtures(config, 2), 3), whole[2:5])
    config.data.num_workers = 1
    assert_same(take(mixtures.train_mixtures(config, 3), 3), whole[3:6])
    config.data.num_workers, config.train.seed = 0, 1
    assert (take(mixtures.train_mixtures(config), 1)[0].record != whole[0].record).any()


@pytest.mark.parametrize("hosts", [2, 4, "apart"])
def test_hosts_make_their_rows_of_the_same_batches(config, hosts):
    whole = take(mixtures.train_mixtures(config, 2), 2)
    apart = [(3, 0), (1,), (2, 1)]
    for rows in apart if hosts == "apart" else np.arange(4).reshape(hosts, -1).tolist():
        mine = take(mixtures.train_mixtures(config, 2, rows=rows), 2)
        assert_same(mine, [type(batch)(*(values[list(rows)] for values in batch)) for batch in whole])


def test_an_epoch_begins_a_mixture_with_every_record_that_can_be_used(config):
    numbers = np.concatenate([batch.record for batch in take(mixtures.train_mixtures(config), 18)])
    for epoch in numbers[:, 0].reshape(6, 12):
        assert set(epoch.tolist()) == set(range(10))  # 10 and 11 cannot: other records by chance stand for them
    assert set(numbers[:, 1].tolist()) == set(range(10))


def test_directories_are_mixed_by_their_weights(config, directory, tmp_path):
    other = write(tmp_path / "other", [solo_clip(20 + number, NAMES[number]) for number in range(5)])
    config.data.dir, config.data.weights = f"{directory},{other}", (1.0, 3.0)
    numbers = np.concatenate([batch.record for batch in take(mixtures.train_mixtures(config), 40)])
    theirs = (numbers >= 12).mean(0)
    assert theirs[0] == pytest.approx(0.75, abs=0.06)  # a sixth of the first set's turns finds nothing to show
    assert theirs[1] == pytest.approx(3 / (3 + 10 / 12), abs=0.08)
    config.data.weights = (1.0,)
    with pytest.raises(UserError, match="one weight a directory"):
        mixtures.train_mixtures(config)


def test_classes_held_out_are_neither_heard_nor_seen_in_training(config, tmp_path):
    clips = [solo_clip(n, NAMES[n % 5], silent="radio" if n % 2 else "") for n in range(5, 15)]
    config.data.dir = write(tmp_path, clips)
    write(tmp_path, clips, "val")
    config.tvsl.held_out = ("siren", "radio")
    for batch in take(mixtures.train_mixtures(config), 8):
        assert set(batch.sources.ravel().tolist()) <= {0, 1, 3}
        assert not batch.present[:, [2, 4]].any()
    (held,) = mixtures.eval_mixtures(config, "val", 6, 6, classes=("siren", "radio"))
    assert {tuple(sorted(row)) for row in held.sources.tolist()} == {(2, 4)}
    config.tvsl.held_out = ("kazoo",)
    with pytest.raises(UserError, match="config.tvsl.held_out names 'kazoo', which config.data.classes does not"):
        mixtures.train_mixtures(config)


def test_no_picture_shows_the_class_of_anothers_source(config, tmp_path):
    """Bells beside which a drum stands silent never meet drums."""
    clips = [solo_clip(0, "bell", silent="drum"), solo_clip(1, "drum"), solo_clip(2, "siren", silent="radio")]
    config.data.dir = write(tmp_path, clips, "val")
    (batch,) = mixtures.eval_mixtures(config, "val", 12, 12)
    met = {tuple(sorted(row)) for row in batch.sources.tolist()}
    assert met == {(0, 2), (1, 2)}
    bells = (batch.sources == 0).any(1)
    np.testing.assert_array_equal(batch.present, np.where(bells[:, None], [1, 1, 1, 0, 1], [0, 1, 1, 0, 1]))


def test_evaluation_is_fixed_and_fills_the_last_batch(config):
    batches = list(mixtures.eval_mixtures(config, "val", 5))
    assert [len(batch.record) for batch in batches] == [5, 5, 5]  # 12 records: 12 mixtures
    empty = np.concatenate([batch.sources[:, 0] == -1 for batch in batches])
    assert empty.tolist() == [False] * 12 + [True] * 3
    last = batches[2]
    assert (last.sources[2:] == -1).all()
    assert (last.record[2:] == -1).all()
    assert not any(part[2:].any() for part in (last.regions, last.region_known, last.present))
    assert_same(list(mixtures.eval_mixtures(config, "val", 5)), batches)
    assert_same(mixtures.eval_mixtures(config, "val", 3, 3), [type(batches[0])(*(v[:3] for v in batches[0]))])
    other = next(mixtures.eval_mixtures(config, "val", 5, seed=1))
    assert (other.record != batches[0].record).any()
    assert next(mixtures.eval_mixtures(config, "val", 2, num_sources=3)).sources.shape == (2, 3)
    config.data.dir, elsewhere = "", config.data.dir
    assert_same([next(mixtures.eval_mixtures(config, "val", 5, directory=elsewhere))], batches[:1])


def test_changes_in_training_keep_picture_and_region_together(config, tmp_path):
    """Each source is painted in a colour that light may change but not mix up with the grey around it."""
    clips = [solo_clip(n, NAMES[n % 3]) for n in range(6)]
    config.data.dir = write(tmp_path, clips)
    config.data.augment.crop_min_scale = 0.7
    for mode in ("corrected", "released"):
        seen = []
        for batch in take(mixtures.train_mixtures(_of(config, mode=mode)), 6):
            for row in range(4):
                for place, label in enumerate(batch.sources[row]):
                    region = batch.regions[row, place, :, place * SIZE : (place + 1) * SIZE].astype(bool)
                    picture = batch.pictures[row, :, place * SIZE : (place + 1) * SIZE].astype(float)
                    painted = picture.max(-1) - picture.min(-1) > 50
                    assert (region & painted).sum() / (region | painted).sum() > 0.85
                    assert (picture[region].mean(0) > picture[region].mean()).tolist() == (
                        COLOURS[label] > 100
                    ).tolist()
                    seen.append((region.sum(), *np.argwhere(region)[0]))
        assert len(set(seen)) > 5  # it did move
        assert max(seen)[0] > 128  # and grow


def known(clip: Clip, flag: bool) -> Clip:
    return dataclasses.replace(clip, sources_known=np.full(len(clip.valid), flag))


def test_a_solo_is_a_second_in_which_one_class_alone_is_heard_and_seen():
    def sounding(text):
        return np.array([letter == "1" for letter in text])

    base = solo_clip(0, "bell", silent="drum", t=6)
    bell, drum = base.objects
    clip = dataclasses.replace(
        base,
        valid=np.arange(6) < 5,
        objects=(
            dataclasses.replace(bell, sounding=sounding("111101")),
            dataclasses.replace(drum, sounding=sounding("010000")),
            SoundObject("siren", sounding("001000"), False),
        ),
    )
    # second 0: bell; 1: bell and drum; 2: a siren is heard too; 3: bell; 4: nothing; 5: padding
    assert [(one.second, one.names, one.begin, one.end) for one in solos.moments(clip, 1, 1)] == [
        (0, ("bell",), 0.0, 1.0), (3, ("bell",), 3.0, 4.0)]  # fmt: skip
    assert {one.seen for one in solos.moments(clip, 1, 1)} == {frozenset({"bell", "drum"})}
    assert [(one.second, one.names) for one in solos.moments(clip, 2, 1)] == [(1, ("bell", "drum"))]
    assert solos.moments(clip, 1, 3) == []  # 3 seconds around 0 and 3 have the drum or the siren in them
    assert [one.second for one in solos.moments(clip, 1, 2)] == []  # 2 touch the neighbours on both sides, or are moved
    alone = dataclasses.replace(clip, objects=clip.objects[:1])
    assert [(one.second, one.begin, one.end) for one in solos.moments(alone, 1, 3)] == [
        (0, 0.0, 3.0), (1, 0.0, 3.0), (2, 1.0, 4.0), (3, 2.0, 5.0)]  # fmt: skip
    assert solos.moments(known(clip, False), 1, 1) == []
    partly = dataclasses.replace(alone, sources_known=np.arange(6) != 2)
    assert [one.second for one in solos.moments(partly, 1, 1)] == [0, 1, 3]
    assert [one.second for one in solos.moments(partly, 1, 3)] == []  # no one knows what second 2 adds


def test_where_no_one_knows_when_a_class_sounds_boxes_or_the_middle_tell():
    silent = np.zeros(10, bool)
    clip = known(solo_clip(0, "bell", t=10), False)
    vggsound = dataclasses.replace(clip, objects=(SoundObject("bell", silent),), masks_known=silent)
    (one,) = solos.moments(vggsound, 1, 5)
    assert (one.second, one.names, one.begin, one.end) == (5, ("bell",), 3.0, 8.0)
    # VGG-SS: two boxes of one class in second 5, whose picture is from 5.0 s.
    boxes = np.full((10, 4), np.nan, np.float32)
    boxes[5] = 0.25, 0.0, 0.5, 1.0
    times = clip.frame_times.copy()
    times[5] = 5.0
    boxed = SoundObject("bell", np.arange(10) == 5, boxes=boxes)
    vgg_ss = dataclasses.replace(vggsound, objects=(boxed, boxed), frame_times=times)
    (one,) = solos.moments(vgg_ss, 1, 5)
    assert (one.second, one.begin, one.end) == (5, 2.5, 7.5)
    # MUSIC's duets: seconds with boxes of both, else the middle; never a solo.
    other = np.roll(boxes, 1, axis=0)
    other[5] = boxes[5]
    both = dataclasses.replace(vggsound, objects=(SoundObject("bell", silent, boxes=boxes),
                                                  SoundObject("drum", silent, boxes=other)))  # fmt: skip
    assert [(one.second, one.names) for one in solos.moments(both, 2, 5)] == [(5, ("bell", "drum"))]
    assert solos.moments(both, 1, 5) == []
    music = dataclasses.replace(vggsound, dataset="music")
    assert [one.second for one in solos.moments(music, 1, 5)] == list(range(10))
    assert solos.middle_one(solos.moments(music, 1, 5), music).second == 5
    unseen = dataclasses.replace(vggsound, objects=(SoundObject("bell", silent, False),))
    assert solos.moments(unseen, 1, 5) == []
    assert solos.moments(dataclasses.replace(vggsound, valid=silent), 1, 5) == []


def test_sound_of_a_short_clip_is_repeated():
    clip = solo_clip(0, "bell", t=2)
    (one, _) = solos.moments(clip, 1, 5)
    assert (one.begin, one.end) == (0.0, 2.0)
    heard = solos.excerpt(clip, one, 5).sound
    np.testing.assert_array_equal(heard, np.concatenate([clip.sound, clip.sound, clip.sound[:RATE]]))


def boxed_clip(number: int, *boxes, dataset="music", t=10) -> Clip:
    """bell, and drum where there are two boxes, in every second from 2 on."""
    silent = np.zeros(t, bool)
    objects = []
    for name, box in zip(NAMES, boxes, strict=False):
        of_one = np.full((t, 4), np.nan, np.float32)
        of_one[2:] = box
        objects.append(SoundObject(name, silent, boxes=of_one))
    return dataclasses.replace(solo_clip(number, "bell", t=t), objects=tuple(objects), dataset=dataset,
                               masks_known=silent, captions_known=silent, sources_known=silent)  # fmt: skip


def test_records_as_they_are(config, tmp_path):
    left, right = (0.0, 0.25, 0.5, 0.75), (0.5, 0.5, 1.0, 1.0)
    clips = [boxed_clip(0, left), boxed_clip(1, left, right), boxed_clip(2, right, dataset="vgg_ss"), boxed_clip(3)]
    config.data.dir = write(tmp_path, clips, "test")
    config.tvsl.sound_seconds = 5
    (solo,) = mixtures.eval_mixtures(config, "test", 5, num_sources=1, as_it_is=True)
    assert solo.pictures.shape == (5, SIZE, SIZE, 3)
    assert solo.record.ravel().tolist() == [0, -1, 2, -1, -1]
    assert solo.sources.ravel().tolist() == [0, -1, 0, -1, -1]
    wanted = np.zeros((SIZE, SIZE))
    wanted[8:24, :16] = 1
    np.testing.assert_array_equal(solo.regions[0, 0], wanted)
    np.testing.assert_allclose(solo.sound[0], clips[0].sound[3 * RATE : 8 * RATE] / 32768, atol=1e-7)
    (duet,) = mixtures.eval_mixtures(config, "test", 4, num_sources=2, as_it_is=True)
    assert duet.sources.tolist() == [[-1, -1], [0, 1], [-1, -1], [-1, -1]]
    assert duet.record[1].tolist() == [1, 1]
    assert duet.pictures.shape == (4, SIZE, SIZE, 3)
    assert duet.regions.shape == (4, 2, SIZE, SIZE)
    np.testing.assert_array_equal(duet.regions[1, 0], wanted)
    assert duet.regions[1, 1].sum() == 16 * 16
    # Every box of MUSIC is read as corners in released mode: width and height lie left of, or above, the corner.
    config.tvsl.mode = "released"
    (solo,) = mixtures.eval_mixtures(config, "test", 4, num_sources=1, as_it_is=True)
    (duet,) = mixtures.eval_mixtures(config, "test", 4, num_sources=2, as_it_is=True)
    wanted[16:] = 0  # left 0, top 0.25, "right" 0.5, "bottom" 0.5
    np.testing.assert_array_equal(solo.regions[0, 0], wanted)
    assert duet.regions[1].sum((1, 2)).tolist() == [8 * 16, 0]  # the second: 0.5, 0.5, 0.5, 0.5
    assert solo.region_known[[0, 2]].all()
    assert solo.regions[2].sum() == 16 * 16  # VGG-SS has corners
    (none,) = mixtures.eval_mixtures(config, "test", 4, num_sources=1, as_it_is=True, classes=("drum",))
    assert (none.sources == -1).all()


def test_a_hidden_source_is_not_asked_for(config, tmp_path):
    clips = [solo_clip(n, NAMES[n]) for n in range(3)]
    gone = dataclasses.replace(clips[0].objects[0], masks=np.zeros((T, SIZE, SIZE), bool))
    config.data.dir = write(tmp_path, [dataclasses.replace(clips[0], objects=(gone,)), *clips[1:]], "val")
    (batch,) = mixtures.eval_mixtures(config, "val", 6, 6)
    assert set(batch.sources.ravel().tolist()) == {1, 2}


def test_what_cannot_be_mixed_is_said(config, tmp_path, monkeypatch):
    def message(call):
        with pytest.raises(UserError) as caught:
            call()
        return str(caught.value)

    config.data.sample_rate = 44100
    for call in (lambda: mixtures.train_mixtures(config), lambda: mixtures.eval_mixtures(config, "val", 4)):
        said = message(call)
        assert "record 0 holds sound of 8000 Hz, config.tvsl.trio audioclip wants 44100" in said
        assert "--sample-rate 44100" in said
    config.data.sample_rate = RATE
    assert "6 sources of different classes were asked for, of 5 classes that may sound" in message(
        lambda: mixtures.eval_mixtures(config, "val", 4, num_sources=6)
    )
    assert "--classes names 'kazoo'" in message(lambda: mixtures.eval_mixtures(config, "val", 4, classes=("kazoo",)))
    config.data.dir = write(tmp_path, [solo_clip(n, NAMES[n % 2]) for n in range(4)])
    config.tvsl.num_sources = 3
    monkeypatch.setattr(mixtures, "MOST_TRIES", 200)
    said = message(lambda: next(mixtures.train_mixtures(config)))
    assert "records drawn gave no 3 seconds in each of which another class alone sounds" in said
    assert "(config.tvsl.num_sources)" in said


def test_records_of_the_kind_the_pipeline_reads_serve_too(config, tmp_path):
    """A bell sounds alone in second 0 of each; the siren of the others is never seen."""
    config.data.dir, config.data.classes = write(tmp_path, [small_clip(i) for i in range(3)], "val", CLASSES), CLASSES
    (batch,) = mixtures.eval_mixtures(config, "val", 3, num_sources=1)
    assert batch.sources.ravel().tolist() == [0, 0, 0]
    assert batch.present.tolist() == [[1, 1, 0]] * 3  # a drum stands by


def test_records_of_other_classes_are_refused_or_passed_over(config):
    config.data.classes = ("drum", "siren", "flute")
    with pytest.raises(UserError, match="the records hold the class 'bell', which config.data.classes does not name"):
        next(mixtures.train_mixtures(config))
    config.data.other_classes = "passed_over"
    batches = take(mixtures.train_mixtures(config), 4)
    numbers = {int(number) % 5 for batch in batches for number in batch.record.ravel()}
    assert numbers == {1, 2, 3}
    assert {int(one) for batch in batches for one in batch.sources.ravel()} == {0, 1, 2}
    config.family, config.tvsl.trio = "ssuformer", "small"
    with pytest.raises(UserError, match="passed_over is for family tvsl"):
        config.validate()

"""Class names of public data sets, as distributed. Facts, named by their source."""

from ssu_jax.config.labels import F_LIFESCENE_CLASSES, F_MUSIC_CLASSES

# AVSBench S4: the folders of its 23 categories (OpenNLPLab/AVSBench: preprocess_scripts/preprocess_s4.py).
AVSBENCH_S4 = tuple(sorted(
    "baby_laughter female_singing male_speech dog_barking cat_meowing lions_roaring horse_clip-clop coyote_howling "
    "mynah_bird_singing playing_acoustic_guitar playing_tabla playing_violin playing_piano playing_ukulele "
    "playing_glockenspiel helicopter race_car driving_buses ambulance_siren typing_on_computer_keyboard "
    "chainsawing_trees cap_gun_shooting lawn_mowing".split()
))  # fmt: skip

# MUSIC: the 11 instruments of MUSIC_solo_videos.json (roudimit/MUSIC_dataset).
MUSIC = tuple(
    "accordion acoustic_guitar cello clarinet erhu flute saxophone trumpet tuba violin xylophone".split()
)  # fmt: skip

# AVSS: the 71 names of label2idx.json, in the order of the colours of `labels_rgb` (YenanLiu/DDESeg holds a copy).
AVSS = tuple(
    "background accordion airplane axe baby bassoon bell bird boat boy bus car cat cello clarinet clipper clock dog "
    "donkey drum duck elephant emergency-car erhu flute frying-food girl goose guitar gun guzheng hair-dryer handpan "
    "harmonica harp helicopter hen horse keyboard leopard lion man marimba missile-rocket motorcycle mower parrot "
    "piano pig pipa saw saxophone sheep sitar sorna squirrel tabla tank tiger tractor train trombone truck trumpet "
    "tuba ukulele utv vacuum-cleaner violin wolf woman".split()
)

# MUSIC-AVQA's 22 instruments (values of its question templates) are f-Music's 22 classes; two have another name.
MUSIC_AVQA = {"acoustic_guitar": "guitar", "electric_bass": "bass"}

# VGGSound's labels (hche11/VGGSound: data/stat.csv) whose clips f-Lifescene's classes are; those not listed here
# have the same name in both. That the set was made of them is inferred from the names: its authors do not say.
VGGSOUND = {
    "female singing": "woman singing",
    "female speech, woman speaking": "woman speaking",
    "male singing": "man singing",
    "male speech, man speaking": "man speaking",
    "child speech, kid speaking": "child speaking",
    "children shouting": "child shouting",
    "vehicle horn, car horn, honking": "car horning",
    "race car, auto racing": "car racing",
    "railroad car, train wagon": "railroad car",
    "driving motorcycle": "motorcycle pass",
    "police car (siren)": "police car",
    "bird chirping, tweeting": "bird chirping",
    "lions roaring": "lion roaring",
    "skateboarding": "skate boarding",
    "using sewing machines": "sewing machine",
    "hedge trimmer running": "hedge trimmer",
    "telephone bell ringing": "telephone ringing",
    "vacuum cleaner cleaning floors": "vacuum cleaner cleaning",
    "wind chime": "wind chiming",
    "electric shaver, electric razor shaving": "electric razor shaving",
}


def f_music_name(name: str) -> str:
    """f-Music's class of its own name in any case, or of MUSIC-AVQA's; any other name comes back as it is."""
    folded = name.lower()
    return folded if folded in F_MUSIC_CLASSES else MUSIC_AVQA.get(folded, name)


def f_lifescene_name(name: str) -> str:
    """f-Lifescene's class of its own name in any case, or of VGGSound's; any other name comes back as it is."""
    folded = name.lower()
    return folded if folded in F_LIFESCENE_CLASSES else VGGSOUND.get(folded, name)

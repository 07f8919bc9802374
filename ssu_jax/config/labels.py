"""Class names of the data sets, with their major category. Facts, named by their source."""

# The built-in world (our design): sounding object classes and their major category.
SYNTHETIC = {
    "banjo": "music",
    "bell": "music",
    "bird": "animal",
    "clock": "tool",
    "cricket": "animal",
    "dog": "animal",
    "drum": "music",
    "flute": "music",
    "frog": "animal",
    "horn": "vehicle",
    "motor": "vehicle",
    "radio": "tool",
    "siren": "vehicle",
    "whistle": "tool",
}
SYNTHETIC_CLASSES = tuple(SYNTHETIC)

# f-Music (22 classes) and f-Lifescene (61), by major category and in lower case: the table on the paper's project
# page (Yixuan-Wang1/AVUWEB: static/images/categories.png).
_F_MUSIC_GROUPS = {
    "string": "violin, cello, guitar, ukulele, erhu, guzheng, pipa, bass, banjo",
    "percussion": "drum, xylophone, congas",
    "keyboard": "accordion, piano",
    "wind": "tuba, trumpet, suona, bassoon, flute, clarinet, bagpipe, saxophone",
}  # fmt: skip
_F_LIFESCENE_GROUPS = {
    "human": "baby crying, woman singing, woman speaking, man singing, man speaking, people coughing, "
             "people slapping, people belly laughing, people sneezing, people whispering, child singing, "
             "child speaking, child shouting",
    "vehicle": "car horning, train horning, train whistling, car engine idling, car passing by, car racing, "
               "car engine knocking, car engine starting, fire truck siren, train wheels squealing, "
               "railroad car, motorcycle pass, police car",
    "animal": "bird chirping, cat meowing, cat purring, dog barking, cow lowing, horse neighing, "
              "horse clip-clop, sheep bleating, bull bellowing, lion roaring",
    "sport": "basketball bounce, skate boarding",
    "tool": "typing on computer keyboard, lawn mowing, chainsawing trees, sewing machine, hedge trimmer, "
            "telephone ringing, hammering nails, mouse clicking, vacuum cleaner cleaning, "
            "machine gun shooting, printer printing, smoke detector beeping, arc welding, alarm clock ringing",
    "nature": "sea waves, wind chiming, waterfall burbling",
    "other": "church bell ringing, door slamming, bathroom ventilation fan running, helicopter, "
             "electric razor shaving, airplane flyby",
}  # fmt: skip
F_MUSIC = {name: major for major, names in _F_MUSIC_GROUPS.items() for name in names.split(", ")}
F_LIFESCENE = {name: major for major, names in _F_LIFESCENE_GROUPS.items() for name in names.split(", ")}
F_MUSIC_CLASSES, F_LIFESCENE_CLASSES = tuple(F_MUSIC), tuple(F_LIFESCENE)
